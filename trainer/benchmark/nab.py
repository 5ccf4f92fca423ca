"""The Numenta Anomaly Benchmark: 58 univariate files, online, with a probation at the beginning of each."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from edge_agent.contract.errors import HistoryError
from edge_agent.contract.grid_history import tick_of
from edge_agent.contract.tail import WEEK_SECONDS
from edge_agent.contract.types import Float64, Int64
from edge_agent.history import HistoryFormat, read_history
from trainer.benchmark.cases import (
    Case,
    Figures,
    Plan,
    Published,
    Suite,
    Verdict,
    Window,
    known,
    need_folder,
    ratio,
)
from trainer.benchmark.nab_scoring import (
    PROFILES,
    QUIET_ROWS,
    Weights,
    best_scores,
    corpus_score,
    join_weights,
    places_of,
    row_weights,
)

PROBATION_SHARE = 0.15
PROBATION_ROWS = 750
STRAY_COST = 0.11
WINDOWS = "labels/combined_windows.json"


@dataclass(frozen=True)
class NabTally:
    """What the corpus needs of one file.

    Attributes:
        ranks: (n,) scores after the probation, -inf where not judged.
        starts: rows at which an alarm began.
        weights: of the rows.
        weeks: that the rows span.
    """

    ranks: Float64
    starts: Int64
    weights: Weights
    weeks: float


class Nab(Suite):
    """The corpus at one threshold: the best, chosen on the labels, and the contender's own, chosen without them.

    Detections are the beginnings of alarms (`nab_scoring.onsets`), for all contenders alike; `standard_every_row`
    counts every row over the threshold.
    """

    name = "nab"
    keys = ("standard", "low_fp", "low_fn", "standard_at_budget", "alarms_per_week", "standard_every_row")
    published = (
        Published("ARTime", {"standard": 74.9, "low_fp": 65.1, "low_fn": 80.4}),
        Published("HTM", {"standard": 70.1, "low_fp": 63.1, "low_fn": 74.3}),
        Published("windowed Gaussian", {"standard": 39.6}),
        Published("random", {"standard": 11.0}),
    )
    remarks = (
        "standard, low_fp and low_fn choose one threshold on the labels, as the published figures do; "
        "standard_at_budget does not.",
        f"A detection is the first row over the threshold after {QUIET_ROWS} rows under it; published detectors count "
        "every row.",
    )

    def plans(self, data: Path | None, quick: bool) -> list[Plan]:
        """Return one case for each file that has a line in the list of windows."""
        folder = need_folder((data or Path()) / "nab", self.name)
        windows = _windows(folder / WINDOWS)
        names = sorted(windows)
        chosen = names[:: max(1, len(names) // 5)] if quick else names
        return [
            Plan(name.removesuffix(".csv"), partial(_make, folder, name, windows[name])) for name in chosen
        ]

    def tally(self, case: Case, verdict: Verdict) -> NabTally:
        """Return scores, alarms and weights of one file."""
        windows = [(one.first, one.last) for one in case.windows]
        rows = len(case.labels)
        weeks = rows * case.interval / WEEK_SECONDS
        return NabTally(verdict.ranks, np.unique(verdict.starts), row_weights(rows, windows), weeks)

    def figures(self, tallies: Sequence[NabTally]) -> Figures:
        """Score the corpus."""
        ranks = np.concatenate([one.ranks for one in tallies])
        weights = join_weights([one.weights for one in tallies])
        lengths = [len(one.ranks) for one in tallies]
        place = places_of(lengths)
        offsets = np.cumsum([0, *lengths])
        starts = np.concatenate([one.starts + at for one, at in zip(tallies, offsets, strict=False)])
        every = best_scores(ranks, weights, place, quiet=0)
        return {
            **best_scores(ranks, weights, place, QUIET_ROWS),
            "standard_at_budget": corpus_score(weights, starts, PROFILES["standard"]),
            "alarms_per_week": ratio(len(starts), sum(one.weeks for one in tallies)),
            "standard_every_row": every["standard"],
        }

    def case_figures(self, tally: NabTally) -> Figures:
        """Return figures of one file at the contender's own threshold; the best one is defined over the corpus."""
        hit = tally.weights.window[tally.starts]
        return {
            "standard_at_budget": corpus_score(tally.weights, tally.starts, PROFILES["standard"]),
            "windows": float(tally.weights.windows),
            "windows_found": float(len(np.unique(hit[hit >= 0]))),
            "stray_alarms": float((hit < 0).sum()),
            "alarms_per_week": ratio(len(tally.starts), tally.weeks),
        }

    def badness(self, figures: Mapping[str, Any]) -> float:
        """Return windows missed, and stray alarms at what one costs beside a window."""
        missed = known(figures["windows"]) - known(figures["windows_found"])
        return missed + STRAY_COST * known(figures["stray_alarms"])


def _windows(path: Path) -> dict[str, list[tuple[str, str]]]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return {name: [(str(first), str(last)) for first, last in pairs] for name, pairs in record.items()}
    except (OSError, ValueError, TypeError, AttributeError) as reason:
        raise HistoryError(f"{path}: not the list of windows ({reason})") from reason


def _make(folder: Path, name: str, windows: Sequence[tuple[str, str]], seed: int) -> Case:
    """Read one file: the rows of the probation to learn from, the rest to judge."""
    path = folder / "data" / name
    history = read_history([path], HistoryFormat(time_column="timestamp"))
    rows = len(history.time)
    first = min(int(PROBATION_SHARE * rows), PROBATION_ROWS)
    interval = float(np.median(np.diff(history.time)))
    phase = float(np.mod(history.time[0], interval))
    ticks = _own_ticks(tick_of(history.time, interval, phase))
    labels = np.zeros(rows, np.int8)
    placed = []
    for begin, end in windows:
        left, right = (_row_at(path, history.time, stamp) for stamp in (begin, end))
        labels[left : right + 1] = 1
        placed.append(Window(left - first, right - first))
    return Case(
        name.removesuffix(".csv"),
        history.sensors,
        interval,
        phase,
        ticks[:first],
        history.values[:first],
        ticks[first:],
        history.values[first:],
        labels[first:],
        np.ones(rows - first, np.bool_),
        tuple(placed),
    )


def _own_ticks(ticks: Int64) -> Int64:
    """Return strictly ascending ticks: every row is scored, so one that repeats a time takes the next tick."""
    rows = np.arange(len(ticks))
    return np.asarray(np.maximum.accumulate(ticks - rows) + rows)


def _row_at(path: Path, time: Float64, stamp: str) -> int:
    """Return the first row at the time of a window's edge."""
    at = (np.datetime64(stamp) - np.datetime64(0, "us")).astype(np.int64) / 1e6
    rows = np.flatnonzero(np.abs(time - at) < 1e-3)
    if not len(rows):
        raise HistoryError(f"{path}: has no row at {stamp}, where a window begins or ends")
    return int(rows[0])
