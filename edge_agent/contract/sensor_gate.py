"""The gate before the detector: readings that say nothing of the machine are masked and reported, the rest goes on.

Each check is a file of its own (`stale`, `frozen`, `possible_range`, `spike`, `spiking`, `unit_jump`); here they are
joined. A dead sensor is missing for the detector: it neither raises nor hides an alarm. It comes back with its fifth
good reading in a row, as many as an alarm looks at before it opens; the ones before already feed the forecaster,
whose first forecasts after an absence are guesses that no residual should be measured by. Every decision about an
asset follows from its own samples in their order, so batches, single samples and replay agree. No clock: `advance`
brings the agent's.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from edge_agent.contract.bundle import Manifest
from edge_agent.contract.frozen import NEVER, follow_hold, hold_limits
from edge_agent.contract.grid import UNSET
from edge_agent.contract.possible_range import DEAD_AFTER, configure_range, possible_range
from edge_agent.contract.quality_state import (
    FROZEN,
    OUT_OF_RANGE,
    SENSOR_REASONS,
    SILENT,
    SPIKING,
    STALE,
    UNIT_JUMP,
    Int8,
    QualityState,
    is_dead,
)
from edge_agent.contract.spike import leap_limits, spike_limits, spikes, suspect_limits
from edge_agent.contract.spiking import follow_spikes, is_spiking, leaps_out, waits, witnessed
from edge_agent.contract.stale import (
    STALE_SECONDS,
    STALE_TICKS,
    follow_absence,
    silence_limit,
    stale_limits,
)
from edge_agent.contract.types import Bool, Float32, Int32, Int64, Places, QualityEvent, SensorQuality
from edge_agent.contract.unit_jump import CONFIRMED_AFTER, UnitTable

RECOVERED_AFTER = 5
UNIT_RECOVERED_AFTER = 50
"""After a unit jump: a machine that runs down passes through readings that would do in the old unit too."""
LEAST_UPDATE_TICKS, MOST_UPDATE_TICKS = 5, 60
"""Between two events of one episode; it grows with the episode: a loose connector is one story, told in steps."""
_MANY = 100
_AHEAD = 16
"""Ticks that are looked at together after one that needed a closer look; the next will often need it too."""
FOUND = ("stale", "silent", "frozen", "out_of_range", "unit_jump", "spiking", "impossible", "spike", "gap")
"""What is counted: the first six as often as they begin, then impossible readings, spikes, and gaps in the ticks."""


@dataclass(frozen=True)
class QualityRules:
    """What may be configured.

    Attributes:
        stale_ticks, stale_seconds: how long a sensor or asset may be away, the longer of the two.
        ranges: lowest and highest possible reading by the sensor's name, engineering units.
    """

    stale_ticks: int = STALE_TICKS
    stale_seconds: float = STALE_SECONDS
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Passed:
    """What the gate lets through of L samples of each of B assets.

    Attributes:
        values: (B, L, F) evidence, engineering units; NaN where missing or not trusted.
        fed: (B, L, F) what the forecaster may see: beside the evidence, good readings of sensors that are coming back.
        dead: (B, L, F) of which sensors nothing counts; None where all readings are there and trusted, and each tick
            follows the one before.
        events: data-quality events, each with the place (b, l) of its sample.
    """

    values: Float32
    fed: Float32
    dead: Bool | None = None
    events: list[tuple[int, int, QualityEvent]] = field(default_factory=list)

    @property
    def ordinary(self) -> bool:
        """Return whether there was nothing to look at closely."""
        return self.dead is None


@dataclass(frozen=True, slots=True)
class _Glance:
    """The ordinary look at L samples of each of B assets, true up to each asset's first that needs another.

    Attributes:
        hold: (B, L, F) equal readings in a row; None is 1 of each.
        absent: (B, L, F) samples in a row that lack the sensor; None is 0 of each.
        odd: (B, L) which samples need a closer look.
    """

    hold: Int32 | None
    absent: Int32 | None
    odd: Bool

    def part(self, rows: Places, columns: slice) -> "_Glance":
        """Return the look at some assets in some columns."""
        hold = None if self.hold is None else self.hold[rows, columns]
        absent = None if self.absent is None else self.absent[rows, columns]
        return _Glance(hold, absent, self.odd[rows, columns])


@dataclass(frozen=True, slots=True)
class _Seen:
    """What readings look like, (B, F) each."""

    present: Bool
    spike: Bool
    """The reading before was one."""
    impossible: Bool
    converted: Bool
    """It speaks for the unit jump that is suspected or found."""
    alike: Bool
    """It says nothing of it."""
    frozen: Bool
    wild: Bool
    """It leaps out; masked from a sensor that was spiking before."""
    suspect: Bool
    """It may be a spike, and waits for the next reading."""


class SensorGate:
    """Judges samples of many assets; holds no state of assets itself.

    Args:
        manifest: of the bundle; what it does not know of a sensor is not judged.
        rules: what was configured.
        holds_back: whether a reading that leaps out waits for the one after it before it counts, see `spike`.

    Raises:
        ConfigurationError: a rule names a sensor that the bundle does not have.
    """

    def __init__(
        self, manifest: Manifest, rules: QualityRules | None = None, holds_back: bool = True
    ) -> None:
        rules = rules or QualityRules()
        self._holds_back = holds_back
        self.found: Counter[str] = Counter(dict.fromkeys(FOUND, 0))
        """What was found so far; see `FOUND`."""
        self._sensors, self._axis = manifest.sensors, manifest.axis
        scaling = manifest.scaling
        self._minimum = scaling.minimum.astype(np.float32)
        self._maximum = scaling.maximum.astype(np.float32)
        # Nobody measures a command: it may stay away, and stay where it is, for as long as it likes.
        exogenous = manifest.layout.is_exogenous
        unknown = scaling.constant | exogenous
        self._low, self._high = possible_range(scaling.minimum, scaling.maximum, unknown)
        configure_range(self._low, self._high, manifest.sensor_names, rules.ranges)
        self._silence = silence_limit(self._axis.interval, rules.stale_ticks, rules.stale_seconds)
        self._stale = stale_limits([one.longest_absence for one in self._sensors], self._silence)
        self._stale[exogenous] = np.iinfo(self._stale.dtype).max
        self._hold = hold_limits([one.longest_hold for one in self._sensors])
        self._hold_low = hold_limits([one.longest_hold_low for one in self._sensors])
        self._hold_high = hold_limits([one.longest_hold_high for one in self._sensors])
        self._odd_hold = np.minimum(self._hold, np.minimum(self._hold_low, self._hold_high))
        self._leap = leap_limits([one.largest_step for one in self._sensors])
        span = np.where(unknown, 0.0, scaling.maximum - scaling.minimum)
        self._spike = spike_limits([one.usual_spike for one in self._sensors], span)
        self._suspect = suspect_limits(self._spike, [one.largest_step for one in self._sensors])
        self._witnessed = witnessed(self._spike, np.asarray(span, np.float64))
        self._odd_step = np.minimum(self._leap, self._spike)
        self._units = UnitTable(
            [(one.unit, one.name) for one in self._sensors], scaling.minimum, scaling.maximum,
            [one.usual_step for one in self._sensors],
        )  # fmt: skip

    def check(self, state: QualityState, rows: Places, tick: Int64, values: Float32) -> Passed:
        """Judge L samples of each of B assets.

        Args:
            state: changed in place.
            rows: B assets, each named once.
            tick: (B, L), each later than the one before.
            values: (B, L, F) engineering units; NaN where missing.
        """
        glance = self._glance(state, rows, tick, values)
        if not np.count_nonzero(glance.odd):
            self._pass(state, rows, tick, values, glance)
            return Passed(values, values, None if glance.absent is None else np.zeros(values.shape, np.bool_))
        passed = Passed(values.copy(), values.copy(), np.zeros(values.shape, np.bool_))
        assets = np.arange(len(state.last_tick))[rows]
        odd: Bool = np.asarray(glance.odd.any(axis=1))
        plain = np.flatnonzero(~odd)
        if len(plain):
            calm = glance.part(plain, slice(None))
            self._pass(state, assets[plain], tick[plain], values[plain], calm)
        self._check_closely(state, assets, np.flatnonzero(odd), tick, values, passed)
        return passed

    def _check_closely(
        self, state: QualityState, assets: Int64, places: Int64, tick: Int64, values: Float32, passed: Passed
    ) -> None:
        """Judge the assets at some places among those of a call, tick by tick where any of them needs it."""
        rows, ticks, readings = assets[places], tick[places], values[places]
        at, ahead, count = 0, values.shape[1], values.shape[1]
        while at < count:
            part = slice(at, at + ahead)
            glance = self._glance(state, rows, ticks[:, part], readings[:, part])
            clear = _leading(np.asarray(~glance.odd.any(axis=0)))
            if clear:
                part, calm = slice(at, at + clear), glance.part(slice(None), slice(0, clear))
                self._pass(state, rows, ticks[:, part], readings[:, part], calm)
                at += clear
            if clear == glance.odd.shape[1]:
                ahead *= 2
                continue
            self._check_tick(
                state, rows, places, at, ticks[:, at], readings[:, at], glance.odd[:, clear], passed
            )
            at, ahead = at + 1, _AHEAD

    def _check_tick(
        self, state: QualityState, rows: Int64, places: Int64, column: int, tick: Int64, values: Float32, odd: Bool,
        passed: Passed,
    ) -> None:  # fmt: skip
        """Judge one sample of each asset, those that are `odd` closely, and fill in what passes."""
        if not odd.all():
            plain = slice(None) if not odd.any() else np.flatnonzero(~odd)
            one = values[plain, None]
            glance = self._glance(state, rows[plain], tick[plain, None], one)
            self._pass(state, rows[plain], tick[plain, None], one, glance)
        looked, dead, events = self._look(state, rows[odd], tick[odd], values[odd])
        assert passed.dead is not None
        passed.values[places[odd], column], passed.fed[places[odd], column] = looked
        passed.dead[places[odd], column] = dead
        place = dict(zip(rows.tolist(), places.tolist(), strict=True))
        passed.events.extend((place[event.asset], column, event) for event in events)

    def _glance(self, state: QualityState, rows: Places, tick: Int64, values: Float32) -> _Glance:
        """Look quickly: in range, no leap, no long hold or absence, no tick left out, nothing pending."""
        held = state.value[rows][:, None]
        step = values - (held if values.shape[1] == 1 else np.concatenate([held, values[:, :-1]], axis=1))
        hold = absent = None
        # A comparison with what is no number is never true, so that this one finds what is missing as well.
        ordinary = self._is_ordinary(values, step)
        if np.count_nonzero(ordinary) < ordinary.size and np.count_nonzero(missing := np.isnan(values)):
            absent = _absences(state.absent[rows], missing)
            step = values - _last_known(held, values, missing)
            ordinary = self._is_ordinary(values, step) | (missing & (absent <= self._stale))
        if absent is not None or np.count_nonzero(step) < step.size:
            hold = _holds(state.hold[rows], step == 0.0, None if absent is None else absent == 0)
            ordinary &= hold <= self._odd_hold
        odd = tick[:, :1] - state.last_tick[rows][:, None] != 1
        odd |= state.watched[rows][:, None]
        if tick.shape[1] > 1:
            odd = np.concatenate([odd, tick[:, 1:] - tick[:, :-1] != 1], axis=1)
        if np.count_nonzero(ordinary) < ordinary.size:
            odd |= ~ordinary.all(axis=2)
        return _Glance(hold, absent, odd)

    def _is_ordinary(self, values: Float32, step: Float32) -> Bool:
        """Return (B, L, F) which readings are in range and no leap from the one before."""
        ordinary = np.abs(step) <= self._odd_step
        ordinary &= values >= self._low
        ordinary &= values <= self._high
        return np.asarray(ordinary)

    def _pass(self, state: QualityState, rows: Places, tick: Int64, values: Float32, glance: _Glance) -> None:
        """Remember ordinary samples."""
        state.last_tick[rows] = tick[:, -1]
        state.hold[rows] = 1 if glance.hold is None else glance.hold[:, -1]
        if glance.absent is None:
            state.value[rows], state.absent[rows] = values[:, -1], 0
        else:
            held, missing = state.value[rows][:, None], np.isnan(values)
            state.value[rows] = _known(held, values, missing)[:, -1]
            state.absent[rows] = glance.absent[:, -1]

    def hear(self, state: QualityState, rows: Int64, now: float) -> None:
        """Note that readings of some assets arrived at `now`, on the clock that `advance` is called with."""
        if np.isfinite(now):
            state.heard[rows] = now

    def advance(self, state: QualityState, now: float) -> list[QualityEvent]:
        """Report the assets of which nothing was heard for too long."""
        quiet = now - state.heard > self._silence * self._axis.interval
        quiet &= ~state.silent & (state.last_tick != UNSET)
        return [self._fall_silent(state, asset) for asset in np.flatnonzero(quiet).tolist()]

    def _look(
        self, state: QualityState, rows: Int64, tick: Int64, values: Float32
    ) -> tuple[tuple[Float32, Float32], Bool, list[QualityEvent]]:
        """Judge one sample (B, F) of each asset with all checks; slower.

        Returns:
            Evidence and what is fed, which sensors are dead, events.
        """
        last = state.last_tick[rows]
        step = np.where(last == UNSET, 1, tick - last)
        long = (step > self._silence) & ~state.silent[rows]
        events = [self._fall_silent(state, asset) for asset in rows[long].tolist()]
        after = state.take(rows)
        reason, silent, told = after.reason, after.silent, after.told
        after.last_tick, after.silent = tick, np.zeros(len(rows), np.bool_)
        after.origin[step > 1] = np.nan
        self.found["gap"] += int((step > 1).sum())
        seen = self._read(after, tick, values)
        self._decide(after, tick, seen)
        after.masked = seen.wild & (after.reason == SPIKING) | seen.suspect
        after.watched = _needs_watching(after)
        state.put(rows, after)
        self._count(reason, after.reason, seen)
        events += [
            self._say(state, int(rows[at]), int(tick[at]), told[at], bool(silent[at]))
            for at in np.flatnonzero(_worth_saying(after, tick) | silent)
        ]
        untrue, dead = seen.impossible | seen.converted, is_dead(after.reason)
        untrue |= after.masked
        fed = np.where(untrue | (dead & (seen.frozen | seen.alike)), np.float32(np.nan), values)
        return (np.where(dead, np.float32(np.nan), fed), fed), dead, events

    def _read(self, after: QualityState, tick: Int64, values: Float32) -> _Seen:
        """Bring the readings into `after` and return what each looks like."""
        previous, present = after.value, np.isfinite(values)
        leap = present & (np.abs(values - previous) > self._leap)
        out = present & (np.abs(values - previous) > self._spike)
        spike = spikes(after.origin, values, out, self._spike)
        unknown = np.float32(np.nan)
        after.origin = np.where(present, np.where(out & ~spike, previous, unknown), after.origin)
        wild = leaps_out(previous, values, self._spike, after.masked) & ~spike
        far = leaps_out(previous, values, self._suspect, after.masked) & ~spike
        lasting = (after.masked & present & ~spike).any(axis=1) | (far.sum(axis=1) > 1)
        after.leapt = np.where(lasting, tick, after.leapt)
        suspect = waits(far, after.struck, after.leapt, tick) if self._holds_back else np.zeros_like(far)
        hold = follow_hold(after.hold, previous, values, present)
        limit = self._hold_limit(values)
        # Started anew where it may last for ever: a machine that stands is hardly ever looked at closely.
        after.hold = np.where((limit == NEVER) & (hold > self._odd_hold), 1, hold).astype(np.int32)
        after.absent = follow_absence(after.absent, present)
        converted, alike = self._follow_jumps(after, values, leap)
        spike &= ~converted & ~is_dead(after.reason)
        impossible = present & ~converted & ~((values >= self._low) & (values <= self._high))
        after.value = np.where(present, values, previous)
        return _Seen(
            present, spike, impossible, converted, alike, present & (after.hold > limit), wild, suspect
        )

    def _hold_limit(self, values: Float32) -> Int32:
        """Return (B, F) how many readings in a row may equal these: at and beyond an end of the range its own rule."""
        limit = np.where(values == self._minimum, self._hold_low, self._hold)
        limit = np.where(values == self._maximum, self._hold_high, limit)
        return np.where((values < self._minimum) | (values > self._maximum), NEVER, limit)

    def _follow_jumps(self, after: QualityState, values: Float32, leap: Bool) -> tuple[Bool, Bool]:
        """Follow unit jumps; returns (B, F) which readings speak for one, and which say nothing of one."""
        speaks, alike = np.zeros(values.shape, np.bool_), np.zeros(values.shape, np.bool_)
        if after.conversion.any():
            conversion, undecided = after.conversion.astype(np.int64), after.jumped < CONFIRMED_AFTER
            speaks, alike = self._units.judge(conversion, values)
            step = self._units.step_back(conversion, values - after.value)
            after.moved = np.where(speaks & undecided, after.moved + step, after.moved).astype(np.float32)
            after.jumped[speaks & undecided] += 1
            refuted = np.isfinite(values) & ~speaks & undecided
            refuted |= (
                (after.jumped == CONFIRMED_AFTER) & undecided & ~self._units.moves_as_usual(after.moved)
            )
            after.conversion[refuted], after.jumped[refuted] = 0, 0
            speaks &= ~refuted
        fresh = np.nonzero(leap & (after.conversion == 0) & ((after.reason == 0) | (after.reason == SPIKING)))
        if len(fresh[0]):
            found = self._units.find(fresh[1], after.value[fresh], values[fresh])
            after.conversion[fresh], after.jumped[fresh], after.moved[fresh] = found, found > 0, 0.0
            speaks[fresh] = found > 0
        return speaks, alike

    def _decide(self, after: QualityState, tick: Int64, seen: _Seen) -> None:
        """Find out which sensors are dead now, why, and since when."""
        stale = after.absent > self._stale
        bad = seen.impossible | seen.converted | seen.frozen
        good = np.where(seen.present & ~seen.alike, after.good + 1, after.good)
        after.good = np.where(bad | stale, 0, np.minimum(good, _MANY)).astype(np.int8)
        needed = np.where(after.reason == UNIT_JUMP, UNIT_RECOVERED_AFTER, RECOVERED_AFTER)
        recovered = after.good >= needed
        wild = np.where(recovered, 0, after.wild + seen.impossible)
        after.wild = np.minimum(wild, _MANY).astype(np.int8)
        after.struck = follow_spikes(after.struck, seen.spike, tick)
        spiking = is_spiking(after.struck, after.reason == SPIKING, tick)
        spiking &= self._witnessed & (~is_dead(after.reason) | recovered)
        cause, length = np.zeros(stale.shape, np.int8), np.zeros(stale.shape, np.int64)
        # The gravest last: what stands later in this list overrules.
        for code, found, lasted in (
            (SPIKING, spiking, tick[:, None] + 1 - after.struck[..., 0]),
            (FROZEN, seen.frozen, after.hold),
            (OUT_OF_RANGE, seen.impossible & (after.wild >= DEAD_AFTER), DEAD_AFTER),
            (UNIT_JUMP, seen.converted & (after.jumped >= CONFIRMED_AFTER), CONFIRMED_AFTER),
            (STALE, stale, after.absent),
        ):
            cause = np.where(found, code, cause)
            length = np.where(found, lasted, length)
        new = (cause > 0) & (cause != after.reason)
        after.since = np.where(new, tick[:, None] + 1 - length, after.since)
        after.reason = np.where(cause > 0, cause, np.where(recovered, 0, after.reason)).astype(np.int8)
        # The conversion itself is kept for the event; the next reading refutes it or brings the jump back.
        after.jumped = np.where(recovered, 0, after.jumped).astype(np.int8)

    def _count(self, before: Int8, after: Int8, seen: _Seen) -> None:
        self.found["spike"] += int(seen.spike.sum())
        self.found["impossible"] += int((seen.impossible & (before == 0)).sum())
        begun = after[(after != before) & (after > 0)]
        for code, reason in enumerate(SENSOR_REASONS, start=1):
            self.found[reason] += int((begun == code).sum())

    def _fall_silent(self, state: QualityState, asset: int) -> QualityEvent:
        state.silent[asset] = state.watched[asset] = True
        state.silent_since[asset] = state.last_tick[asset] + 1
        self.found[SILENT] += 1
        tick = int(state.last_tick[asset]) + self._silence
        return self._say(state, asset, tick, state.told[asset], False)

    def _say(self, state: QualityState, asset: int, tick: int, told: Int8, silent: bool) -> QualityEvent:
        """Return the event of a change from `told` (F,) and `silent` to what the state says now."""
        was = silent or bool(told.any())
        still = bool(state.silent[asset] or state.reason[asset].any())
        # Readings of an earlier time may come after the clock gave the asset up.
        tick = max(tick, int(state.said[asset]))
        if not was:
            state.begun[asset] = tick
        state.said[asset] = tick
        named = (state.reason[asset], bool(state.silent[asset])) if still else (told.copy(), silent)
        state.told[asset] = state.reason[asset]
        begun, time = self._axis.time_of(np.array([state.begun[asset], tick])).tolist()
        phase = ("update" if was else "start") if still else "end"
        return QualityEvent(phase, asset, time, begun, self._name(state, asset, *named))

    def _name(self, state: QualityState, asset: int, reason: Int8, silent: bool) -> tuple[SensorQuality, ...]:
        """Return what is wrong with the asset and with each of its dead sensors."""
        named = []
        if silent:
            since = self._time_of(state.silent_since[asset])
            named.append(SensorQuality(-1, None, "", SILENT, since, None))
        for sensor in np.flatnonzero(reason).tolist():
            conversion = None
            if reason[sensor] == UNIT_JUMP:
                conversion = self._units.conversions[sensor][int(state.conversion[asset, sensor]) - 1]
            value = float(state.value[asset, sensor])
            named.append(
                SensorQuality(
                    sensor,
                    self._sensors[sensor].name,
                    self._sensors[sensor].unit,
                    SENSOR_REASONS[int(reason[sensor]) - 1],
                    self._time_of(state.since[asset, sensor]),
                    value if np.isfinite(value) else None,
                    conversion,
                )
            )
        return tuple(named)

    def _time_of(self, tick: np.int64) -> float:
        return float(self._axis.time_of(np.asarray(tick)))


def _holds(hold: Int32, same: Bool, present: Bool | None) -> Int32:
    """Return (B, L, F) the equal readings in a row after each of L more.

    Args:
        hold: (B, F) before them.
        same: (B, L, F) whether each equals the one before.
        present: (B, L, F) which readings there are; what is missing ends no run. None is all.
    """
    if present is None:
        if same.shape[1] == 1:
            return np.asarray(hold[:, None] * same + 1, np.int32)
        present = np.ones(same.shape, np.bool_)
    count = np.cumsum(present, axis=1)
    begun = np.maximum.accumulate(np.where(present & ~same, count, 0), axis=1)
    return np.where(begun > 0, count - begun + 1, hold[:, None] + count).astype(np.int32)


def _absences(absent: Int32, missing: Bool) -> Int32:
    """Return (B, L, F) the samples in a row that lack each sensor after each of L more, `absent` (B, F) before them."""
    count = np.cumsum(missing, axis=1)
    before = np.maximum.accumulate(np.where(missing, -1, count), axis=1)
    return np.where(before >= 0, count - before, absent[:, None] + count).astype(np.int32)


def _last_known(held: Float32, values: Float32, missing: Bool) -> Float32:
    """Return (B, L, F) the last reading before each of L samples, `held` (B, 1, F) before the first."""
    return np.concatenate([held, _known(held, values[:, :-1], missing[:, :-1])], axis=1)


def _known(held: Float32, values: Float32, missing: Bool) -> Float32:
    """Return (B, L, F) the last reading up to each of L samples, `held` (B, 1, F) before the first."""
    readings = np.concatenate([held, values], axis=1)
    place = np.where(missing, 0, np.arange(1, values.shape[1] + 1)[:, None])
    return np.take_along_axis(readings, np.maximum.accumulate(place, axis=1), axis=1)


def _leading(flags: Bool) -> int:
    """Return how many of the first flags (L,) are set in a row."""
    return len(flags) if flags.all() else int(flags.argmin())


def _worth_saying(state: QualityState, tick: Int64) -> Bool:
    """Return (B,) whether what is dead is not what the last event said, and it is time to say so.

    The first that dies and the last that comes back are said at once. In between, sensors that die or come back within
    a few ticks share an update, and those that do so all the time have fewer and fewer.
    """
    changed = (state.reason != state.told).any(axis=1)
    first_or_last = ~(state.told > 0).any(axis=1) | ~(state.reason > 0).any(axis=1)
    patience = np.clip(state.said - state.begun, LEAST_UPDATE_TICKS, MOST_UPDATE_TICKS)
    return np.asarray(changed & (first_or_last | (tick - state.said >= patience)))


def _needs_watching(state: QualityState) -> Bool:
    """Return (B,) whether anything is pending, for which the ordinary look would not do."""
    pending = (state.reason | state.wild | state.conversion) > 0
    return np.asarray((pending | np.isfinite(state.origin)).any(axis=1))
