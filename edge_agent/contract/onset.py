"""Onset: the moment at which what a machine does changes abruptly, told apart from the state it is in.

`d_t = E5(log r)_t - E120(log r)_t`, with `r` the log-mean of the residual distances of the shortest spans over their
0.99 quantiles and `E` averages of 5 and of 120 samples. An onset is where `d` exceeds 0.4, that is where residuals
became half as large again as they were over the last minutes, and `r` is beyond its 0.99 quantile. A contrast of a fast
and a slow average is a change detector (Page 1954, Continuous Inspection Schemes; in this form Lucas and Saccucci
1990); it sees a second change inside a long alarm, where the state says only that the alarm lasts.
"""

from dataclasses import dataclass

import numpy as np

from edge_agent.contract.ewma import smoothing
from edge_agent.contract.types import Bool, Float64, Int64

FAST, SLOW = 5, 120
RISE = 0.4
"""Natural logarithm: residuals half as large again."""
FALL = 0.6
"""The next onset needs the contrast to fall below this part of `RISE` first."""
REST = 60
"""Samples after an onset, and after the start of an alarm, in which the same change is no news."""
LEAST_LOG = -3.0
"""Of the 0.99 quantile a twentieth: nothing smaller makes a difference, or silence would make every noise an onset."""


@dataclass
class OnsetState:
    """One row per asset.

    Attributes:
        fast, slow: (A,) averages of the logarithm.
        rest: (A,) samples until the next onset may be told.
        low: (A,) whether the contrast has fallen since the last one.
    """

    fast: Float64
    slow: Float64
    rest: Int64
    low: Bool

    @staticmethod
    def zero(assets: int) -> "OnsetState":
        """Return the state of assets that have seen nothing: as quiet as half of the 0.99 quantile."""
        usual = np.full(assets, np.log(0.5))
        return OnsetState(usual, usual.copy(), np.full(assets, REST), np.ones(assets, np.bool_))


def follow_onsets(state: OnsetState, rows: Int64, residual: Float64, started: Bool) -> Bool:
    """Take one sample of each of the assets, and return (B,) whether it is an onset.

    Args:
        state: changed in place.
        rows: (B,) assets, each named once.
        residual: (B,) log-mean of the residual distances of the shortest spans over their 0.99 quantiles.
        started: (B,) an alarm starts with this sample, which tells the same change.
    """
    log = np.maximum(np.log(np.maximum(residual, 1e-12)), LEAST_LOG)
    fast, slow = smoothing([FAST, SLOW])
    state.fast[rows] += fast * (log - state.fast[rows])
    state.slow[rows] += slow * (log - state.slow[rows])
    contrast = state.fast[rows] - state.slow[rows]
    rest = np.maximum(state.rest[rows] - 1, 0)
    onset = (contrast > RISE) & (log > 0.0) & state.low[rows] & (rest == 0) & ~started
    state.low[rows] = (state.low[rows] & ~onset) | (contrast < FALL * RISE)
    state.rest[rows] = np.where(onset | started, REST, rest)
    return np.asarray(onset)
