"""Scores become alarm events: m-of-n or a very high score opens, hysteresis closes.

An alarm opens when at least `open_count` of the last `open_window` scores reached 1.0, or at once at
`immediate_score`. It closes after `clear_samples` scores in a row whose statistic is below 0.8 of the threshold
*value*. The onset is the first sample of the excursion that opened it.
"""

from dataclasses import dataclass, fields

import numpy as np

from edge_agent.contract.types import Bool, Float64, Int64


@dataclass(frozen=True, slots=True)
class AlarmRules:
    """When alarms open, close and become critical; counts are samples.

    Attributes:
        open_count: m of m-of-n.
        open_window: n of m-of-n, at most 63.
        immediate_score: opens without waiting; 0 never would, so it must exceed 1.
        clear_samples: quiet samples in a row that close an alarm.
        critical_score: severity becomes critical at this score.
        critical_after_samples: severity becomes critical when the alarm lasts this long.
        update_samples: an update event is sent at least this often while the alarm is open.
    """

    open_count: int = 3
    open_window: int = 5
    immediate_score: float = 4.0
    clear_samples: int = 10
    critical_score: float = 2.0
    critical_after_samples: int = 600
    update_samples: int = 300


@dataclass
class AlarmState:
    """Alarm state of all assets, one row per asset; times in seconds since the epoch."""

    recent: Int64
    active: Bool
    number: Int64
    rise_time: Float64
    onset_time: Float64
    start_time: Float64
    peak_score: Float64
    peak_time: Float64
    quiet: Int64
    held: Int64
    critical: Bool

    @staticmethod
    def zero(assets: int) -> "AlarmState":
        """Return the state of assets that never were in alarm."""
        return AlarmState(
            recent=np.zeros(assets, np.int64),
            active=np.zeros(assets, np.bool_),
            number=np.zeros(assets, np.int64),
            rise_time=np.full(assets, np.nan),
            onset_time=np.zeros(assets),
            start_time=np.zeros(assets),
            peak_score=np.zeros(assets),
            peak_time=np.zeros(assets),
            quiet=np.zeros(assets, np.int64),
            held=np.zeros(assets, np.int64),
            critical=np.zeros(assets, np.bool_),
        )


@dataclass(frozen=True, slots=True)
class Transitions:
    """What happened to each of the assets of one call, (B,) each."""

    started: Bool
    updated: Bool
    ended: Bool

    def any(self) -> bool:
        """Return whether anything happened at all."""
        return bool(self.started.any() or self.updated.any() or self.ended.any())


def follow_alarms(
    state: AlarmState,
    rows: Int64,
    time: Float64,
    score: Float64,
    quiet: Bool,
    rules: AlarmRules,
) -> Transitions:
    """Advance the alarm state of assets `rows` (B,), each named once, by one scored sample.

    Args:
        state: changed in place.
        rows: (B,) assets.
        time: (B,) seconds since the epoch.
        score: (B,) finite scores.
        quiet: (B,) whether the statistic is below the clearing value.
        rules: when alarms open and close.
    """
    over = score >= 1.0
    active = state.active[rows]
    fresh_rise = (state.quiet[rows] > 0) | np.isnan(state.rise_time[rows])
    state.rise_time[rows] = np.where(~quiet & fresh_rise, time, state.rise_time[rows])
    state.quiet[rows] = np.where(quiet, state.quiet[rows] + 1, 0)
    window = (1 << rules.open_window) - 1
    state.recent[rows] = ((state.recent[rows] << 1) | over) & window
    enough = _bit_count(state.recent[rows]) >= rules.open_count
    started = ~active & over & (enough | (score >= rules.immediate_score))
    ended = active & (state.quiet[rows] >= rules.clear_samples)
    _open(state, rows[started], time[started])
    still = (active & ~ended) | started
    state.held[rows] = np.where(active & ~ended, state.held[rows] + 1, 0)
    higher = still & (score > state.peak_score[rows])
    state.peak_time[rows] = np.where(higher, time, state.peak_time[rows])
    state.peak_score[rows] = np.where(higher, score, state.peak_score[rows])
    grave = still & ((score >= rules.critical_score) | (state.held[rows] >= rules.critical_after_samples))
    worsened = grave & ~state.critical[rows]
    state.critical[rows] = (state.critical[rows] | grave) & (still | ended)
    state.active[rows] = still
    state.recent[rows] = np.where(ended, 0, state.recent[rows])
    due = (state.held[rows] > 0) & (state.held[rows] % rules.update_samples == 0)
    return Transitions(started, still & ~started & (worsened | due), ended)


def forget_alarms(state: AlarmState, rows: Int64) -> None:
    """End the alarms of assets `rows` without a word; only their count goes on."""
    fresh = AlarmState.zero(len(rows))
    for item in fields(AlarmState):
        if item.name != "number":
            getattr(state, item.name)[rows] = getattr(fresh, item.name)


def _open(state: AlarmState, rows: Int64, time: Float64) -> None:
    state.number[rows] += 1
    state.onset_time[rows] = state.rise_time[rows]
    state.start_time[rows] = time
    state.peak_score[rows] = 0.0
    state.critical[rows] = False


def _bit_count(values: Int64) -> Int64:
    """Return how many bits are set in each of the (non-negative) values."""
    return np.bitwise_count(values).astype(np.int64)
