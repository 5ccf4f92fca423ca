"""The command `trainer recalibrate`."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_agent.contract.bundle import read_bundle
from edge_agent.contract.errors import UsageError
from edge_agent.contract.threshold import Threshold
from edge_agent.history import add_history_options
from trainer.alarm_runs import AlarmRun
from trainer.cleaning import Cleaned
from trainer.command_input import read_cleaned
from trainer.confidence import rate_interval, supported_budgets, weeks_text
from trainer.console import Console
from trainer.fit_options import broken_rule, check_out

if TYPE_CHECKING:
    from trainer.recalibrate import Recalibration

_SCALES = ("auto", "keep", "renew")


def add_recalibrate_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command to its parser."""
    add_history_options(parser)
    parser.add_argument("--bundle", type=Path, required=True, metavar="DIR", help="stays as it is")
    parser.add_argument("--out", type=Path, metavar="DIR", help="the new bundle")
    parser.add_argument("--in-place", action="store_true", help="put the new bundle in the place of --bundle")
    parser.add_argument(
        "--alarms-per-week", type=float, metavar="X", help="alarm budget (default: that of the bundle)"
    )
    parser.add_argument(
        "--scales",
        choices=_SCALES,
        default="auto",
        help="of residuals and levels: kept, learnt anew, or (auto) anew where the history is long enough",
    )
    parser.add_argument(
        "--other-machine",
        action="store_true",
        help="the forecaster has not seen this machine: rows of the time of its training count too",
    )
    parser.add_argument(
        "--what-if", action="store_true", help="print what a range of budgets gives, and write nothing"
    )


def recalibrate_command(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Find new thresholds, write the new bundle unless only asked what if, show a table and return its record.

    Raises:
        UsageError: an option is out of range or missing.
        BundleError: the bundle is damaged.
        HistoryError: the history cannot calibrate the bundle.
    """
    out = _check(options)
    manifest = read_bundle(options.bundle).manifest
    cleaned, source = read_cleaned(
        options, console, manifest.sampling_interval_seconds, manifest.phase_seconds
    )
    # Imported late: scikit-learn takes a second that a bad file need not wait.
    from trainer.recalibrate import BUDGETS, Wishes, recalibrate, write_recalibrated

    wishes = Wishes(options.alarms_per_week, options.scales, options.other_machine)
    found = recalibrate(options.bundle, cleaned, source, wishes, console)
    for reason, count in found.new_normal.left_out.items():
        console.note(f"{source}: {count} rows left out: {reason}")
    if not found.renewed:
        console.note(f"{source}: scales of residuals and levels stay as they were; {_why_kept(options)}")
    samples = len(found.history.samples)
    if out is None:
        budgets = sorted({*BUDGETS, found.old.threshold.alarms_per_week, found.new.threshold.alarms_per_week})
        return _what_if(found, budgets, console)
    console.stage("alarms at both thresholds", 2 * samples)
    (before,) = found.runs([found.old.threshold], False, console)
    (after,) = found.runs([found.new.threshold], True, console)
    written = write_recalibrated(found, cleaned, out)
    _table(console, cleaned, found, before, after, out)
    return {
        "bundle": str(out),
        "sha256": written.sha256,
        "version": written.manifest.version,
        "parent_sha256": found.source.sha256,
        "scales": "renewed" if found.renewed else "kept",
        "samples": samples,
        "left_out": found.new_normal.left_out,
        "repairs": cleaned.repairs,
        "old": _record(found.old.threshold, before),
        "new": _record(found.new.threshold, after),
        **written.manifest.metrics,
    }


def _check(options: argparse.Namespace) -> Path | None:
    """Return where the new bundle goes, None with --what-if."""
    if options.alarms_per_week is not None:
        rule = broken_rule("alarms_per_week", options.alarms_per_week)
        if rule:
            raise UsageError(f"--alarms-per-week: {rule}")
    if options.what_if:
        if options.out is not None or options.in_place:
            raise UsageError("--what-if: writes nothing, leave out --out and --in-place")
        return None
    if options.in_place == (options.out is not None):
        raise UsageError("--out: must be given, or --in-place, or --what-if")
    if options.in_place:
        return Path(options.bundle)
    out = Path(options.out)
    if out.exists() and options.bundle.exists() and out.samefile(options.bundle):
        raise UsageError(f"--out {out}: is the source bundle; --in-place replaces it")
    check_out(out)
    return out


def _why_kept(options: argparse.Namespace) -> str:
    if options.scales == "keep":
        return "--scales keep"
    return "the history is too short to learn new ones, --scales renew does it all the same"


def _record(threshold: Threshold, run: AlarmRun) -> dict[str, Any]:
    return {
        "threshold": threshold.value,
        "alarms_per_week": run.alarms_per_week,
        "alarms": run.alarms,
        "time_in_alarm_ratio": run.time_in_alarm_ratio,
        "score_basis": threshold.basis,
        "budget": threshold.alarms_per_week,
        "supported_alarms_per_week": threshold.supported_alarms_per_week,
        **rate_interval(threshold).record(),
    }


def _table(
    console: Console, cleaned: Cleaned, found: "Recalibration", before: AlarmRun, after: AlarmRun, out: Path
) -> None:
    """Show both thresholds side by side."""
    sides = ((found.old.threshold, before), (found.new.threshold, after))
    header = ("", f"version {found.source.manifest.version}", f"version {found.bundle.manifest.version}")
    rows = [
        ("threshold of the fused statistic", *(f"{threshold.value:.3g}" for threshold, _ in sides)),
        ("basis", *(threshold.basis for threshold, _ in sides)),
        ("budget, alarms a week", *(f"{threshold.alarms_per_week:g}" for threshold, _ in sides)),
        ("its history supports", *(f"{threshold.supported_alarms_per_week:.3g}" for threshold, _ in sides)),
        ("alarms a week here", *(f"{run.alarms_per_week:.3g}" for _, run in sides)),
        ("time in alarm here", *(f"{run.time_in_alarm_ratio:.2%}" for _, run in sides)),
    ]
    console.grid(header, rows)
    weeks = found.new.series.weeks
    console.say(
        f"here: {len(found.new.series.tick)} samples, {weeks_text(weeks)} of {len(cleaned.series)} assets together; "
        "the new threshold was chosen on them"
    )
    console.say(f"confidence: {rate_interval(found.new.threshold)}")
    console.say(supported_budgets(found.new.threshold))
    console.say(f"bundle: {out}")


def _what_if(found: "Recalibration", budgets: list[float], console: Console) -> dict[str, Any]:
    """Show what each budget gives on this history, with the bundle as it is and recalibrated."""
    renewed = [found.anew(budget) for budget in budgets]
    present = [found.as_it_is(budget) for budget in budgets]
    known = [threshold for threshold in present if threshold is not None]
    console.stage("alarms at each budget", 2 * len(found.new.series.tick))
    runs = found.runs(renewed, True, console)
    # The bundle's own threshold comes last: it stands for all where it is a margin.
    *of_known, own = found.runs([*known, found.old.threshold], False, console)
    old_runs = iter(of_known)
    rows = []
    for budget, threshold, run, old in zip(budgets, renewed, runs, present, strict=True):
        rows.append(
            {
                "budget": budget,
                "supported": threshold.basis == "tail",
                "recalibrated": _record(threshold, run),
                "as_it_is": None if old is None else _record(old, next(old_runs)),
            }
        )
    console.grid(
        ("budget a week", "supported here", "threshold anew", "alarms a week", "in alarm", "threshold as it is",
         "alarms a week", "in alarm"),
        [_what_if_row(row) for row in rows],
    )  # fmt: skip
    limits = found.new.threshold
    console.say(
        f"on {weeks_text(found.new.series.weeks)} of normal operation; the bundle's own threshold "
        f"{found.old.threshold.value:.3g} gives {own.alarms_per_week:.3g} alarms a week, "
        f"{own.time_in_alarm_ratio:.2%} in alarm"
    )
    console.say(supported_budgets(limits))
    return {
        "weeks": found.new.series.weeks,
        "supported_alarms_per_week": limits.supported_alarms_per_week,
        "scales": "renewed" if found.renewed else "kept",
        "present": _record(found.old.threshold, own),
        "budgets": rows,
    }


def _what_if_row(row: dict[str, Any]) -> tuple[str, ...]:
    anew, as_it_is = row["recalibrated"], row["as_it_is"]
    return (
        f"{row['budget']:g}", "yes" if row["supported"] else "no (margin)", *_cells(anew),
        *(("-", "-", "-") if as_it_is is None else _cells(as_it_is)),
    )  # fmt: skip


def _cells(record: dict[str, Any]) -> tuple[str, str, str]:
    return (
        f"{record['threshold']:.3g}",
        f"{record['alarms_per_week']:.3g}",
        f"{record['time_in_alarm_ratio']:.2%}",
    )
