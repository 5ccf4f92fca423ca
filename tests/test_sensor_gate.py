"""Laws of the sensor gate: dead sensors are reported and masked, the others go on, however samples are fed."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.contract.errors import ConfigurationError
from edge_agent.contract.frozen import LEAST_LIMIT
from edge_agent.contract.quality_state import QualityState
from edge_agent.contract.sensor_gate import QualityRules, SensorGate
from edge_agent.contract.types import Float32
from tests.gated import Gated, manifest_of, run_gate

NAMES, UNITS = ("pressure", "temperature", "valve"), ("bar", "°C", "")
ROWS = 200
SILENCE = 60
FAULTS = ("hold", "lose", "wild", "psi", "spike", "jitter", "zero")


def _normal(rows: int, seed: int = 0) -> Float32:
    """Return (rows, 3) of a machine in order: bar and °C with noise, and a valve that is open or closed."""
    rng = np.random.default_rng(seed)
    values = np.c_[rng.normal(5.0, 0.1, rows), rng.normal(60.0, 0.5, rows), np.arange(rows) // 37 % 2]
    return np.asarray(values, np.float32)


MANIFEST = manifest_of(NAMES, UNITS, [_normal(5000, 1), _normal(5000, 2)])


def _gated(values: Float32, rules: QualityRules | None = None, **options: Any) -> Gated:
    table = values if values.ndim == 3 else values[:, None]
    return run_gate(SensorGate(MANIFEST, rules), table, **options)


def _spoil(values: Float32, fault: str, sensor: int, first: int, length: int) -> None:
    part = values[first : first + length, sensor]
    if fault == "hold":
        part[:] = values[first - 1, sensor]
    elif fault == "lose":
        part[:] = np.nan
    elif fault == "wild":
        part[:] = -9999.0
    elif fault == "psi":
        part *= np.float32(14.5038)
    elif fault == "spike":
        part[:1] += 5.0
    elif fault == "jitter":
        part[::2] = np.nan
    else:
        part[:] = 0.0


@st.composite
def _histories(draw: st.DrawFn) -> Float32:
    """Draw (150, 3, 3) of three assets, each with some faults of its sensors."""
    values = np.stack([_normal(150, draw(st.integers(0, 99))) for _ in range(3)], axis=1)
    for _ in range(draw(st.integers(0, 6))):
        _spoil(
            values[:, draw(st.integers(0, 2))],
            draw(st.sampled_from(FAULTS)),
            draw(st.integers(0, 2)),
            draw(st.integers(1, 149)),
            draw(st.integers(1, 90)),
        )
    return values


@settings(max_examples=60, deadline=None)
@given(values=_histories(), gap=st.integers(0, 100), place=st.integers(1, 149))
def test_together_equals_alone(values: Float32, gap: int, place: int) -> None:
    """An asset has alone the masks and the events that it has beside others."""
    ticks = np.arange(150) + gap * (np.arange(150) >= place)
    together = _gated(values, ticks=ticks)
    counts = dict.fromkeys(together.found, 0)
    for asset in range(3):
        alone = _gated(values[:, asset : asset + 1], ticks=ticks)
        np.testing.assert_array_equal(together.values[:, asset], alone.values[:, 0])
        np.testing.assert_array_equal(together.fed[:, asset], alone.fed[:, 0])
        assert together.facts(asset) == alone.facts()
        counts = {reason: counts[reason] + alone.found[reason] for reason in counts}
    assert together.found == counts


@settings(max_examples=60, deadline=None)
@given(values=_histories())
def test_the_quick_look_sees_what_the_long_one_does(values: Float32) -> None:
    """Looking at every sample with all checks changes no mask, no event and no count."""
    quick, long = _gated(values), _gated(values, watch=True)
    np.testing.assert_array_equal(quick.values, long.values)
    np.testing.assert_array_equal(quick.fed, long.fed)
    assert (quick.events, quick.found) == (long.events, long.found)


@settings(max_examples=60, deadline=None)
@given(values=_histories(), cut=st.integers(1, 149))
def test_what_comes_later_changes_nothing_before(values: Float32, cut: int) -> None:
    """The masks and events of a part are those that the whole begins with."""
    part, whole = _gated(values[:cut]), _gated(values)
    np.testing.assert_array_equal(part.values, whole.values[:cut])
    assert part.events == whole.events[: len(part.events)]
    assert all(event.time >= cut for event in whole.events[len(part.events) :])


@settings(max_examples=60, deadline=None)
@given(values=_histories())
def test_only_readings_are_masked_and_the_others_are_untouched(values: Float32) -> None:
    """What is not masked is what came in; a sensor that no event names loses nothing within the range ever seen."""
    result = _gated(values)
    kept = np.isfinite(result.values)
    np.testing.assert_array_equal(result.values[kept], values[kept])
    named = {(event.asset, one.sensor) for event in result.events for one in event.sensors}
    for asset in range(3):
        for sensor in range(3):
            lost = values[~kept[:, asset, sensor], asset, sensor]
            spec = MANIFEST.sensors[sensor]
            if (asset, sensor) not in named:
                assert not ((lost >= spec.minimum) & (lost <= spec.maximum)).any()


def test_normal_life_says_nothing() -> None:
    """A machine in order has its readings untouched, and nothing is found."""
    values = _normal(3000, 5)
    result = _gated(values)
    np.testing.assert_array_equal(result.values[:, 0], values)
    assert not result.events
    assert not any(result.found.values())


def _one_fault(fault: str, sensor: int, first: int = 100, length: int = 90) -> tuple[Float32, Gated]:
    values = _normal(2 * ROWS, 7)
    _spoil(values, fault, sensor, first, length)
    return values, _gated(values)


@pytest.mark.parametrize(
    ("fault", "reason", "known", "since", "back"),
    [
        ("hold", "frozen", 119, 99, 194),
        ("lose", "stale", 160, 100, 194),
        ("wild", "out_of_range", 102, 100, 194),
        ("psi", "unit_jump", 104, 100, 239),
    ],
)
def test_a_dead_sensor_is_reported_masked_and_comes_back(
    fault: str, reason: str, known: int, since: int, back: int
) -> None:
    """Each way to die has one start and one end, names sensor, reason and begin, and masks that sensor alone."""
    values, result = _one_fault(fault, 0)
    named = [("pressure", reason)]
    assert result.facts() == [("start", known, named), ("end", back, named)]
    assert result.events[0].sensors[0].since == since
    assert np.isnan(result.values[known:back, 0, 0]).all()
    np.testing.assert_array_equal(result.values[back:, 0, 0], values[back:, 0])
    np.testing.assert_array_equal(result.values[:, 0, 1:], values[:, 1:])
    assert result.found[reason] == 1


@pytest.mark.parametrize("fault", ["hold", "lose", "wild"])
def test_the_forecaster_sees_a_sensor_before_it_counts(fault: str) -> None:
    """The first four good readings of a sensor that comes back feed the forecaster and are no evidence."""
    values, result = _one_fault(fault, 0)
    assert np.isnan(result.values[190:194, 0, 0]).all()
    np.testing.assert_array_equal(result.fed[190:, 0, 0], values[190:, 0])
    assert np.isnan(result.fed[161:190, 0, 0]).all()


def test_a_unit_jump_names_the_conversion_and_no_reading_of_it_gets_through() -> None:
    """The event has name, factor and offset, and the readings before it was certain are masked too."""
    _, result = _one_fault("psi", 0)
    (one,) = result.events[0].sensors
    assert one.conversion is not None
    assert (one.conversion.name, round(one.conversion.factor, 3)) == ("bar to psi", 14.504)
    assert np.isnan(result.values[100:190, 0, 0]).all()


def test_a_step_that_only_looks_like_a_unit_jump_goes_on() -> None:
    """A machine that leaps to ten times its reading, with its noise unchanged, is unmasked by the fifth reading."""
    values = _normal(ROWS, 7)
    values[100:, 0] = values[99, 0] * 10 + np.random.default_rng(0).normal(0.0, 0.1, ROWS - 100)
    result = _gated(values)
    assert not result.events
    np.testing.assert_array_equal(result.values[104:, 0, 0], values[104:, 0])


def test_a_single_impossible_reading_is_masked_and_no_sensor_is_dead() -> None:
    """One word of the electronics is masked, counted, and no event."""
    values = _normal(ROWS, 7)
    values[100, 1] = -9999.0
    result = _gated(values)
    assert not result.events
    assert np.flatnonzero(np.isnan(result.values[:, 0]).any(axis=1)).tolist() == [100]
    assert (result.found["impossible"], result.found["spike"]) == (1, 1)


def test_a_single_spike_is_counted_and_not_scored() -> None:
    """A reading that leaps farther than any step of normal operation, alone, and returns at once says nothing."""
    values, result = _one_fault("spike", 1)
    assert result.found["spike"] == 1
    assert not result.events
    masked = np.argwhere(np.isnan(result.values[:, 0])).tolist()
    assert len(masked) == 1
    assert values[tuple(masked[0])] == np.nanmax(values[:, masked[0][1]])
    assert np.isnan(result.fed[masked[0][0], 0, masked[0][1]])


def test_a_step_waits_for_one_reading_and_the_next_does_not_wait() -> None:
    """Of a level that steps for good the first reading is masked; what leaps soon after counts at once."""
    values = _normal(ROWS, 7)
    values[100:, 0] += 3.0
    values[150, 0] += 3.0
    values[160, 1] += 20.0
    result = _gated(values)
    assert np.argwhere(np.isnan(result.values[:, 0])).tolist() == [[100, 0]]


def test_sensors_that_leap_together_do_not_wait() -> None:
    """Where two sensors leap at once it is the machine."""
    values = _normal(ROWS, 7)
    values[100, :2] += (3.0, 20.0)
    result = _gated(values)
    np.testing.assert_array_equal(result.values[:, 0], values)


def test_what_is_no_farther_than_steps_of_the_history_does_not_wait() -> None:
    """A reading that leaps as far as a machine of this kind does when it starts counts at once, spike or not."""
    history = _normal(5000, 1)
    history[2500:, 0] += 3.0
    manifest = manifest_of(NAMES, UNITS, [history])
    values = _normal(ROWS, 7)
    values[100, 0] += 4.0
    result = run_gate(SensorGate(manifest), values[:, None])
    assert result.found["spike"] == 1
    np.testing.assert_array_equal(result.values[:, 0], values)


def test_where_a_single_reading_may_open_an_alarm_none_waits() -> None:
    """Without holding back a spike counts as it comes."""
    values = _normal(ROWS, 7)
    values[100, 0] += 3.0
    result = run_gate(SensorGate(MANIFEST, holds_back=False), values[:, None])
    assert result.found["spike"] == 1
    np.testing.assert_array_equal(result.values[:, 0], values)


def test_a_sensor_that_holds_by_nature_never_freezes() -> None:
    """A binary sensor may stand for as long as it likes, also at a value between its two."""
    values = _normal(ROWS, 7)
    values[50:, 2] = 0.5
    assert not _gated(values).events


def test_rest_at_the_end_of_the_range_is_no_freeze() -> None:
    """A machine that stands for longer than ever, at or beyond the end of what was seen, is not reported."""
    values = _normal(ROWS, 7)
    values[50:, 0] = 0.0
    values[50:, 1] = MANIFEST.sensors[1].minimum
    assert not _gated(values).events


def test_who_never_stands_still_at_its_end_is_frozen_there() -> None:
    """Where the history shows what chance holds at an end of the range, a longer run there is reported, not beyond."""
    known = replace(MANIFEST.sensors[1], longest_hold_low=5)
    manifest = replace(MANIFEST, sensors=(MANIFEST.sensors[0], known, *MANIFEST.sensors[2:]))
    values = _normal(ROWS, 7)
    values[50:, 1] = known.minimum
    passed = run_gate(SensorGate(manifest), values[:, None])
    assert passed.facts()[0] == ("start", 50 + LEAST_LIMIT, [(known.name, "frozen")])
    values[50:, 1] = known.minimum - 0.01
    assert not run_gate(SensorGate(manifest), values[:, None]).events


def test_sensors_that_fail_at_once_are_one_event() -> None:
    """A cable with two sensors gives one start that names both; they leave one by one, and the last ends it."""
    values = _normal(ROWS, 7)
    values[100:120, :2] = -9999.0
    values[120:125, 1] = -9999.0
    both = [("pressure", "out_of_range"), ("temperature", "out_of_range")]
    assert _gated(values).facts() == [
        ("start", 102, both),
        ("update", 124, [both[1]]),
        ("end", 129, [both[1]]),
    ]


def test_a_reason_that_changes_is_an_update() -> None:
    """A sensor that first freezes and then falls silent stays dead and says why now."""
    values = _normal(300, 7)
    _spoil(values, "hold", 0, 50, 40)
    _spoil(values, "lose", 0, 90, 100)
    assert [fact[::2] for fact in _gated(values).facts()] == [
        ("start", [("pressure", "frozen")]),
        ("update", [("pressure", "stale")]),
        ("end", [("pressure", "stale")]),
    ]


def test_a_configured_range_is_the_limit() -> None:
    """What someone who knows the sensor gives is held, and a sensor unknown to the bundle is named at the start."""
    values = _normal(ROWS, 7)
    values[100:, 1] = 90.0 + values[100:, 0]
    assert not _gated(values).events
    rules = QualityRules(ranges={"temperature": (0.0, 80.0)})
    assert _gated(values, rules).facts() == [("start", 102, [("temperature", "out_of_range")])]
    with pytest.raises(ConfigurationError, match=r"quality\.ranges: flow"):
        SensorGate(MANIFEST, QualityRules(ranges={"flow": (0.0, 1.0)}))


def test_a_long_gap_is_the_silence_that_the_clock_would_have_reported() -> None:
    """The events of a gap in a file are those of a live asset of which nothing was heard: same times, same phases."""
    values, gap = _normal(20, 7), 100
    ticks = np.arange(20) + gap * (np.arange(20) >= 10)
    replayed = _gated(values, ticks=ticks)
    gate, state, asset = SensorGate(MANIFEST), QualityState.zero(1, 3), np.zeros(1, np.int64)
    live = []
    for row, tick in enumerate(ticks.tolist()):
        for now in range(int(ticks[row - 1]) if row else 0, tick):
            live += gate.advance(state, 5000.0 + now)
        gate.hear(state, asset, 5000.0 + tick)
        live += [
            event
            for _, _, event in gate.check(
                state, asset, np.array([[tick]]), values[None, row : row + 1]
            ).events
        ]
    silent: list[tuple[str | None, str]] = [(None, "silent")]
    assert replayed.facts() == [("start", 9 + SILENCE, silent), ("end", 110, silent)]
    assert live == replayed.events
    assert (replayed.found["silent"], replayed.found["gap"]) == (1, 1)
    assert replayed.events[0].sensors[0].since == 10


def test_a_short_gap_is_counted_and_no_event() -> None:
    """A few missing ticks are a gap, and nobody is called for it."""
    result = _gated(_normal(20, 7), ticks=np.arange(20) + 30 * (np.arange(20) >= 10))
    assert not result.events
    assert result.found["gap"] == 1


def test_readings_of_an_earlier_time_end_a_silence_not_before_it_began() -> None:
    """A gateway that delivers late what it kept gives an end that is not before its start."""
    gate, state, asset = SensorGate(MANIFEST), QualityState.zero(1, 3), np.zeros(1, np.int64)
    values = _normal(2, 7)
    gate.hear(state, asset, 0.0)
    gate.check(state, asset, np.array([[100]]), values[None, :1])
    (start,) = gate.advance(state, 1000.0)
    ((_, _, end),) = gate.check(state, asset, np.array([[101]]), values[None, 1:]).events
    assert (start.phase, end.phase) == ("start", "end")
    assert end.time >= start.time


def test_an_asset_that_was_never_heard_is_not_missed() -> None:
    """Replay has no clock, and before the first reading there is nothing to miss."""
    gate, state = SensorGate(MANIFEST), QualityState.zero(4, 3)
    assert gate.advance(state, 1e9) == []
    gate.check(state, np.zeros(1, np.int64), np.array([[5]]), _normal(1)[None])
    gate.hear(state, np.zeros(1, np.int64), np.inf)
    assert gate.advance(state, 1e9) == []


WIDE = tuple(f"s{number}" for number in range(8))


def _connector(rows: int, seed: int = 0) -> Float32:
    return np.asarray(np.random.default_rng(seed).normal(5.0, 0.1, (rows, 8)), np.float32)


WIDE_MANIFEST = manifest_of(WIDE, ("bar",) * 8, [_connector(5000, 1)])


def test_a_loose_connector_is_one_story() -> None:
    """Eight sensors that go within a few ticks and come back within a few are one episode of five events."""
    values = _connector(300)
    for sensor in range(8):
        values[100 + sensor : 200 + sensor, sensor] = np.nan
    values[:, 0] = np.where(np.arange(300) < 100, values[:, 0], np.nan)
    values[204:, 0] = 5.0 + 0.1 * np.sin(np.arange(96))
    found = run_gate(SensorGate(WIDE_MANIFEST, QualityRules(stale_seconds=10.0)), values[:, None]).facts()
    phases = [(phase, len(named)) for phase, _, named in found]
    assert [phase for phase, _ in phases] == ["start", "update", "update", "update", "end"]
    assert phases[:3] == [("start", 1), ("update", 6), ("update", 8)]
    assert found[0][1] == 110


def test_sensors_that_come_and_go_for_hours_do_not_storm() -> None:
    """Eight contacts that break and heal all the time are told in a tenth of the events, and the last word is right."""
    rows, rng = 3600, np.random.default_rng(3)
    values = _connector(rows)
    for sensor in range(8):
        for first in range(20 + int(rng.integers(0, 40)), rows - 120, 45):
            values[first : first + int(rng.integers(14, 35)), sensor] = np.nan
    gate = SensorGate(WIDE_MANIFEST, QualityRules(stale_seconds=10.0))
    found = run_gate(gate, values[:, None])
    facts = found.facts()
    assert gate.found["stale"] > 400
    assert 10 * len(facts) <= 2 * gate.found["stale"]
    assert facts[-1][0] == "end"
    assert not found.state.told.any()


def test_a_change_that_waits_is_told_however_samples_are_fed() -> None:
    """What an update left out comes with the next one, though nothing else happens in between."""
    values = _connector(300)
    values[100:, 0], values[102:, 1] = np.nan, np.nan
    found = run_gate(SensorGate(WIDE_MANIFEST, QualityRules(stale_seconds=10.0)), values[:, None])
    assert [(phase, time, len(named)) for phase, time, named in found.facts()] == [
        ("start", 110.0, 1),
        ("update", 115.0, 2),
    ]
