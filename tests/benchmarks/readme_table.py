"""The README's table of detection figures: `python -m tests.benchmarks.readme_table [--check]`.

Runs are kept under `docs/benchmarks` by `trainer benchmark … --out` (`make benchmarks DATA=DIR` makes them all). What
stands between the markers in the README is this program's output and nothing else; a test holds them together.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trainer.benchmark.ablation import with_spread
from trainer.benchmark.forecasters import COLUMNS
from trainer.benchmark.report import cell

ROOT = Path(__file__).parent.parent.parent
README = ROOT / "README.md"
RUNS = ROOT / "docs" / "benchmarks"
BEGIN = "<!-- made by python -m tests.benchmarks.readme_table from docs/benchmarks; do not edit -->"
END = "<!-- end of what is made -->"
LARGEST_BYTES = 100_000
FLOORS = ("all-positive", "clock", "persistence", "PCA T²+Q", "ridge VAR", "isolation forest")

Record = dict[str, Any]


@dataclass(frozen=True)
class Wanted:
    """A figure with the limits that it must keep.

    Attributes:
        run: name of the stored run.
        key: of the figure in its record.
        title: for people.
        least, most: limits, None where there is none.
    """

    run: str
    key: str
    title: str
    least: float | None = None
    most: float | None = None

    @property
    def limits(self) -> str:
        """Return the limits as the table shows them."""
        if self.least is not None and self.most is not None:
            return f"{self.least:g} to {self.most:g}"
        return (
            ""
            if self.least is self.most
            else f"≥ {self.least:g}"
            if self.most is None
            else f"≤ {self.most:g}"
        )

    def kept(self, value: float | None) -> bool:
        """Return whether a figure keeps the limits."""
        return (
            value is not None
            and (self.least is None or value >= self.least)
            and (self.most is None or value <= self.most)
        )


_SKAB = (
    Wanted("skab", "f1", "SKAB: pooled F1", least=0.80),
    Wanted("skab", "far", "SKAB: false alarm rate", most=0.25),
    Wanted("skab", "mar", "SKAB: miss rate", most=0.20),
    Wanted("skab", "roc_auc", "SKAB: mean ROC-AUC of a file", least=0.87),
    Wanted("skab", "far_before_event", "SKAB: false alarm rate before the event", most=0.08),
    Wanted("skab", "changepoint_nab", "SKAB: changepoints, NAB standard", least=33.0),
)
WANTED = (
    *_SKAB,
    *(replace(one, run="skab-lstm", title=one.title.replace("SKAB", "SKAB, LSTM")) for one in _SKAB),
    Wanted("smap", "sequence_f1", "SMAP and MSL: sequence F1", least=0.74),
    Wanted("smap", "normal_in_alarm_ratio", "SMAP and MSL: normal rows in alarm", most=0.05),
    Wanted("smap", "false_alarms_per_week", "SMAP and MSL: false alarms per week"),
    Wanted("nab", "standard", "NAB: standard, threshold chosen on the labels", least=62.0),
    Wanted("nab", "standard_at_budget", "NAB: standard, one alarm a week, no label", least=58.0),
    Wanted("plant", "budget_ratio", "Plant: alarms over budget", least=0.3, most=2.0),
    Wanted("plant", "drifting_budget_ratio", "Drifting plant: alarms over budget", least=0.3, most=2.0),
    Wanted("plant", "time_in_alarm_ratio", "Plant: normal time in alarm", most=0.02),
    Wanted("plant", "drifting_time_in_alarm_ratio", "Drifting plant: normal time in alarm", most=0.02),
    Wanted("plant", "event_recall", "Plant: faults found", least=0.95),
    Wanted("plant", "drifting_event_recall", "Drifting plant: faults found", least=0.95),
    Wanted("plant", "top1_sensor", "Plant: first sensor named is to blame", least=0.70),
    Wanted("skab-contaminated", "loss_f1", "SKAB, 3 % contaminated history: loss of F1", most=0.04),
    Wanted("skab-missing", "loss_roc_auc", "SKAB, 10 % of cells missing: loss of ROC-AUC", most=0.02),
    Wanted("line-dead", "far", "Line, 3 of 50 sensors dead: false alarm rate", most=0.02),
)
"""Lines of the table; a figure's limits are what was asked for before it was measured."""


def stored_runs(folder: Path = RUNS) -> dict[str, Record]:
    """Return the stored runs by name."""
    return {path.stem: json.loads(path.read_text("utf-8")) for path in sorted(folder.glob("*.json"))}


def markdown(runs: dict[str, Record]) -> str:
    """Return what belongs between the markers."""
    parts = ["\n".join(_figures(runs)), "\n".join(_sources(runs))]
    parts += ["\n".join(_ablation(record)) for record in runs.values() if "ablations" in record]
    parts += ["\n".join(_forecasters(record)) for record in runs.values() if "forecasters" in record]
    return "\n\n".join(parts)


def _figures(runs: dict[str, Record]) -> Iterator[str]:
    yield "| Figure | Must | Forewarn | | " + " | ".join(FLOORS) + " | Published |"
    yield "|---|--:|--:|---|" + "--:|" * len(FLOORS) + "---|"
    for one in WANTED:
        if one.run not in runs:
            continue
        record = runs[one.run]
        spread = record["spread"].get(one.key)
        ours = cell(record[one.key]) + ("" if not spread else f" ±{cell(spread)}")
        verdict = _verdict(record, one)
        floors = [cell(record["floors"][name].get(one.key)) for name in FLOORS]
        yield " | ".join(
            [f"| {one.title}", one.limits, ours, verdict, *floors, f"{_published(record, one)} |"]
        )


def _verdict(record: Record, wanted: Wanted) -> str:
    """Return whether the limits were kept; a few small cases say nothing about that."""
    if not wanted.limits or record["quick"]:
        return "quick" if record["quick"] else ""
    return "kept" if wanted.kept(record[wanted.key]) else "**missed**"


def _published(record: Record, wanted: Wanted) -> str:
    """Return the two best published results for a figure."""
    found = [
        (values[wanted.key], name) for name, values in record["published"].items() if wanted.key in values
    ]
    better = sorted(found, reverse=wanted.least is not None)[:2]
    return ", ".join(f"{name} {cell(value)}" for value, name in better)


def _sources(runs: dict[str, Record]) -> Iterator[str]:
    """Yield a line on each run: what a figure was made with."""
    for name, record in runs.items():
        few = "**a few small cases only (`--quick`)**, " if record["quick"] else ""
        forecaster = (
            "ridge alone" if record["forecaster"] == "ridge" else f"LSTM, {record['epochs']} epochs at most"
        )
        seeds = f"{record['seeds']} seed{'s' if record['seeds'] > 1 else ''}"
        yield f"- `{name}`: {few}{forecaster}, {seeds}, version {record['version']}, {record['seconds'] / 60.0:.0f} min"


def _ablation(record: Record) -> Iterator[str]:
    """Yield the table of one ablation: differences to the full configuration."""
    keys = [wanted.key for wanted in WANTED if wanted.run == record["benchmark"]]
    yield f"| `{record['benchmark']}`: what is left out | " + " | ".join(keys) + " |"
    yield "|---|" + "--:|" * len(keys)
    yield "| nothing | " + " | ".join(cell(record[key]) for key in keys) + " |"
    for name, found in record["ablations"].items():
        yield f"| {name} | " + " | ".join(_difference(found, key) for key in keys) + " |"


def _forecasters(record: Record) -> Iterator[str]:
    """Yield the table of the same detector on each forecaster, with the spread over the seeds."""
    weeks = f"{record['history_weeks']:g} weeks of history, {record['test_weeks']:g} of test"
    yield f"| `{record['benchmark']}`, {weeks}: forecaster | " + " | ".join(COLUMNS.values()) + " |"
    yield "|---|" + "--:|" * len(COLUMNS)
    for name, found in record["forecasters"].items():
        cells = (with_spread(found[key], found["spread"][key]) for key in COLUMNS)
        yield f"| {name} | " + " | ".join(cells) + " |"


def _difference(found: Record, key: str) -> str:
    value, spread = found[key], found["spread"][key]
    if value is None:
        return "-"
    return f"{'+' if value >= 0 else ''}{cell(value)}" + ("" if not spread else f" ±{cell(spread)}")


def with_table(text: str, made: str, begin: str = BEGIN, end: str = END) -> str:
    """Return a text with what stands between its markers, the README's or others, replaced.

    Raises:
        ValueError: the markers are not there.
    """
    before, opened, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not opened or not closed:
        raise ValueError(f"must hold {begin} and {end}")
    return f"{before}{begin}\n{made}\n{end}{after}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the table into the README, or with `--check` only say whether it stands there."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.readme_table", description="Stored runs into the README."
    )
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit code 1 if it is another one"
    )
    options = parser.parse_args(arguments)
    runs = stored_runs()
    readme = README.read_text("utf-8")
    wanted = with_table(readme, markdown(runs))
    minutes = sum(record["seconds"] for record in runs.values()) / 60.0
    print(f"{len(runs)} runs, {minutes:.0f} minutes together")
    if options.check:
        return int(wanted != readme)
    README.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
