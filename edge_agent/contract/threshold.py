"""From the fused statistic to the score: 1.0 is the alarm threshold, whatever the machine.

With a long calibration block the score claims rarity (`tail`): `1 + log10(budget rate / rate)`, floor 0. With a short
one it is a ratio to a margin (`margin`) and claims no rarity. The rate is the very one that is asked for: later normal
data is never quite like the calibration block, but what became usual of late is divided out before (`trailing`), and
what is left the budget controller follows. A rarer rate on top of these was measured to be too quiet, at no gain in
time in alarm worth having (docs/decisions/0014).
"""

from dataclasses import dataclass, replace

import numpy as np

from edge_agent.contract.tail import WEEK_SECONDS, Tail, fit_tail
from edge_agent.contract.trailing import QUANTILE
from edge_agent.contract.types import Float64

SLOPE = 0.05
"""With no tail to go by: how much higher, in logarithms, what is ten times rarer stands; 1.12 times. With twice that,
half of the budget went unused on both sets that have no tail (docs/decisions/0013)."""
CLEAR_RATIO = 0.8
"""An alarm clears below this part of the threshold *value*; a part of the score would be no hysteresis."""
CLEARS = 0.75
"""How often normal operation would end an alarm at once: what waits for it after a fault is little longer."""
MOST_CLEAR_RATIO = 0.95
"""However near to its threshold normal operation is, so much of a hysteresis there is."""

LEAST_PERIOD = 0.9
"""Of the time in which a budget expects one alarm, that a calibration block must have: a block as long as that loses
rows to trimming and to warming up, and a threshold is not to leap by a fifth for the last of them
(docs/decisions/0034)."""

ONSET_RATIO = 0.5
"""An excursion begins above this part of the threshold value (docs/decisions/0004)."""


@dataclass(frozen=True)
class Threshold:
    """The calibrated threshold of the fused statistic.

    Attributes:
        basis: `tail` or `margin`.
        value: threshold of the fused statistic.
        alarms_per_week: the alarm budget.
        supported_alarms_per_week: one alarm in the time that the calibration block has.
        tail: rates behind a `tail` basis.
        usual: what normal operation stays below, three times in four, for as many samples as close an alarm; 0 is not
            known, in bundles of before.
    """

    basis: str
    value: float
    alarms_per_week: float
    supported_alarms_per_week: float
    tail: Tail | None = None
    usual: float = 0.0

    def supports(self, alarms_per_week: float) -> bool:
        """Return whether the calibration block was long enough for a claim of so many alarms a week."""
        return LEAST_PERIOD * self.supported_alarms_per_week <= alarms_per_week

    def clear_value(self, relative: bool) -> float:
        """Return the value of the fused statistic below which an alarm clears.

        The more sensors a machine has, the less a mean over them varies: of fifty the threshold stands a quarter above
        the median, and below `CLEAR_RATIO` of it normal operation hardly ever stays. No alarm waits for less than what
        is usual (docs/decisions/0032).

        Where the statistic is a ratio to what is usual of late and there is no tail, what is usual is quiet: such a
        threshold stands little above 1, and with `CLEAR_RATIO` of it an alarm would wait for less than the usual.

        Args:
            relative: whether the statistic is such a ratio.
        """
        least = min(1.0, self.value) if relative and self.tail is None else 0.0
        return max(CLEAR_RATIO * self.value, min(self.usual, MOST_CLEAR_RATIO * self.value), least)

    def score(self, statistic: Float64) -> Float64:
        """Return the score of each fused statistic; NaN stays NaN."""
        if self.tail is None:
            return np.asarray(statistic / self.value)
        known = self.tail.log_rate(statistic)
        known -= np.log(self.alarms_per_week)
        known *= -1.0 / np.log(10.0)
        known += 1.0
        return np.maximum(known, 0.0)


def held_values(statistic: Float64, count: int, window: int) -> Float64:
    """Return (n,) the highest threshold that `count` of the last `window` values reach; before the first they are low.

    Args:
        statistic: (n,).
        count: m of m-of-n.
        window: n of m-of-n.
    """
    if window == 1 or not len(statistic):
        return statistic
    padded = np.r_[np.full(window - 1, statistic.min()), statistic]
    rows = np.lib.stride_tricks.sliding_window_view(padded, window)
    if count == 1:
        # Without the copy of all windows that a partition takes.
        return np.asarray(rows.max(axis=1))
    return np.asarray(np.partition(rows, window - count, axis=1)[:, window - count])


def calibrate_threshold(
    statistic: Float64,
    interval: float,
    alarms_per_week: float,
    separation: int,
    block_rows: int = 0,
    opening: tuple[int, int] = (1, 1),
    closing: int = 1,
) -> Threshold:
    """Choose the threshold for a budget from the fused statistic of normal data that nothing was fitted on.

    Args:
        statistic: (n,) fused statistic of the calibration block, trimmed of warming up.
        interval: seconds between samples.
        alarms_per_week: the alarm budget of one asset.
        separation: quiet samples that separate two clusters.
        block_rows: of what is usual of late, where the statistic is a ratio to that: of such blocks one in twenty
            exceeds 1, and a short history need not tell what a margin is. 0 is no such ratio.
        opening: m and n of the m-of-n rule by which alarms open. The budget is one of alarms, so that the tail is that
            of what opens one: on a statistic that flickers, single rows over a threshold are many times as frequent.
        closing: quiet samples in a row that close an alarm.
    """
    if block_rows:
        blocks = WEEK_SECONDS / (block_rows * interval)
        value = max(((1.0 - QUANTILE) * blocks / alarms_per_week) ** SLOPE, 1.0)
    else:
        value = max(1.5 * float(np.quantile(statistic, 0.99)), 1.25 * float(statistic.max()))
    supported = WEEK_SECONDS / (len(statistic) * interval)
    usual = float(np.quantile(held_values(statistic, 1, closing), CLEARS))
    margin = Threshold("margin", value, alarms_per_week, supported, usual=usual)
    if not margin.supports(alarms_per_week):
        return margin
    tail = fit_tail(held_values(statistic, *opening), interval, separation)
    if tail is None:
        return margin
    return replace(margin, basis="tail", value=tail.value_at(alarms_per_week), tail=tail)
