"""Volumes under the surface, VUS-PR and VUS-ROC.

Paparrizos et al., "Volume Under the Surface", VLDB 2022; Boniol et al., "VUS: Effective and Efficient Accuracy Measures
for Time-Series Anomaly Detection", arXiv 2502.13318, whose faster form is this one, as in the benchmark TSB-AD.
"""

from typing import NamedTuple

import numpy as np

from edge_agent.contract.types import Bool, Float64, Int64
from trainer.scored_rows import ScoredRows

LONGEST_BUFFER = 100


def volume_figures(rows: ScoredRows, longest: int | None = None) -> dict[str, float | None]:
    """Average the area under the curve of a detector over buffers ℓ = 0, 1, … L around each fault.

    A buffer gives credit near a fault: a row at distance d ≤ ℓ/2 from it has the label √(1 - d/ℓ), overlapping buffers
    add up to 1 at most, faulty rows have 1. At each threshold, with N rows at or above it, of n in all,

        TP = sum of the labels of the N rows        positives = faulty rows + half of what buffers add to TP
        TPR = min(1, TP / positives) · share of the faults with buffers (joined where they overlap) that were met
        FPR = (N - TP) / (n - positives)            precision = TP / N

    The area under the ROC curve takes trapezia from (0, 0) to (1, 1), that under the PR curve sums the steps of TPR
    times precision, as average precision does. Every distinct score is a threshold (TSB-AD takes 250 of them). With one
    fault and L = 0 the two are ROC-AUC and average precision. Chance is the mean label for VUS-PR, and for
    VUS-ROC 1/2 without buffers and more with them (0.59 for random scores and L as long as the faults).

    Args:
        rows: of all assets, under common thresholds, for scores are calibrated; no buffer reaches into another asset.
        longest: L in rows; `None` is the median length of the faults, 100 at most.

    Returns:
        `vus_pr` (`None` without a fault) and `vus_roc` (`None` also without a nominal row).
    """
    if not len(rows.faults):
        return {"vus_pr": None, "vus_roc": None}
    lengths = rows.faults[:, 1] - rows.faults[:, 0]
    longest = min(int(np.median(lengths)), LONGEST_BUFFER) if longest is None else longest
    near = _near_rows(rows, longest)
    areas = np.mean([_areas(rows, near, length) for length in range(longest + 1)], axis=0)
    vus_pr, vus_roc = np.clip(areas, 0.0, 1.0).tolist()
    return {"vus_pr": vus_pr, "vus_roc": None if rows.faulty.all() else vus_roc}


class _Near(NamedTuple):
    """The m rows whose label can be above 0, and the thresholds at which they matter: no other changes an area.

    Attributes:
        before: (n + 1,) near rows before each row.
        faulty: (m,)
        level: (m,) index of the highest threshold that the row reaches.
        reached: (t,) rows at or above each threshold, descending thresholds.
        buffer_row, buffer_distance: rows beside a fault by ascending distance, once for each fault they are beside.
    """

    before: Int64
    faulty: Bool
    level: Int64
    reached: Int64
    buffer_row: Int64
    buffer_distance: Int64


def _near_rows(rows: ScoredRows, longest: int) -> _Near:
    low, high = _asset_bounds(rows)
    first, last = rows.faults.T
    steps = np.arange(1, longest // 2 + 1)[:, None]
    beside = np.stack([first - steps, last - 1 + steps])
    within = (beside >= low) & (beside < high)
    distance = np.broadcast_to(steps, beside.shape)[within]
    order = np.argsort(distance, kind="stable")
    buffer_row, buffer_distance = beside[within][order], distance[order]

    near = rows.faulty.copy()
    near[buffer_row] = True
    before = np.concatenate([[0], np.cumsum(near)])
    ascending = np.sort(rows.score)
    reached = len(rows) - np.searchsorted(ascending, rows.score[near], side="left")
    above = len(rows) - np.searchsorted(ascending, rows.score[near], side="right")
    # A curve is bent only where near rows come in, so between the threshold above them and theirs.
    kept = np.unique(np.concatenate([reached, above]))
    kept = kept[kept > 0]
    level = np.searchsorted(kept, reached)
    return _Near(before, rows.faulty[near], level, kept, before[buffer_row], buffer_distance)


def _areas(rows: ScoredRows, near: _Near, length: int) -> tuple[float, float]:
    """Return the areas under the PR and the ROC curve for one length of the buffer."""
    cut = int(np.searchsorted(near.buffer_distance, length // 2, side="right"))
    slopes = np.sqrt(1 - near.buffer_distance[:cut] / max(length, 1))
    label = near.faulty + np.bincount(near.buffer_row[:cut], weights=slopes, minlength=len(near.faulty))
    count = len(near.reached)
    hits = np.cumsum(np.bincount(near.level, weights=np.minimum(label, 1.0), minlength=count))
    faulty_hits = np.cumsum(np.bincount(near.level, weights=near.faulty, minlength=count))
    positives = float(near.faulty.sum()) + (hits - faulty_hits) / 2
    recall = np.minimum(hits / positives, 1.0) * _met(rows, near, length)
    # Where every row is faulty nothing is false, and the quotient has no meaning: 1/2 only keeps it finite.
    false = (near.reached - hits) / np.maximum(len(rows) - positives, 0.5)
    area_pr = np.sum(np.diff(recall, prepend=0.0) * hits / near.reached)
    heights = np.concatenate([[0.0], recall, [1.0]])
    widths = np.diff(np.concatenate([[0.0], false, [1.0]]))
    return float(area_pr), float(np.sum(widths * (heights[1:] + heights[:-1]) / 2))


def _met(rows: ScoredRows, near: _Near, length: int) -> Float64:
    """Return (t,): the share of faults with their buffers that have a row at or above each threshold."""
    low, high = _asset_bounds(rows)
    starts = np.maximum(rows.faults[:, 0] - length // 2, low)
    ends = np.minimum(rows.faults[:, 1] + length // 2, high)
    apart = np.flatnonzero(starts[1:] >= ends[:-1])  # the others overlap and are joined
    bounds = near.before[np.stack([starts[np.insert(apart + 1, 0, 0)], ends[np.append(apart, -1)]], axis=1)]
    padded = np.append(near.level, len(near.reached))  # so that a range may end behind the last row
    best = np.minimum.reduceat(padded, bounds.ravel())[::2]
    return np.asarray(np.cumsum(np.bincount(best, minlength=len(near.reached))) / len(best), np.float64)


def _asset_bounds(rows: ScoredRows) -> tuple[Int64, Int64]:
    """Return (k,) and (k,): first and one past last row of the asset of each fault."""
    asset = np.searchsorted(rows.bounds, rows.faults[:, 0], side="right") - 1
    return rows.bounds[asset], rows.bounds[asset + 1]
