"""Spike: one reading far out that returns at once; it is judged when the next reading is there.

A spike is a leap `|x_t - x_{t-1}| > limit` out, and a leap back to within the limit of where it began: a Hampel test
on a window of three (the suspect is the one that is not the median), with its scale from the training history and not
from the two readings beside it.

A reading that leaps farther than operation ever did, and no other sensor of the asset with it, may be a spike: it
counts when the next one did not return. A spike is a matter of data quality and raises no alarm; a level that steps
for good is seen one sample later. No farther than a start of the machine, or soon after it leapt for good, nothing
waits (`spiking.waits`).

    limit = max(2 * usual_spike, a tenth of the range seen)

`usual_spike` is how far readings of the history stood out from the median of three, in each `WINDOW` readings the
second farthest, of these the farthest: single spikes of a history do not hide those to come, what it shows again and
again is its nature. It is 0, and the sensor is not judged, where readings never stand out twice: most binary sensors.
Starts and stops of a machine do not count, as they do not return at once; the largest step between readings, by which
`unit_jump` is suspected, is often the whole range.
"""

import bisect
from collections.abc import Sequence

import numpy as np

from edge_agent.contract.types import Bool, Float32, Float64

FACTOR = 2.0
SUSPECT = 1.5
"""Of the largest step of the history, which normal operation will exceed by a little sooner or later."""
NEVER = float(np.finfo(np.float32).max)


WINDOW = 100
"""Readings, within which a sensor that spikes again and again does so three times (`spiking`)."""
LEAST_READINGS = 20 * WINDOW
"""A shorter history has seen too few windows to tell what is usual in one."""
RANGE_SHARE = 0.1
"""Of the range seen; less is no reading far out, however quiet the sensor is."""


def spike_limits(usual_spike: Sequence[float], span: Float64) -> Float32:
    """Return (F,) the farthest that readings stand out without being spikes, engineering units; `NEVER` where unknown.

    Args:
        usual_spike: from `usual_spike`.
        span: (F,) the range seen.
    """
    usual = np.asarray(usual_spike, np.float64)
    return np.where(usual > 0.0, np.maximum(FACTOR * usual, RANGE_SHARE * span), NEVER).astype(np.float32)


def leap_limits(largest_step: Sequence[float]) -> Float32:
    """Return (F,) the farthest step that is no leap, engineering units; `NEVER` where none is known."""
    return _times(FACTOR, largest_step)


def suspect_limits(spike: Float32, largest_step: Sequence[float]) -> Float32:
    """Return (F,) the farthest step with which a reading counts at once; `NEVER` where none is known.

    Args:
        spike: (F,) from `spike_limits`.
        largest_step: from `largest_step`.
    """
    return np.maximum(spike, _times(SUSPECT, largest_step))


def _times(factor: float, largest_step: Sequence[float]) -> Float32:
    step = np.asarray(largest_step, np.float64)
    return np.minimum(np.where(step > 0.0, factor * step, NEVER), NEVER).astype(np.float32)


def spikes(origin: Float32, value: Float32, leap: Bool, limit: Float32) -> Bool:
    """Return (B, F) where the reading before `value` was a spike.

    Args:
        origin: (B, F) where the last leap began, NaN where the reading before was reached by none.
        value: (B, F) the reading after it.
        leap: (B, F) whether that is a leap too.
        limit: (F,) from `spike_limits`.
    """
    return np.asarray(leap & (np.abs(value - origin) <= limit))


def largest_step(columns: Sequence[Float32]) -> float:
    """Return the largest step between readings of one sensor in a history, single spikes taken out.

    Args:
        columns: (n,) values of the sensor in each asset's order of time; NaN where missing.
    """
    largest = 0.0
    for column in columns:
        one = column[np.isfinite(column)].astype(np.float64)
        if len(one) > 3:
            largest = max(largest, float(np.abs(np.diff(_median_of_three(one))).max()))
    return largest


def usual_spike(columns: Sequence[Float32]) -> float:
    """Return how far two of `WINDOW` readings stand out from the median of three, at most; 0 where too little is known.

    Args:
        columns: (n,) values of the sensor in each asset's order of time; NaN where missing.
    """
    if sum(int(np.isfinite(column).sum()) for column in columns) < LEAST_READINGS:
        return 0.0
    return max((_twice_within(_standing_out(column)) for column in columns), default=0.0)


def _standing_out(column: Float32) -> Float64:
    one = column[np.isfinite(column)].astype(np.float64)
    if len(one) < 3:
        return np.empty(0)
    return np.asarray(np.abs(one[1:-1] - _median_of_three(one)))


def _median_of_three(one: Float64) -> Float64:
    before, here, after = one[:-2], one[1:-1], one[2:]
    return np.asarray(np.maximum(np.minimum(before, here), np.minimum(np.maximum(before, here), after)))


def _twice_within(height: Float64) -> float:
    """Return the largest height that two of `WINDOW` rows in a row reach."""
    places: list[int] = []
    for place in np.argsort(-height, kind="stable").tolist():
        at = bisect.bisect(places, place)
        beside = places[max(at - 1, 0) : at + 1]
        if any(abs(place - other) < WINDOW for other in beside):
            return float(height[place])
        places.insert(at, place)
    return 0.0
