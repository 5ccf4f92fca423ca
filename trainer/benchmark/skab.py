"""SKAB: a real pump and valve loop with induced faults, each of 34 files fitted on its own first 400 rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from edge_agent.contract.errors import HistoryError
from edge_agent.contract.grid_history import tick_of
from edge_agent.contract.types import Int64
from edge_agent.history import History, HistoryFormat, read_history
from trainer.benchmark.cases import (
    Case,
    Figures,
    Plan,
    Published,
    Suite,
    Verdict,
    known,
    need_folder,
    ratio,
    runs_of,
)
from trainer.benchmark.changepoints import PROFILES, changepoint_score, normalised, windows_after
from trainer.benchmark.ranking import average_precision, mean_of_known, roc_auc

TRAINING_ROWS = 400
FOLDERS = ("valve1", "valve2", "other")
INTERVAL = 1.0


@dataclass(frozen=True)
class SkabTally:
    """Counts of one file.

    Attributes:
        hits, false, missed, quiet: rows by alarm and label.
        early_alarms, early_rows: of the rows before the first labelled one, those in alarm and all.
        roc_auc, average_precision: of the file, None where not defined.
        changepoints: how many.
        changepoint_scores: raw, by profile.
    """

    hits: int
    false: int
    missed: int
    quiet: int
    early_alarms: int
    early_rows: int
    roc_auc: float | None
    average_precision: float | None
    changepoints: int
    changepoint_scores: dict[str, float]


class Skab(Suite):
    """The protocol of the leaderboard: counts pooled over all files, point by point, no point adjustment.

    For the changepoints both edges of an alarm are detections, as they are in the published figures.
    """

    name = "skab"
    keys = ("f1", "far", "mar", "roc_auc", "average_precision", "far_before_event", *PROFILES)
    published = (
        Published("Conv-AE (looks ahead 58 s)", {"f1": 0.78, "far": 0.136, "mar": 0.280}),
        Published("MSET", {"f1": 0.78, "far": 0.397, "mar": 0.141}),
        Published("T²+Q", {"f1": 0.76, "far": 0.266, "mar": 0.249, "changepoint_nab": 25.4}),
        Published("LSTM-AE", {"f1": 0.74, "far": 0.300, "mar": 0.259}),
        Published("Vanilla LSTM", {"f1": 0.54, "far": 0.125, "mar": 0.595, "changepoint_nab": 11.3}),
        Published("MSCRED", {"changepoint_nab": 32.4}),
        Published("Isolation forest", {"changepoint_nab": 26.2}),
    )
    remarks = (
        "Labels stand at nearly the same place in every file: read F1 beside the floor `clock` and beside roc_auc.",
        "Published thresholds are a quantile of training residuals times a factor picked by hand.",
    )

    def plans(self, data: Path | None, quick: bool) -> list[Plan]:
        """Return one case for each file."""
        folder = need_folder((data or Path()) / "skab", self.name)
        files = [path for name in FOLDERS for path in sorted((folder / name).glob("*.csv"), key=_number)]
        if not files:
            raise HistoryError(f"{folder}: holds none of the folders {', '.join(FOLDERS)}")
        chosen = files[:: max(1, len(files) // 3)] if quick else files
        return [Plan(f"{path.parent.name}/{path.stem}", partial(_make, path)) for path in chosen]

    def tally(self, case: Case, verdict: Verdict) -> SkabTally:
        """Count rows and score changepoints of one file."""
        faulty, alarm = case.labels > 0, verdict.alarm
        early = ~np.logical_or.accumulate(faulty)
        windows = windows_after([tick * case.interval for tick in case.changepoints])
        times = (case.test_ticks[_edges(verdict)] * case.interval).astype(np.float64)
        return SkabTally(
            int((alarm & faulty).sum()),
            int((alarm & ~faulty).sum()),
            int((~alarm & faulty).sum()),
            int((~alarm & ~faulty).sum()),
            int((alarm & early).sum()),
            int(early.sum()),
            roc_auc(verdict.ranks, faulty),
            average_precision(verdict.ranks, faulty),
            len(windows),
            {name: changepoint_score(windows, times, profile) for name, profile in PROFILES.items()},
        )

    def figures(self, tallies: Sequence[SkabTally]) -> Figures:
        """Pool the counts over the files; rankings are means over the files."""
        hits, false, missed, quiet, early, rows, points = (
            sum(getattr(one, name) for one in tallies)
            for name in ("hits", "false", "missed", "quiet", "early_alarms", "early_rows", "changepoints")
        )
        figures: Figures = {
            "f1": ratio(hits, hits + (false + missed) / 2.0),
            "far": ratio(false, false + quiet),
            "mar": ratio(missed, missed + hits),
            "roc_auc": mean_of_known([one.roc_auc for one in tallies]),
            "average_precision": mean_of_known([one.average_precision for one in tallies]),
            "far_before_event": ratio(early, rows),
        }
        for name, profile in PROFILES.items():
            figures[name] = normalised(sum(one.changepoint_scores[name] for one in tallies), points, profile)
        return figures

    def badness(self, figures: Mapping[str, Any]) -> float:
        """Return the sum of false alarm and miss rate."""
        return known(figures["far"]) + known(figures["mar"])


def _number(path: Path) -> tuple[int, str]:
    return (int(path.stem), "") if path.stem.isdecimal() else (0, path.stem)


def _edges(verdict: Verdict) -> Int64:
    """Return the rows at which an alarm begins or ends, or the machine is said to change."""
    edges = [row for first, end in runs_of(verdict.alarm) for row in (first, end)]
    inside = [row for row in edges if row < len(verdict.alarm)]
    return np.unique(np.r_[np.array(inside, np.int64), verdict.changes])


def _make(path: Path, seed: int) -> Case:
    """Read one file: 400 rows of the source to learn from, whatever time they span, and the rest to judge."""
    history = _read(path, "anomaly", "changepoint")
    changes = _read(path, "changepoint", "anomaly").labels
    ticks = tick_of(history.time, INTERVAL, 0.0)
    if (
        history.labels is None
        or changes is None
        or len(ticks) <= TRAINING_ROWS
        or (np.diff(ticks) <= 0).any()
    ):
        raise HistoryError(
            f"{path}: must have the columns anomaly and changepoint and more than {TRAINING_ROWS} ascending seconds"
        )
    test = slice(TRAINING_ROWS, None)
    return Case(
        f"{path.parent.name}/{path.stem}",
        history.sensors,
        INTERVAL,
        0.0,
        ticks[:TRAINING_ROWS],
        history.values[:TRAINING_ROWS],
        ticks[test],
        history.values[test],
        (history.labels[test] > 0).astype(np.int8),
        np.ones(len(ticks) - TRAINING_ROWS, np.bool_),
        changepoints=tuple(ticks[test][changes[test] > 0].tolist()),
    )


def _read(path: Path, label: str, ignored: str) -> History:
    return read_history([path], HistoryFormat(label_column=label, ignore_columns=(ignored,)))
