"""From a floor's statistic to its alarms, by one rule for all floors and without a label.

The floor learns on the first 70 % of the history. The statistic of the rest, which nothing was fitted on, is put on a
scale with its median at 0 and its 0.99 quantile at 1, and gets its threshold where the daemon's statistic gets its own:
`edge_agent.contract.threshold` for the same alarm budget. Alarms open and close by the daemon's rules, too.
"""

from dataclasses import replace

import numpy as np

from edge_agent.contract.alarms import AlarmRules
from edge_agent.contract.threshold import calibrate_threshold
from edge_agent.contract.types import Bool, Float64
from trainer.benchmark.cases import ALARMS_PER_WEEK, Case, Verdict, runs_of

LEARNT_SHARE = 0.7
SEPARATION = 60
LEAST_SHARE = 0.1
LEAST_UNIT = 1e-3
"""The scale of a statistic is at least a tenth of its median, and this: a history that stood still has none."""


def learnt_rows(case: Case) -> int:
    """Return how many of the history's rows a floor learns from."""
    return int(LEARNT_SHARE * len(case.history_ticks))


def judge_statistic(case: Case, statistic: Float64, blame: Float64 | None) -> Verdict:
    """Return the verdict on the test rows.

    Args:
        case: the case.
        statistic: (m + n,) of history and test rows, larger is stranger.
        blame: (m + n, F) how strange each sensor is, or None.
    """
    history = len(case.history_ticks)
    later = statistic[learnt_rows(case) : history]
    middle, high = np.quantile(later, (0.5, 0.99))
    unit = max(float(high - middle), LEAST_SHARE * abs(float(middle)), LEAST_UNIT)
    scaled = np.maximum((statistic - middle) / unit, 0.0)
    threshold = calibrate_threshold(
        scaled[learnt_rows(case) : history],
        case.interval,
        ALARMS_PER_WEEK,
        SEPARATION,
        opening=(AlarmRules().open_count, AlarmRules().open_window),
        closing=AlarmRules().clear_samples,
    )
    # Only a statistic that never moved is still below this; it is no reason to alarm at every row.
    threshold = replace(threshold, value=max(threshold.value, 1.0))
    score = threshold.score(scaled[history:])
    alarm = follow_rows(score, scaled[history:] < threshold.clear_value(relative=False))
    starts = np.array([first for first, _ in runs_of(alarm)], np.int64)
    return Verdict(score, alarm, starts, None if blame is None else _named(case, blame[history:][starts]))


def follow_rows(score: Float64, quiet: Bool, rules: AlarmRules | None = None) -> Bool:
    """Return (n,) whether there is an alarm after each row: `contract.alarms.follow_alarms`, for all rows at once.

    Args:
        score: (n,) finite; 1.0 is the threshold.
        quiet: (n,) whether the statistic is below the clearing value.
        rules: the daemon's defaults if None.
    """
    rules = rules or AlarmRules()
    over = score >= 1.0
    counted = np.cumsum(np.r_[np.zeros(rules.open_window, np.int64), over])
    recent = counted[rules.open_window :] - counted[: -rules.open_window]
    opens = over & ((recent >= rules.open_count) | (score >= rules.immediate_score))
    rows = np.arange(len(score))
    calm = rows - np.maximum.accumulate(np.where(quiet, -1, rows))
    last_open = np.maximum.accumulate(np.where(opens, rows, -1))
    last_close = np.maximum.accumulate(np.where(calm >= rules.clear_samples, rows, -1))
    return np.asarray(last_open > last_close)


def _named(case: Case, blame: Float64) -> tuple[tuple[str, ...], ...]:
    order = np.argsort(-blame, axis=1, kind="stable")
    return tuple(tuple(case.sensors[place] for place in row) for row in order)
