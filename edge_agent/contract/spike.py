"""Spike: one reading far out that returns at once; it is judged when the next reading is there.

A leap is a step `|x_t - x_{t-1}| > 2 * largest_step`. A spike is a leap out and a leap back to within the same
distance of where it began: a Hampel test on a window of three (the suspect is the one that is not the median), with
its scale from the training history and not from the two readings beside it.

`largest_step` is the largest step of the history after a running median of three, which takes single spikes out: a
history with spikes in it does not hide those to come, and a one-sample pulse of a binary sensor is no step at all.
The factor gives back the noise that the median took. Nothing waits for the judgement: the suspect was scored.
"""

from collections.abc import Sequence

import numpy as np

from edge_agent.contract.types import Bool, Float32

FACTOR = 2.0
NEVER = float(np.finfo(np.float32).max)


def leap_limits(largest_step: Sequence[float]) -> Float32:
    """Return (F,) the farthest step that is no leap, engineering units; `NEVER` where none is known."""
    step = np.asarray(largest_step, np.float64)
    return np.minimum(np.where(step > 0.0, FACTOR * step, NEVER), NEVER).astype(np.float32)


def spikes(origin: Float32, value: Float32, leap: Bool, limit: Float32) -> Bool:
    """Return (B, F) where the reading before `value` was a spike.

    Args:
        origin: (B, F) where the last leap began, NaN where the reading before was reached by none.
        value: (B, F) the reading after it.
        leap: (B, F) whether that is a leap too.
        limit: (F,) from `leap_limits`.
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
            before, here, after = one[:-2], one[1:-1], one[2:]
            median = np.maximum(np.minimum(before, here), np.minimum(np.maximum(before, here), after))
            largest = max(largest, float(np.abs(np.diff(median)).max()))
    return largest
