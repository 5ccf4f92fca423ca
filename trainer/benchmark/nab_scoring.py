"""The scores of the Numenta Anomaly Benchmark, over a whole corpus, at one threshold for all files.

Row weights follow `nab/sweeper.py` of numenta/NAB, with which the published figures were made: inside a window a
sigmoid from .987 at its left edge to 0 at its right edge, divided by .987; outside, the same sigmoid, which falls from
0 at the window before to -1 three window widths later, and -1 before the first window.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from edge_agent.contract.types import Bool, Float64, Int64

QUIET_ROWS = 100
"""A detection is the first row over the threshold after so many rows under it: an alarm event, not its every row."""
THRESHOLDS = 200


@dataclass(frozen=True)
class Profile:
    """What a stray detection and a missed window cost; a perfect detection earns 1."""

    stray: float
    missed: float


PROFILES = {"standard": Profile(0.11, 1.0), "low_fp": Profile(0.22, 1.0), "low_fn": Profile(0.11, 2.0)}


@dataclass(frozen=True)
class Weights:
    """What a detection at each of n rows is worth.

    Attributes:
        value: (n,) up to 1 inside a window, down to -1 outside.
        window: (n,) number of the window that the row is in, -1 outside.
        windows: how many there are.
    """

    value: Float64
    window: Int64
    windows: int


def sigmoid_weight(position: Float64) -> Float64:
    """Return the weight at positions relative to a window: -1 is its left edge (.987), 0 its right edge (0)."""
    return np.asarray(
        np.where(position >= 3.0, -1.0, 2.0 / (1.0 + np.exp(5.0 * np.minimum(position, 3.0))) - 1.0)
    )


def row_weights(rows: int, windows: Sequence[tuple[int, int]]) -> Weights:
    """Return the weights of the rows of one file.

    Args:
        rows: of the file.
        windows: (first, last) row of each, both inside, ascending.
    """
    value, window = np.full(rows, -1.0), np.full(rows, -1, np.int64)
    best = float(sigmoid_weight(np.array([-1.0]))[0])
    for number, (first, last) in enumerate(windows):
        width = last - first + 1
        at = np.arange(first, last + 1)
        value[at] = sigmoid_weight(-(last - at + 1) / width) / best
        window[at] = number
        after = np.arange(last + 1, rows)
        value[after] = sigmoid_weight((after - last) / max(width - 1, 1))
    return Weights(value, window, len(windows))


def join_weights(parts: Sequence[Weights]) -> Weights:
    """Return the weights of all files, one after the other."""
    offsets = np.cumsum([0, *(part.windows for part in parts)])
    numbers = [
        np.where(part.window >= 0, part.window + offset, -1)
        for part, offset in zip(parts, offsets, strict=False)
    ]
    return Weights(np.concatenate([part.value for part in parts]), np.concatenate(numbers), int(offsets[-1]))


def corpus_score(weights: Weights, detections: Int64, profile: Profile) -> float | None:
    """Return the score of detections (rows, each at most once): none is 0, perfect is 100.

    None where there is no window at all.
    """
    if not weights.windows:
        return None
    raw = raw_score(weights, detections, profile)
    null = -profile.missed * weights.windows
    return 100.0 * (raw - null) / (weights.windows - null)


def raw_score(weights: Weights, detections: Int64, profile: Profile) -> float:
    """Return what the detections earn and what they and the missed windows cost."""
    window, value = weights.window[detections], weights.value[detections]
    inside = window >= 0
    best = np.full(weights.windows, -profile.missed)
    np.maximum.at(best, window[inside], value[inside])
    return float(best.sum() + profile.stray * value[~inside].sum())


def onsets(over: Bool, place: Int64, quiet: int = QUIET_ROWS) -> Int64:
    """Return the rows over a threshold that have none over it in the `quiet` places before them.

    Args:
        over: (n,) whether a row is over the threshold.
        place: (n,) ascending; rows of different files are farther apart than `quiet`.
        quiet: 0 takes every row.
    """
    rows = np.flatnonzero(over)
    return np.asarray(rows[np.diff(place[rows], prepend=-quiet - 1) > quiet])


def places_of(lengths: Iterable[int]) -> Int64:
    """Return where the rows of files stand on one axis, each file well after the one before."""
    parts, start = [], 0
    for length in lengths:
        parts.append(np.arange(start, start + length))
        start += length + QUIET_ROWS + 1
    return np.concatenate(parts)


def best_scores(ranks: Float64, weights: Weights, place: Int64, quiet: int) -> dict[str, float | None]:
    """Return the score of each profile at the one threshold that scores best, which is chosen on the labels.

    Args:
        ranks: (n,) of all files, -inf where not judged.
        weights: of all files.
        place: see `onsets`.
        quiet: see `onsets`.
    """
    finite = np.sort(ranks[ranks > -np.inf])[::-1]
    steps = np.geomspace(1, max(len(finite), 1), THRESHOLDS).astype(np.int64) - 1
    detected = [np.empty(0, np.int64)]
    detected += [onsets(ranks >= level, place, quiet) for level in np.unique(finite[steps[: len(finite)]])]
    return {name: _best(weights, detected, profile) for name, profile in PROFILES.items()}


def _best(weights: Weights, detected: Sequence[Int64], profile: Profile) -> float | None:
    scores = [corpus_score(weights, rows, profile) for rows in detected]
    return max((score for score in scores if score is not None), default=None)
