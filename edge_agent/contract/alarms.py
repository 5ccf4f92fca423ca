"""Scores become alarm events: m-of-n or a very high score opens, hysteresis closes, a fleeting end is no end.

An alarm opens when at least `open_count` of the last `open_window` scores reached 1.0, or at once at
`immediate_score`. It closes after `clear_samples` scores in a row whose statistic is below 0.8 of the threshold
*value*, or below what is usual where that is more (`threshold`). Its onset is the first sample after the statistic was
last below half of that value: what leads up to an alarm begins well under the threshold (docs/decisions/0004 has the
errors of this and of a CUSUM, Page 1954).

Soon after an end (`merge_samples`) the same alarm goes on instead of a new one; later, during `cool_down_samples`, a
new one needs the immediate score. Both count sampling intervals of the clock, so that a gap or a stop of the machine
lets them pass. The means are those of ISA-18.2 and EEMUA 191 against chattering alarms: dead band, delay on both
sides, re-alarm suppression. An alarm that does not open for one of these reasons is held back, and counted.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields

import numpy as np

from edge_agent.contract.minimum_deviation import DeviationRule
from edge_agent.contract.types import Bool, Float64, Int64, Places

CLEARED, OFF = "cleared", "off"
"""Why an alarm ends: its statistic fell, or the machine went off."""
HELD_BACK = ("cool_down", "minimum_deviation")
"""Why an alarm does not open that otherwise would."""

Permit = Callable[[Int64], Bool]
"""Positions (n,) among the assets of a call, of those that would open → (n,) which of them may."""


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
        cool_down_samples: sampling intervals after an end in which only `immediate_score` opens a new alarm. 0 by
            default: it would hide a second fault that follows the first, and what chatters is merged already.
        merge_samples: sampling intervals after an end in which the same alarm goes on. 30 joins most of what one
            fault is cut into, and no two faults (docs/decisions/0004).
        sensors: the least deviation that opens an alarm, by the sensor's name; see `minimum_deviation.py`.
    """

    open_count: int = 3
    open_window: int = 5
    immediate_score: float = 4.0
    clear_samples: int = 10
    critical_score: float = 2.0
    critical_after_samples: int = 600
    update_samples: int = 300
    cool_down_samples: int = 0
    merge_samples: int = 30
    sensors: Mapping[str, DeviationRule] = field(default_factory=dict)


@dataclass
class AlarmState:
    """Alarm state of all assets, one row per asset; times in seconds since the epoch.

    `end_time` is that of the last end after which merge and cool-down count, NaN where there is none. `held_back` is
    whether the present excursion was counted as held back.
    """

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
    end_time: Float64
    held_back: Bool

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
            end_time=np.full(assets, np.nan),
            held_back=np.zeros(assets, np.bool_),
        )


@dataclass(frozen=True, slots=True)
class Transitions:
    """What happened to each of the assets of one call, (B,) each.

    An alarm that is `reopened` is `updated` too. `cooled` and `slight` are excursions that were newly held back, by
    the cool-down and by the minimum deviation.
    """

    started: Bool
    updated: Bool
    ended: Bool
    reopened: Bool
    cooled: Bool
    slight: Bool

    @staticmethod
    def none(assets: int) -> "Transitions":
        """Return that nothing happened."""
        return Transitions(*[np.zeros(assets, np.bool_)] * 6)

    def any(self) -> bool:
        """Return whether there is an event at all."""
        return any(np.count_nonzero(which) for which in (self.started, self.updated, self.ended))


def follow_alarms(
    state: AlarmState,
    rows: Places,
    time: Float64,
    score: Float64,
    quiet: Bool,
    rules: AlarmRules,
    interval: float = 1.0,
    calm: Bool | None = None,
    permit: Permit | None = None,
) -> Transitions:
    """Advance the alarm state of assets `rows` (B,), each named once, by one scored sample.

    Args:
        state: changed in place.
        rows: (B,) assets.
        time: (B,) seconds since the epoch.
        score: (B,) finite scores.
        quiet: (B,) whether the statistic is below the clearing value.
        rules: when alarms open and close.
        interval: seconds between samples.
        calm: (B,) whether the statistic is so low that no excursion has begun; None is `quiet`.
        permit: asked of alarms that would open; None permits all.
    """
    over = score >= 1.0
    active = state.active[rows]
    quiets = state.quiet[rows] + 1
    quiets *= quiet
    state.quiet[rows] = quiets
    # Where there was none, an excursion begins now: of what is no number the other is taken.
    rise = np.fmin(state.rise_time[rows], time)
    rise[quiet if calm is None else calm] = np.nan
    recent = state.recent[rows] << 1
    recent &= (1 << rules.open_window) - 1
    held_back = state.held_back[rows]
    if np.count_nonzero(held_back):
        state.held_back[rows] = held_back & (quiets < rules.clear_samples)
    if not (np.count_nonzero(active) or np.count_nonzero(over)):
        # The ordinary sample, which has to be quick.
        state.rise_time[rows], state.recent[rows] = rise, recent
        return Transitions.none(len(over))
    active = active.copy()
    recent |= over
    enough = _bit_count(recent) >= rules.open_count
    wanted = ~active & over & (enough | (score >= rules.immediate_score))
    opened, merged, cooled, slight = _admit(state, rows, wanted, time, score, rules, interval, permit)
    ended = active & (quiets >= rules.clear_samples)
    state.rise_time[rows] = np.where(ended, np.nan, rise)
    _open(state, _assets(state, rows)[opened & ~merged], time[opened & ~merged])
    still = (active & ~ended) | opened
    held = state.held[rows] + (active & ~ended)
    higher = still & (score > state.peak_score[rows])
    state.peak_time[rows] = np.where(higher, time, state.peak_time[rows])
    state.peak_score[rows] = np.where(higher, score, state.peak_score[rows])
    grave = still & ((score >= rules.critical_score) | (held >= rules.critical_after_samples))
    worsened = grave & ~state.critical[rows]
    state.held[rows] = held
    state.critical[rows] |= grave
    state.active[rows] = still
    state.recent[rows] = np.where(ended, 0, recent)
    state.end_time[rows] = np.where(ended, time, state.end_time[rows])
    due = (held > 0) & (held % rules.update_samples == 0)
    reopened = opened & merged
    updated = (active & ~ended & (worsened | due)) | reopened
    return Transitions(opened & ~merged, updated, ended, reopened, cooled, slight)


@dataclass(frozen=True, slots=True)
class Course:
    """How the alarms of B assets go on over L samples in which nothing happens to them.

    Attributes:
        time, score: (B, L).
        over: (B, L) scores of 1 and more.
        calm: (B, L) whether no excursion has begun.
        quiets: (B, L) quiet samples in a row, up to each.
        happens: (B, L) where the first of each asset would be an event, or held back; behind it nothing is said.
    """

    time: Float64
    score: Float64
    over: Bool
    calm: Bool
    quiets: Int64
    happens: Bool

    def pass_by(self, state: AlarmState, rows: Int64, rules: AlarmRules, ticks: int) -> None:
        """Take the first ticks of assets `rows` (B,), in which nothing happens."""
        part = slice(0, ticks)
        state.quiet[rows] = self.quiets[:, ticks - 1]
        held_back = state.held_back[rows]
        if held_back.any():
            state.held_back[rows] = held_back & (self.quiets[:, part] < rules.clear_samples).all(axis=1)
        recent = state.recent[rows] << ticks if ticks < rules.open_window else np.zeros(len(rows), np.int64)
        latest = self.over[:, max(0, ticks - rules.open_window) : ticks]
        if latest.any():
            recent |= latest @ (1 << np.arange(latest.shape[1])[::-1])
        state.recent[rows] = recent & ((1 << rules.open_window) - 1)
        self._follow_rise(state, rows, ticks)
        active = state.active[rows]
        if active.any():
            some, score = rows[active], self.score[active, part]
            state.held[some] += ticks
            best = score.argmax(axis=1)[:, None]
            peak, when = (
                np.take_along_axis(array, best, axis=1)[:, 0] for array in (score, self.time[active, part])
            )
            higher = peak > state.peak_score[some]
            state.peak_score[some[higher]], state.peak_time[some[higher]] = peak[higher], when[higher]

    def _follow_rise(self, state: AlarmState, rows: Int64, ticks: int) -> None:
        """Let the excursion begin behind the last calm sample."""
        calm = self.calm[:, :ticks]
        if calm[:, -1].all():
            state.rise_time[rows] = np.nan
            return
        back = calm[:, ::-1].argmax(axis=1)
        before = state.rise_time[rows]
        some = calm.any(axis=1)
        first = np.where(some, np.minimum(ticks - back, ticks - 1), 0)
        began = self.time[np.arange(len(rows)), first]
        began = np.where(some | np.isnan(before), began, before)
        state.rise_time[rows] = np.where(calm[:, -1], np.nan, began)


def alarms_ahead(
    state: AlarmState, rows: Int64, time: Float64, score: Float64, quiet: Bool, calm: Bool, rules: AlarmRules
) -> Course:
    """Return what `follow_alarms` would do with samples (B, L) of assets (B,) up to the first event of each.

    Arguments are those of `follow_alarms`, of which no alarm that would open is held back; the state is left as it is.
    """
    over = score >= 1.0
    active = state.active[rows]
    quiets = runs(state.quiet[rows], quiet)
    happens = np.zeros(over.shape, np.bool_)
    if over.any():
        wanted = over & (score >= rules.immediate_score)
        wanted |= over & (_counted(state.recent[rows], over, rules.open_window) >= rules.open_count)
        happens |= wanted & ~active[:, None]
    if active.any():
        held = state.held[rows][:, None] + np.arange(1, over.shape[1] + 1)
        grave = (score >= rules.critical_score) | (held >= rules.critical_after_samples)
        told = (grave & ~state.critical[rows][:, None]) | (held % rules.update_samples == 0)
        happens |= active[:, None] & ((quiets >= rules.clear_samples) | told)
    return Course(time, score, over, calm, quiets, happens)


def runs(before: Int64, flag: Bool) -> Int64:
    """Return (B, L) how many flags (B, L) in a row are set up to each, after `before` (B,) of them."""
    place = np.arange(1, flag.shape[1] + 1)
    if flag.all():
        return before[:, None] + place
    last = np.maximum.accumulate(np.where(flag, 0, place), axis=1)
    return np.where(last > 0, place - last, before[:, None] + place)


def _counted(recent: Int64, over: Bool, window: int) -> Int64:
    """Return (B, L) how many of the last `window` flags up to each are set, after `recent` (B,) as bits."""
    bits = (recent[:, None] >> np.arange(window - 1)[::-1]) & 1
    sums = np.cumsum(np.concatenate([np.zeros((len(over), 1), np.int64), bits, over], axis=1), axis=1)
    return np.asarray(sums[:, window:] - sums[:, :-window])


def _assets(state: AlarmState, rows: Places) -> Int64:
    return np.arange(len(state.active))[rows]


def stop_alarms(state: AlarmState, rows: Int64) -> Int64:
    """End the alarms of assets that are not watched any more, and forget what led to the next one.

    What follows is no sequel of what was before: neither merge nor cool-down count from here.

    Args:
        state: changed in place.
        rows: (B,) assets.

    Returns:
        (b,) those of the assets that were in alarm.
    """
    stopped = rows[state.active[rows]]
    state.active[rows] = state.held_back[rows] = False
    state.recent[rows] = state.quiet[rows] = 0
    state.rise_time[rows] = state.end_time[rows] = np.nan
    return stopped


def _admit(
    state: AlarmState,
    rows: Places,
    wanted: Bool,
    time: Float64,
    score: Float64,
    rules: AlarmRules,
    interval: float,
    permit: Permit | None,
) -> tuple[Bool, Bool, Bool, Bool]:
    """Return (B,) which `wanted` alarms open, which would be merged, and which are newly held back and why."""
    none = np.zeros(len(wanted), np.bool_)
    held = state.held_back[rows].copy()
    if not wanted.any():
        return none, none, none, none
    since = np.round((time - state.end_time[rows]) / interval)
    merged = wanted & (since <= rules.merge_samples)
    cooled = wanted & ~merged & (since <= rules.cool_down_samples) & (score < rules.immediate_score)
    opened = wanted & ~cooled
    slight = none.copy()
    if permit is not None and opened.any():
        asked = np.flatnonzero(opened)
        slight[asked] = ~permit(asked)
        opened &= ~slight
    state.held_back[rows] = (held | cooled | slight) & ~opened
    return opened, merged, cooled & ~held, slight & ~held


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
    state.held[rows] = 0


def _bit_count(values: Int64) -> Int64:
    """Return how many bits are set in each of the (non-negative) values."""
    return np.bitwise_count(values).astype(np.int64)
