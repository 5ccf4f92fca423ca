"""What the metrics of sequences judge: the rows that have a score, faults and alarms as ranges of them.

Published implementations of these metrics bring PyTorch, TensorFlow or an old numpy, or are under the GPL; ours need
numpy alone.
"""

from dataclasses import dataclass

import numpy as np

from edge_agent.contract.types import Bool, Float64, Int64


@dataclass(frozen=True, slots=True)
class ScoredRows:
    """Rows with a score, of all assets, one asset after the other; rows without a score are closed up.

    A range is (first, one past last). A range that rows without a score interrupt stays one range, one that has no
    scored row is gone, and none reaches from one asset into the next.

    Attributes:
        score: (n,) never NaN.
        alarm, faulty: (n,)
        alarms, faults: (k, 2) ranges of true rows, ascending.
        bounds: (a + 1,) first row of each asset, and the number of rows.
    """

    score: Float64
    alarm: Bool
    faulty: Bool
    alarms: Int64
    faults: Int64
    bounds: Int64

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.score)


def scored_rows(score: Float64, alarm: Bool, faulty: Bool, breaks: Int64) -> ScoredRows:
    """Keep the rows that have a score.

    Args:
        score: (n,) NaN where a row was not scored.
        alarm: (n,) whether the asset was in alarm.
        faulty: (n,) whether the asset was faulty.
        breaks: rows at which another asset begins, from `asset_breaks`.
    """
    scored = ~np.isnan(score)
    before = np.concatenate([[0], np.cumsum(scored)])  # scored rows before each row
    ranges = [before[ranges_of(flag, breaks)] for flag in (alarm, faulty)]
    alarms, faults = (found[found[:, 0] < found[:, 1]] for found in ranges)
    bounds = before[np.concatenate([[0], breaks, [len(score)]])]
    return ScoredRows(score[scored], alarm[scored], faulty[scored], alarms, faults, bounds)


def asset_breaks(asset: Int64 | None, count: int) -> Int64:
    """Return the (b,) rows at which another asset begins; none if there is but one."""
    if asset is None or count == 0:
        return np.empty(0, np.int64)
    return (np.flatnonzero(np.diff(asset)) + 1).astype(np.int64)


def ranges_of(flag: Bool, breaks: Int64) -> Int64:
    """Return (k, 2): first and one past last of each run of true rows; a run ends where another asset begins."""
    if not len(flag):
        return np.empty((0, 2), np.int64)
    begins, ends = flag.copy(), flag.copy()
    begins[1:] &= ~flag[:-1]
    ends[:-1] &= ~flag[1:]
    begins[breaks] = flag[breaks]
    ends[breaks - 1] = flag[breaks - 1]
    return np.stack([np.flatnonzero(begins), np.flatnonzero(ends) + 1], axis=1).astype(np.int64)


def overlaps(ranges: Int64, others: Int64) -> Int64:
    """Return (k,): how many of the others each range shares a row with; both ascending and without overlap."""
    begun = np.searchsorted(others[:, 0], ranges[:, 1], side="left")
    ended = np.searchsorted(others[:, 1], ranges[:, 0], side="right")
    return (begun - ended).astype(np.int64)


def f_score(precision: float | None, recall: float | None, beta: float = 1.0) -> float | None:
    """Return (1 + β²)·P·R / (β²·P + R); no alarm, so no precision, is 0, and no fault, so no recall, `None`."""
    if recall is None:
        return None
    weighted = beta**2 * (precision or 0.0) + recall
    return (1 + beta**2) * (precision or 0.0) * recall / weighted if weighted > 0 else 0.0
