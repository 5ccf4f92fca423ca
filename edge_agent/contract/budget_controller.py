"""Bounded budget controller: a factor on the threshold that follows the realised alarm rate towards the budget.

After adaptive conformal inference (Gibbs and Candès 2021, Adaptive Conformal Inference Under Distribution Shift): the
surplus S of alarms over the budget rises by one at each alarm that begins and falls in quiet time, so that at the
budget's rate both cancel. Two things differ, both measured (docs/decisions/0005): S leaks, and only what is beyond a
slack moves the threshold (a saturated integrator, as in Angelopoulos, Candès and Tibshirani 2023, Conformal PID
Control),

    S ← S + 1 at an alarm's start,   S ← S − b dt (1 + S / 4) in quiet time,
    factor = exp(0.2 · sign(S) · max(|S| − 3, 0)), between 0.8 and 3,

with b the budget. Without them each true fault would raise the threshold for weeks: of faults one and a half times as
often as the budget, a fifth more was missed. At the budget's rate S has a deviation of √2, so that 3 is two of them.

An alarm whose statistic goes beyond the highest threshold that the controller may set says nothing of the threshold:
no factor would have kept it away, and a fault that stands out so far is no reason to overlook the next. What it added
is taken back.

Nothing is learnt inside an alarm: S stands still from its start to its end. Alarms that follow one another within an
hour, or a tenth of the budget's period if that is shorter, count as one: a fault may open several.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edge_agent.contract.tail import WEEK_SECONDS
from edge_agent.contract.types import Bool, Float64, Int64, Places

STEP = 0.2
"""Of the factor's logarithm, for each alarm beyond the slack."""
SLACK = 3.0
MEMORY = 4.0
"""Budget periods after which a surplus is forgotten."""
LEAST, MOST = 0.8, 3.0
"""Bounds of the factor: a fault at three times the threshold is found whatever came before."""
TOGETHER_SECONDS = 3600.0
PERIOD_SHARE = 0.1
"""Of the period of a large budget, within which alarms count as one."""


@dataclass
class BudgetState:
    """One row per asset.

    Attributes:
        surplus: (A,) alarms beyond the budget.
        gain: (A,) what is left in it of the last alarm.
        counted_time: (A,) start of the last alarm, seconds since the epoch.
    """

    surplus: Float64
    gain: Float64
    counted_time: Float64

    @staticmethod
    def zero(assets: int) -> "BudgetState":
        """Return the state of assets that never were in alarm."""
        return BudgetState(np.zeros(assets), np.zeros(assets), np.full(assets, -np.inf))


class BudgetController:
    """Moves the threshold of each asset towards the budget.

    Args:
        alarms_per_week: the alarm budget of one asset.
        interval: seconds between samples.
    """

    def __init__(self, alarms_per_week: float, interval: float) -> None:
        self._periods = alarms_per_week * interval / WEEK_SECONDS
        self._separation = min(TOGETHER_SECONDS, PERIOD_SHARE * WEEK_SECONDS / alarms_per_week)
        self._lowest = -SLACK + np.log(LEAST) / STEP
        self._highest = SLACK + np.log(MOST) / STEP

    def factor(self, state: BudgetState, rows: Places) -> Float64:
        """Return (B,) what the threshold value of assets `rows` is multiplied by."""
        return self._factor(state.surplus[rows])

    def follow(self, state: BudgetState, rows: Places, time: Float64, started: Bool, quiet: Bool) -> None:
        """Learn from one scored sample of assets `rows` (B,), each named once.

        Args:
            state: changed in place.
            rows: (B,) assets.
            time: (B,) seconds since the epoch.
            started: (B,) whether an alarm began with the sample.
            quiet: (B,) whether the asset is out of alarm and below the clearing value.
        """
        leak = (self._periods / MEMORY) * quiet
        surplus, gain = state.surplus[rows], state.gain[rows]
        surplus = surplus - leak * (surplus + MEMORY)
        if np.count_nonzero(gain):
            state.gain[rows] = gain - leak * gain
        if np.count_nonzero(started):
            counted = started & (time - state.counted_time[rows] >= self._separation)
            after = np.minimum(surplus + counted, self._highest)
            state.gain[rows] = np.where(counted, after - surplus, state.gain[rows])
            state.counted_time[rows] = np.where(started, time, state.counted_time[rows])
            surplus = np.maximum(after, self._lowest)
        state.surplus[rows] = surplus

    def factors_ahead(
        self, state: BudgetState, rows: Int64, ticks: int, quiet: Callable[[Float64], Bool]
    ) -> Float64:
        """Return (B, L) the factor before each of L samples of assets (B,) in which no alarm starts.

        The factor decides which samples are quiet, and those decide the later factors: what is right up to a sample
        makes the next right, so that asking again until nothing changes ends, and ends with what `follow` does.

        Args:
            state: left as it is.
            rows: (B,) assets, each named once.
            ticks: L.
            quiet: which of the samples (B, L) are, with factors (B, L).
        """
        surplus = state.surplus[rows]
        lowest = self._after(surplus, np.full(len(surplus), ticks))
        if (np.maximum(np.abs(surplus), np.abs(lowest)) <= SLACK).all():
            return np.ones((len(surplus), ticks))
        before = np.broadcast_to(np.arange(ticks), (len(surplus), ticks))
        while True:
            factor = self._factor(self._after(surplus[:, None], before))
            found = quiet(factor)
            counted: Int64 = np.cumsum(found, axis=1) - found
            if (counted == before).all():
                return factor
            before = counted

    def pass_by(self, state: BudgetState, rows: Int64, quiet: Int64) -> None:
        """Learn of some `quiet` samples (B,) of each of assets (B,), and of any others that are not, at once."""
        kept = (1.0 - self._periods / MEMORY) ** quiet
        state.gain[rows] *= kept
        state.surplus[rows] = np.maximum(self._after(state.surplus[rows], quiet), self._lowest)

    def _after(self, surplus: Float64, quiet: Int64) -> Float64:
        """Return the surplus after so many quiet samples: it approaches minus `MEMORY`."""
        return np.asarray((surplus + MEMORY) * (1.0 - self._periods / MEMORY) ** quiet - MEMORY)

    def _factor(self, surplus: Float64) -> Float64:
        size = np.abs(surplus)
        if not size.size or size.max() <= SLACK:
            return np.ones(surplus.shape)
        beyond = np.sign(surplus) * np.maximum(size - SLACK, 0.0)
        return np.asarray(np.clip(np.exp(STEP * beyond), LEAST, MOST))

    def let_pass(self, state: BudgetState, rows: Places, active: Bool, ratio: Float64) -> None:
        """Take back what the open alarms of assets `rows` (B,) added that are beyond the controller's reach.

        Args:
            state: changed in place.
            rows: (B,) assets, each named once.
            active: (B,) whether an alarm is open.
            ratio: (B,) of the statistic to the calibrated threshold value.
        """
        beyond = active & (ratio >= MOST)
        if beyond.any():
            self.forgive(state, np.arange(len(state.gain))[rows][beyond])

    def forgive(self, state: BudgetState, assets: Int64) -> None:
        """Take back what the last alarm of assets (B,) added, as it was a true fault; asked twice, it is once."""
        state.surplus[assets] = np.maximum(state.surplus[assets] - state.gain[assets], self._lowest)
        state.gain[assets] = 0.0
