"""The daemon's own alarm engine over a fused statistic, at many thresholds side by side in one causal pass."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from edge_agent.contract.alarms import AlarmRules, AlarmState, follow_alarms
from edge_agent.contract.grid import rounds_of
from edge_agent.contract.tail import WEEK_SECONDS
from edge_agent.contract.threshold import Threshold
from edge_agent.contract.types import Float64, Int64

_REPORT_ROUNDS = 1000


@dataclass(frozen=True)
class FusedSeries:
    """A fused statistic over a history.

    Attributes:
        asset: (n,) number of the asset.
        tick: (n,) of the grid.
        statistic: (n,) NaN where there is no score.
        guard: (n,) range excess, 1 is one margin outside of what was seen: an alarm at any threshold.
        interval: seconds between two ticks.
    """

    asset: Int64
    tick: Int64
    statistic: Float64
    guard: Float64
    interval: float

    def scored(self) -> "FusedSeries":
        """Return the rows that have a score."""
        rows = np.isfinite(self.statistic)
        return FusedSeries(
            self.asset[rows], self.tick[rows], self.statistic[rows], self.guard[rows], self.interval
        )

    @property
    def weeks(self) -> float:
        """Return the length of all assets' rows together, weeks."""
        return len(self.statistic) * self.interval / WEEK_SECONDS


@dataclass(frozen=True)
class AlarmRun:
    """What one threshold makes of a history.

    Attributes:
        alarms: that begin.
        alarms_per_week: of one asset.
        time_in_alarm_ratio: of the rows with a score.
    """

    alarms: int
    alarms_per_week: float
    time_in_alarm_ratio: float


def run_alarms(
    series: FusedSeries,
    thresholds: Sequence[Threshold],
    rules: AlarmRules,
    on_rows: Callable[[int], None] | None = None,
    relative: bool = False,
) -> list[AlarmRun]:
    """Run the alarm engine at each of the thresholds.

    Args:
        series: with at least one row that has a score.
        thresholds: B of them.
        rules: when alarms open and close.
        on_rows: told how many rows were done.
        relative: whether the statistic is a ratio to what is usual of late.
    """
    scored = series.scored()
    count, asset = len(thresholds), scored.asset
    score = np.empty((len(asset), count))
    quiet = np.empty((len(asset), count), np.bool_)
    for place, threshold in enumerate(thresholds):
        judged = np.maximum(scored.statistic, scored.guard * threshold.value)
        score[:, place] = threshold.score(judged)
        quiet[:, place] = judged < threshold.clear_value(relative)
    # Each asset at each threshold is an asset of its own to the engine.
    state = AlarmState.zero((int(asset.max()) + 1) * count)
    starts, alarmed = np.zeros(count, np.int64), np.zeros(count, np.int64)
    time = scored.tick * scored.interval
    done = 0
    for number, rows in enumerate(rounds_of(asset)):
        places = (asset[rows, None] * count + np.arange(count)).ravel()
        happened = follow_alarms(
            state, places, np.repeat(time[rows], count), score[rows].ravel(), quiet[rows].ravel(), rules
        )
        starts += happened.started.reshape(-1, count).sum(axis=0)
        alarmed += state.active[places].reshape(-1, count).sum(axis=0)
        done += len(rows)
        if on_rows is not None and number % _REPORT_ROUNDS == _REPORT_ROUNDS - 1:
            on_rows(done)
            done = 0
    if on_rows is not None:
        on_rows(done)
    return [
        AlarmRun(int(begun), float(begun / series.scored().weeks), float(held / len(asset)))
        for begun, held in zip(starts, alarmed, strict=True)
    ]
