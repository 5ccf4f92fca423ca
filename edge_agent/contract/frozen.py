"""Frozen sensor: the same reading to the last digit, again and again, for longer than normal operation ever showed.

`hold` counts the readings in a row that equal one another, the first included. Frozen is `hold > limit` with
`limit = max(20, 2 * longest_hold)`, `longest_hold` from the training history. Where repeats happen by chance, a run
twice as long is as rare as the square: what happened once in n readings happens once in n². Twenty protects short
histories: a sensor that repeats itself every fourth time does so twenty times in a row once in 1e11.

A sensor that holds by nature is not judged (`longest_hold = 0`): a constant one, one that repeats nine readings of ten
(binary, reported on change, quantised and slow), and one whose longest run is five times what chance explains. Nor is
a reading beyond the range that was seen, or at an end of it: a machine that stands holds its flow at 0.00 for as long
as it stands, and a weekend is longer than any run in the history. What is stuck there is left to the machine's score.
An end has a limit of its own where the history came there in `LEAST_VISITS` runs, and stayed by chance alone, as noise
that is cut off at zero does: then no rest makes it stand still, and a sensor that broke while the machine stood, or
whose wire did, is found.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edge_agent.contract.types import Bool, Float32, Int32, Int64

LEAST_LIMIT = 20
FACTOR = 2
HOLDING_SHARE = 0.9
"""A sensor that repeats itself more often than this holds by nature."""
CHANCE_FACTOR = 5.0
"""A run this many times longer than repeats by chance explain was not chance."""
LEAST_VISITS = 1000
"""Runs at an end of the range by which its habits are known: one twice as long is then rarer than one in a million."""
NEVER = np.iinfo(np.int32).max


def hold_limits(longest_hold: Sequence[int]) -> Int32:
    """Return (F,) how many equal readings in a row are still normal; `NEVER` where that is not known."""
    longest = np.asarray(longest_hold, np.int64)
    limit = np.maximum(FACTOR * longest, LEAST_LIMIT)
    return np.where(longest > 0, np.minimum(limit, NEVER), NEVER).astype(np.int32)


def follow_hold(hold: Int32, previous: Float32, value: Float32, present: Bool) -> Int32:
    """Return the length of each run of equal readings after one more sample, (B, F); a missing cell ends no run."""
    return np.asarray(np.where(present, np.where(value == previous, hold + 1, 1), hold), np.int32)


@dataclass(frozen=True, slots=True)
class Holds:
    """Equal readings in a row, at most, of one sensor in normal operation; 0 where it holds by nature, or is unknown.

    Attributes:
        inside: between the ends of the range that was seen.
        low, high: at the least reading and at the greatest.
    """

    inside: int = 0
    low: int = 0
    high: int = 0


def longest_holds(columns: Sequence[Float32]) -> Holds:
    """Return the longest runs of equal readings of one sensor in a history.

    Args:
        columns: (n,) values of the sensor in each asset's order of time; NaN where missing.
    """
    readings = [column[np.isfinite(column)] for column in columns]
    readings = [one for one in readings if len(one)]
    if not readings:
        return Holds()
    starts = [np.flatnonzero(np.r_[True, one[1:] != one[:-1]]) for one in readings]
    held = np.concatenate([one[start] for one, start in zip(readings, starts, strict=True)])
    runs = np.concatenate(
        [np.diff(np.r_[start, len(one)]) for one, start in zip(readings, starts, strict=True)]
    )
    at_low, at_high = held == held.min(), held == held.max()
    inside = _by_chance(runs[~(at_low | at_high)])
    # One that holds by nature in between does so at its ends.
    ends = [_by_chance(runs[at]) if inside and at.sum() >= LEAST_VISITS else 0 for at in (at_low, at_high)]
    return Holds(inside, *ends)


def _by_chance(runs: Int64) -> int:
    """Return the longest of some runs where chance explains it, else 0."""
    longest, steps = int(runs.max(initial=0)), int(runs.sum())
    share = (steps - len(runs) + 1) / (steps + 2)
    chance = max(math.log(steps + 1) / -math.log(share), 1.0)
    return longest if share <= HOLDING_SHARE and longest <= CHANCE_FACTOR * chance else 0
