"""Onset: the moment at which what a machine does changes abruptly, told apart from the state it is in.

`d_t = E5(log r)_t - E120(log r)_t`, with `r` the log-mean of the residual distances of the shortest spans over their
0.99 quantiles and `E` averages of 5 and of 120 samples. An onset is where `d` exceeds 0.4, that is where residuals
became half as large again as they were over the last minutes, and `r` is beyond its 0.99 quantile. A contrast of a fast
and a slow average is a change detector (Page 1954, Continuous Inspection Schemes; in this form Lucas and Saccucci
1990); it sees a second change inside a long alarm, where the state says only that the alarm lasts.
"""

from dataclasses import dataclass

import numpy as np

from edge_agent.contract.ewma import Smoother, smoothing
from edge_agent.contract.types import Bool, Float64, Int64, Places

FAST, SLOW = 5, 120
RISE = 0.4
"""Natural logarithm: residuals half as large again."""
FALL = 0.6
"""The next onset needs the contrast to fall below this part of `RISE` first."""
REST = 60
"""Samples after an onset, and after the start of an alarm, in which the same change is no news."""
LEAST_LOG = -3.0
"""Of the 0.99 quantile a twentieth: nothing smaller makes a difference, or silence would make every noise an onset."""


_FAST, _SLOW = smoothing([FAST, SLOW])
_AVERAGES = Smoother([FAST, SLOW])


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


def follow_onsets(state: OnsetState, rows: Places, log: Float64, started: Bool) -> Bool:
    """Take one sample of each of the assets, and return (B,) whether it is an onset.

    Args:
        state: changed in place.
        rows: B assets, each named once.
        log: (B,) logarithm of the log-mean of the residual distances of the shortest spans over their 0.99 quantiles.
        started: (B,) an alarm starts with this sample, which tells the same change.
    """
    log = np.maximum(log, LEAST_LOG)
    fast, slow = state.fast[rows], state.slow[rows]
    fast = fast + _FAST * (log - fast)
    slow = slow + _SLOW * (log - slow)
    contrast = fast - slow
    rest = np.maximum(state.rest[rows] - 1, 0)
    low = state.low[rows]
    onset = contrast > RISE
    if np.count_nonzero(onset) or np.count_nonzero(started):
        onset &= (log > 0.0) & low & (rest == 0) & ~started
        low = low & ~onset
        rest[onset | started] = REST
    state.fast[rows], state.slow[rows] = fast, slow
    state.low[rows] = low | (contrast < FALL * RISE)
    state.rest[rows] = rest
    return np.asarray(onset)


@dataclass(frozen=True, slots=True)
class Contrasts:
    """What the onsets of L samples of each of B assets depend on, if none of them is one.

    Attributes:
        averages: (B, L, 2) fast and slow.
        low: (B, L) whether the contrast has fallen since the last onset, after each sample.
        onset: (B, L) where the first of each asset would be one; what stands behind it says nothing.
    """

    averages: Float64
    low: Bool
    onset: Bool

    def pass_by(self, state: OnsetState, rows: Int64, ticks: int) -> None:
        """Take the first ticks of assets (B,), none of which is an onset."""
        state.fast[rows], state.slow[rows] = self.averages[:, ticks - 1].T
        state.low[rows] = self.low[:, ticks - 1]
        state.rest[rows] = np.maximum(state.rest[rows] - ticks, 0)


def look_ahead(state: OnsetState, rows: Int64, log: Float64) -> Contrasts:
    """Return what `follow_onsets` would do with samples (B, L) of assets (B,) up to the first onset of each."""
    log = np.maximum(log, LEAST_LOG)
    before = np.stack([state.fast[rows], state.slow[rows]], axis=1)[..., None]
    averages = _AVERAGES.follow(before, log[..., None])[..., 0]
    contrast = averages[..., 0] - averages[..., 1]
    fallen = contrast < FALL * RISE
    first = state.low[rows][:, None]
    low = np.logical_or.accumulate(np.concatenate([first, fallen], axis=1), axis=1)
    rested = state.rest[rows][:, None] <= np.arange(1, log.shape[1] + 1)
    return Contrasts(averages, low[:, 1:], (contrast > RISE) & (log > 0.0) & low[:, :-1] & rested)
