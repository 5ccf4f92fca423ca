"""Frozen sensor: the same reading to the last digit, again and again, for longer than normal operation ever showed.

`hold` counts the readings in a row that equal one another, the first included. Frozen is `hold > limit` with
`limit = max(20, 2 * longest_hold)`, `longest_hold` from the training history. Where repeats happen by chance, a run
twice as long is as rare as the square: what happened once in n readings happens once in n². Twenty protects short
histories: a sensor that repeats itself every fourth time does so twenty times in a row once in 1e11.

A sensor that holds by nature is not judged (`longest_hold = 0`): a constant one, one that repeats nine readings of ten
(binary, reported on change, quantised and slow), and one whose longest run is five times what chance explains. Nor is
a reading at or beyond an end of the range that was seen: a machine that stands holds its flow at 0.00 for as long as
it stands, and a weekend is longer than any run in the history. What is stuck there is left to the machine's score.
"""

import math
from collections.abc import Sequence

import numpy as np

from edge_agent.contract.types import Bool, Float32, Int32

LEAST_LIMIT = 20
FACTOR = 2
HOLDING_SHARE = 0.9
"""A sensor that repeats itself more often than this holds by nature."""
CHANCE_FACTOR = 5.0
"""A run this many times longer than repeats by chance explain was not chance."""
NEVER = np.iinfo(np.int32).max


def hold_limits(longest_hold: Sequence[int]) -> Int32:
    """Return (F,) how many equal readings in a row are still normal; `NEVER` where that is not known."""
    longest = np.asarray(longest_hold, np.int64)
    limit = np.maximum(FACTOR * longest, LEAST_LIMIT)
    return np.where(longest > 0, np.minimum(limit, NEVER), NEVER).astype(np.int32)


def follow_hold(hold: Int32, previous: Float32, value: Float32, present: Bool) -> Int32:
    """Return the length of each run of equal readings after one more sample, (B, F); a missing cell ends no run."""
    return np.asarray(np.where(present, np.where(value == previous, hold + 1, 1), hold), np.int32)


def longest_hold(columns: Sequence[Float32]) -> int:
    """Return the longest run of equal readings of one sensor in a history, 0 where it holds by nature.

    Args:
        columns: (n,) values of the sensor in each asset's order of time; NaN where missing.
    """
    readings = [column[np.isfinite(column)] for column in columns]
    readings = [one for one in readings if len(one)]
    if not readings:
        return 0
    low, high = min(one.min() for one in readings), max(one.max() for one in readings)
    longest, repeats, steps = 0, 0, 0
    for one in readings:
        starts = np.flatnonzero(np.r_[True, one[1:] != one[:-1]])
        inside = (one[starts] > low) & (one[starts] < high)
        runs = np.diff(np.r_[starts, len(one)])[inside]
        longest = max(longest, int(runs.max(initial=0)))
        repeats, steps = repeats + int((runs - 1).sum()), steps + int(runs.sum())
    share = (repeats + 1) / (steps + 2)
    chance = max(math.log(steps + 1) / -math.log(share), 1.0)
    return longest if share <= HOLDING_SHARE and longest <= CHANCE_FACTOR * chance else 0
