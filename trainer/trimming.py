"""Which rows of a calibration stand apart from the rest of it: faults that nobody labelled.

A fault in a history that is taken for normal lifts scales, normalisers and threshold, and the next one like it is not
seen. Hampel's identifier (1974, The Influence Curve and Its Role in Robust Estimation), on the logarithm of the fused
statistic, whose distribution is about normal: `z = (log f - median) / scale`, where the scale is the larger of 1.4826
median absolute deviations and of what the 0.9 quantile says, since normal operation is skewed to the right. A row is
apart where z is over the limit that one normal sample of that many rows in a hundred would reach (Davies and Gather
1993, The Identification of Multiple Outliers): the limit grows with the history, and needs no data to be chosen on.
A stretch apart is its rows over the limit with the rows around them that are still strange, in which the averages
forget it.

What comes back again and again is how the machine works, however strange it looks: with more than a tenth of the rows,
or with as many stretches as a tail can be fitted on, nothing is left out. So is what most starts and stops are like of
a machine that stands still now and then (cold bearings, a level to be regained, running down), though a history of days
holds few of them: a stretch that begins soon after a start is left out only where most starts are not strange, and one
that begins shortly before a stop where most stops are not.
"""

from collections.abc import Sequence
from itertools import pairwise
from statistics import NormalDist

import numpy as np

from edge_agent.contract.fusion import Fusion
from edge_agent.contract.tail import LEAST_CLUSTERS
from edge_agent.contract.types import Bool, Float64, Int64
from trainer.starts import Turns

FALSE_SHARE = 0.01
"""Of normal histories that lose a row."""
STRANGE = 2.0
"""Standard deviations; rows around a stretch that are farther out belong to it."""
MARGIN = 5
"""Rows on both sides of a stretch: a fault begins before it is seen."""
MOST_SHARE = 0.1
USUAL_SHARE = 0.5
"""Of the starts, or of the stops: what so many are like is how the machine does it."""
_NORMAL = NormalDist()


def ordinary_rows(
    statistics: Float64, fusion: Fusion, sources: Sequence[str], turns: Turns | None = None
) -> Bool:
    """Return (n,) False for the rows that stand apart.

    Args:
        statistics: (n, C) of rows in order, NaN where there is none; such rows are ordinary.
        fusion: of the statistics.
        sources: of the C statistics.
        turns: of the n rows; None where the machine never stops.
    """
    keep = np.ones(len(statistics), np.bool_)
    known = np.flatnonzero(np.isfinite(statistics).all(axis=1))
    if not len(known):
        return keep
    z = _strangeness(statistics[known], fusion, sources)
    limit = _limit(len(z))
    strange = stretches_of(z > STRANGE)
    if turns is not None:
        strange = _not_of_turns(z, turns.number[known], turns.least)
    apart = [(first, end) for first, end in strange if z[first:end].max() > limit]
    for first, end in apart:
        keep[known[max(0, first - MARGIN) : end + MARGIN]] = False
    recurrent = len(apart) >= LEAST_CLUSTERS or (~keep).sum() > MOST_SHARE * len(known)
    return np.ones(len(statistics), np.bool_) if recurrent else keep


def _limit(rows: int) -> float:
    """Return the strangeness that one normal sample of so many rows in a hundred would reach."""
    return _NORMAL.inv_cdf(1.0 - FALSE_SHARE / rows)


def _not_of_turns(z: Float64, turn: Int64, least: int) -> list[tuple[int, int]]:
    """Return the stretches of strange rows (n,), less those that begin as most starts, or most stops, do.

    One of fewer than `least` rows is never an alarm, and only lifts the threshold: it goes like any other.
    """
    begins = np.flatnonzero(np.diff(turn, prepend=0) > 0)
    # A stretch that lasts until the machine stops ends there, and another one begins after it.
    cut = [
        (int(first), int(last))
        for a, b in stretches_of(z > STRANGE)
        for first, last in pairwise([a, *begins[(begins > a) & (begins < b)], b])
    ]
    usual = {sign for sign in (-1, 1) if _are_strange(z, np.where(np.sign(turn) == sign, turn, 0))}
    return [(first, end) for first, end in cut if end - first < least or np.sign(turn[first]) not in usual]


def _are_strange(z: Float64, turn: Int64) -> bool:
    """Return whether at least half of the starts, or stops, would stand apart in a history of their own few rows."""
    each = [z[turn == number] for number in np.unique(turn[turn != 0])]
    strange = sum(bool(one.max() > _limit(len(one))) for one in each)
    return strange >= max(USUAL_SHARE * len(each), 1)


def _strangeness(statistics: Float64, fusion: Fusion, sources: Sequence[str]) -> Float64:
    """Return z (n,) of statistics (n, C), each first divided by its own median."""
    ratios = statistics / np.maximum(np.median(statistics, axis=0), 1e-9)
    return robust_deviations(np.log(fusion.fuse(ratios, sources)))


def robust_deviations(values: Float64) -> Float64:
    """Return (n,) how many robust standard deviations each of the values (n,) is above their median."""
    middle, high = np.quantile(values, (0.5, 0.9))
    near = float(np.median(np.abs(values - middle))) / _NORMAL.inv_cdf(0.75)
    scale = max(near, float(high - middle) / _NORMAL.inv_cdf(0.9), 1e-6)
    return np.asarray((values - middle) / scale)


def stretches_of(flag: Bool) -> list[tuple[int, int]]:
    """Return (first, one past last) of each run of true rows."""
    edges = np.flatnonzero(np.diff(np.r_[False, flag, False].astype(np.int8)))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))
