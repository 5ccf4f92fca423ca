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
or with as many stretches as a tail can be fitted on, nothing is left out.
"""

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

from edge_agent.contract.fusion import Fusion
from edge_agent.contract.tail import LEAST_CLUSTERS
from edge_agent.contract.types import Bool, Float64

FALSE_SHARE = 0.01
"""Of normal histories that lose a row."""
STRANGE = 2.0
"""Standard deviations; rows around a stretch that are farther out belong to it."""
MARGIN = 5
"""Rows on both sides of a stretch: a fault begins before it is seen."""
MOST_SHARE = 0.1
_NORMAL = NormalDist()


def ordinary_rows(statistics: Float64, fusion: Fusion, sources: Sequence[str]) -> Bool:
    """Return (n,) False for the rows that stand apart.

    Args:
        statistics: (n, C) of rows in order, NaN where there is none; such rows are ordinary.
        fusion: of the statistics.
        sources: of the C statistics.
    """
    keep = np.ones(len(statistics), np.bool_)
    known = np.flatnonzero(np.isfinite(statistics).all(axis=1))
    if not len(known):
        return keep
    z = _strangeness(statistics[known], fusion, sources)
    limit = _NORMAL.inv_cdf(1.0 - FALSE_SHARE / len(z))
    apart = [(first, end) for first, end in stretches_of(z > STRANGE) if z[first:end].max() > limit]
    for first, end in apart:
        keep[known[max(0, first - MARGIN) : end + MARGIN]] = False
    recurrent = len(apart) >= LEAST_CLUSTERS or (~keep).sum() > MOST_SHARE * len(known)
    return np.ones(len(statistics), np.bool_) if recurrent else keep


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
