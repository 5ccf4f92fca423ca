"""Range guard: how far a sensor is outside everything that was seen, in units of 5 % of that range.

It does not depend on the forecaster and is the only statistic that judges a constant sensor. The excess is smoothed
over a short span, so that one wild sample is a matter of data quality and not of the machine.
"""

import numpy as np

from edge_agent.contract.types import Float32, Float64

GUARD_SPAN = 5
MARGIN_RATIO = 0.05
EXCESS_BOUND = 20.0


def range_excess(scaled: Float32 | Float64, low: Float64, high: Float64, margin: Float64) -> Float64:
    """Return (B, F): 0 inside [low, high], 1 at one margin outside, at most 20."""
    outside = np.maximum(np.maximum(low - scaled, scaled - high), 0.0)
    return np.asarray(np.minimum(outside / margin, EXCESS_BOUND))


def range_margin(low: Float64, high: Float64) -> Float64:
    """Return (F,) 5 % of the range in scaled units; a constant sensor has its scale as margin."""
    span = high - low
    return np.asarray(np.where(span > 0.0, MARGIN_RATIO * np.maximum(span, 1e-6), 1.0))
