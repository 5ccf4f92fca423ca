"""Exponentially weighted moving averages that start at zero.

`e_t = e_{t-1} + a (x_t - e_{t-1})` with `a = 2 / (span + 1)` and `e_0 = 0`. Starting at the first value instead leaves
a transient in the calibration block that silently down-weights the long spans. For white input of variance 1 the
variance tends to `a / (2 - a)` (Roberts 1959, Control Chart Tests Based on Geometric Moving Averages).
"""

from collections.abc import Sequence

import numpy as np

from edge_agent.contract.types import Bool, Float64


def smoothing(spans: Sequence[int]) -> Float64:
    """Return `a` for each span, shape (S,)."""
    return np.asarray(2.0 / (np.asarray(spans, np.float64) + 1.0))


def deviation(spans: Sequence[int]) -> Float64:
    """Return the standard deviation of the average of white input of variance 1, shape (S,)."""
    a = smoothing(spans)
    return np.asarray(np.sqrt(a / (2.0 - a)))


def follow(average: Float64, value: Float64, present: Bool, a: Float64) -> Float64:
    """Return the averages after one more value; a missing cell leaves its averages where they are.

    Args:
        average: (B, S, F) averages so far.
        value: (B, F) new values; what stands in a missing cell is not used.
        present: (B, F) which cells count.
        a: (S,) smoothing factors.
    """
    step = np.where(present[:, None, :], value[:, None, :] - average, 0.0)
    return np.asarray(average + a[None, :, None] * step)
