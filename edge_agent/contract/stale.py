"""Stale sensor: the asset's other sensors arrive and this one does not; silent asset: nothing arrives.

`absent` counts the asset's samples in a row that lack the sensor; it is stale when `absent > limit` with
`limit = max(stale_ticks, stale_seconds / interval, 2 * longest_absence)`. Ten ticks: even where every tenth reading is
lost, ten in a row are lost once in 1e10. Sixty seconds: what a gateway takes to start again and to be let back in by
its broker, in which a fast sensor would miss hundreds of ticks. `longest_absence` comes from the training history and
lets a sensor be that reports more slowly than the grid; twice, by the reason of the frozen sensor's limit.

An asset is silent when its next sample is more than `max(stale_ticks, stale_seconds / interval)` ticks after its last,
or when that much time went by on the agent's clock without a reading. Holes in a history say nothing of how long an
asset may be silent, so they do not count here.
"""

from collections.abc import Sequence

import numpy as np

from edge_agent.contract.types import Bool, Float32, Int32

STALE_TICKS = 10
STALE_SECONDS = 60.0
FACTOR = 2
_MOST = 2**30


def silence_limit(interval: float, ticks: int = STALE_TICKS, seconds: float = STALE_SECONDS) -> int:
    """Return after how many ticks without any reading an asset is silent; `interval` is in seconds."""
    return int(min(max(ticks, np.ceil(seconds / interval)), _MOST))


def stale_limits(longest_absence: Sequence[int], silence: int) -> Int32:
    """Return (F,) how many samples in a row may lack a sensor."""
    return np.minimum(np.maximum(FACTOR * np.asarray(longest_absence, np.int64), silence), _MOST).astype(
        np.int32
    )


def follow_absence(absent: Int32, present: Bool) -> Int32:
    """Return how many samples in a row lack each sensor, (B, F), after one more."""
    return np.asarray(np.where(present, 0, absent + 1), np.int32)


def longest_absence(columns: Sequence[Float32]) -> int:
    """Return the most samples in a row that lack the sensor in a history.

    Args:
        columns: (n,) values of the sensor in each asset's samples in order; NaN where missing.
    """
    longest = 0
    for column in columns:
        places = np.flatnonzero(np.r_[True, np.isfinite(column), True])
        longest = max(longest, int(np.diff(places).max()) - 1)
    return longest
