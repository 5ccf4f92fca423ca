"""The command `trainer tune`."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_agent.contract.errors import HistoryError, UsageError
from trainer.cleaning import Cleaned
from trainer.console import Console
from trainer.fit_options import FitOptions
from trainer.tune_space import Space, read_space

if TYPE_CHECKING:
    from trainer.study import TrialRecord

PRUNERS = ("median", "hyperband", "none")
_MOST_TRIALS = 100_000
_SHOWN = 20


def add_tune_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command, beside those of history and model, to its parser."""
    parser.add_argument(
        "--trials", type=int, default=30, metavar="N", help="finished ones in all (default 30)"
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="TOML", help="the best, for trainer fit --config"
    )
    parser.add_argument(
        "--storage",
        metavar="URL",
        help="database of the study (default sqlite, beside --out); postgresql://…",
    )
    parser.add_argument(
        "--study", default="forewarn", metavar="NAME", help="in the database (default forewarn)"
    )
    parser.add_argument(
        "--pruner", choices=PRUNERS, default="median", help="what ends trials whose loss is hopeless"
    )
    parser.add_argument("--alarms-per-week", type=float, metavar="X", help="alarm budget, as for fit")


def check_tune_options(options: argparse.Namespace) -> Space:
    """Refuse what is out of range, and return what is tried.

    Raises:
        UsageError: an option is out of range, the result cannot be written, or Optuna is not installed.
        ConfigurationError: the space is no space.
    """
    if not 1 <= options.trials <= _MOST_TRIALS:
        raise UsageError(f"--trials: is {options.trials}, must be from 1 to {_MOST_TRIALS}")
    if options.out.is_dir() or not options.out.resolve().parent.is_dir():
        raise UsageError(f"--out {options.out}: must be a file in a directory that exists")
    try:
        import trainer.study  # noqa: F401  # only whether it can be
    except ModuleNotFoundError as missing:
        raise UsageError(f"{missing.name} is not installed: pip install 'forewarn[tune]'") from missing
    return read_space(options.config)


def tune_command(
    options: argparse.Namespace,
    wanted: FitOptions,
    space: Space,
    cleaned: Cleaned,
    source: str,
    console: Console,
) -> dict[str, Any]:
    """Run trials until so many are finished, write the best as TOML, show a table and return the record.

    Raises:
        HistoryError: the history is too short.
        UsageError: the database cannot be used or holds another study of this name.
    """
    from trainer.study import Study, without_password

    storage = options.storage or f"sqlite:///{options.out.with_suffix('.db')}"
    study = Study(storage, options.study, _about(cleaned, wanted, space), options.pruner, wanted.epochs)
    # Imported late: Keras takes ten seconds that a bad file or database need not wait.
    from trainer.tune import judge_trial, make_exam

    try:
        exam = make_exam(cleaned, wanted, space)
    except HistoryError as error:
        raise HistoryError(f"{source}: {error}") from error
    console.stage("trials", options.trials)
    console.advance(_finished(study.records()))

    def on_trial(number: int, records: list["TrialRecord"]) -> None:
        best, newest = _best(records), records[number]
        console.advance(1, "" if best is None else f"best cost {best.cost:.4f} (trial {best.number})")
        console.say(
            f"trial {newest.number}: {newest.state}" + ("" if newest.cost is None else f", {newest.cost:.4f}")
        )

    study.run(options.trials, wanted.seed, space, lambda *given: judge_trial(exam, *given), on_trial)
    records = study.records()
    best = _best(records)
    if best is None:
        reason = next((one.facts["refused"] for one in records if "refused" in one.facts), "all were pruned")
        raise HistoryError(f"{source}: no trial was judged: {reason}")
    _write(options.out, wanted, best.parameters)
    _show(records, best, len(exam.faults), options.out, console)
    return {
        "out": str(options.out),
        "study": options.study,
        "storage": without_password(storage),
        "finished": _finished(records),
        "best": asdict(best),
        "trials": [asdict(one) for one in records],
    }


def _about(cleaned: Cleaned, wanted: FitOptions, space: Space) -> dict[str, Any]:
    """Return what trials can be compared under, as a database keeps it."""
    # Imported late: it brings ONNX Runtime, which the start of other commands need not wait for.
    from trainer.release import history_facts

    plain = {key: value for key, value in _plain(wanted).items() if key not in space}
    return {
        "history": history_facts(cleaned)["data_sha256"],
        "options": repr(sorted(plain.items())),
        "space": repr(sorted(space.items())),
    }


def _plain(wanted: FitOptions) -> dict[str, Any]:
    keys = [item.name for item in fields(FitOptions) if item.metadata.get("key", True)]
    return {key: getattr(wanted, key) for key in keys}


def _finished(records: Sequence["TrialRecord"]) -> int:
    return sum(one.state in ("complete", "pruned") for one in records)


def _best(records: Sequence["TrialRecord"]) -> "TrialRecord | None":
    judged = [one for one in records if one.cost is not None]
    return min(judged, key=lambda one: (one.cost, one.number)) if judged else None


def _write(out: Path, wanted: FitOptions, parameters: Mapping[str, Any]) -> None:
    """Write what differs from the defaults, and the best parameters, as `trainer fit --config` reads them."""
    import tomli_w

    plain, defaults = _plain(wanted), _plain(FitOptions())
    chosen = {key: value for key, value in plain.items() if value != defaults[key]} | dict(parameters)
    if chosen.get("labels"):
        # A path is read against the file that names it.
        chosen["labels"] = str(Path(chosen["labels"]).resolve())
    if "units_of_sensors" in chosen:
        chosen["units_of_sensors"] = dict(chosen["units_of_sensors"])
    written = {key: list(value) if isinstance(value, tuple) else value for key, value in chosen.items()}
    draft = out.with_name(f".{out.name}")
    draft.write_text(tomli_w.dumps({"fit": written}), encoding="utf-8")
    draft.replace(out)


def _show(
    records: Sequence["TrialRecord"], best: "TrialRecord", faults: int, out: Path, console: Console
) -> None:
    judged = sorted((one for one in records if one.cost is not None), key=lambda one: (one.cost, one.number))
    names = list(best.parameters)
    header = ("trial", "cost", "found", "false alarms", "RMSE / persistence", *names)
    rows = [
        (
            str(one.number), f"{one.cost:.4f}", f"{one.facts['recall']:.0%}", str(one.facts["false_alarms"]),
            f"{one.facts['rmse_over_persistence']:.3f}", *(_value(one.parameters[name]) for name in names),
        )
        for one in judged[:_SHOWN]
    ]  # fmt: skip
    console.grid(header, rows)
    states = ("complete", "pruned", "failed", "running")
    counts = {state: sum(one.state == state for one in records) for state in states}
    console.say(", ".join(f"{count} {state}" for state, count in counts.items() if count))
    console.say(
        "cost: 1 - (found - false alarms beyond the budget) / faults + 0.1 × RMSE / persistence, over "
        f"{faults} injected faults and {best.facts['labelled_events']} labelled events"
    )
    console.say(f"{out}: trial {best.number}; trainer fit --config {out}")


def _value(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)
