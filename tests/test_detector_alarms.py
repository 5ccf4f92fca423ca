"""Laws of the alarm rules in the detector: what they hold back or join, and that it is the same however fed."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_agent.contract.errors import ConfigurationError
from edge_agent.contract.types import AlarmEvent, Float32, Samples
from edge_agent.detector import Detector, load_detector
from edge_agent.detector_state import DetectorState
from edge_agent.pipeline import Pipeline
from edge_agent.replay import replay
from tests.test_replay import _history
from tests.tiny_machine import (
    SENSORS,
    START,
    TINY_BUNDLE,
    faulty_values,
    interleaved,
    normal_values,
    pick,
    samples_of,
)
from trainer.habits import sensor_habits

COUNT = 300
RULES: dict[str, dict[str, Any]] = {
    "as in the bundle": {},
    "no merging": {"merge_samples": 0},
    "cool-down": {"merge_samples": 0, "cool_down_samples": 60, "immediate_score": 50.0},
    "least deviation": {
        "sensors": {name: {"min_absolute": 1.3 if name == "pressure" else 50.0} for name in SENSORS}
    },
    "other side": {"sensors": {name: {"direction": "below"} for name in SENSORS}},
}


def _twice_faulty(seed: int = 2) -> Float32:
    """Return values with one fault that ends and, after a pause of thirty samples, goes on."""
    values = faulty_values(COUNT, 60, 120, seed=seed)
    values[150:200, 0] += np.float32(1.2)
    return values


def _found(name: str, values: Float32) -> tuple[list[AlarmEvent], Detector]:
    detector = load_detector(TINY_BUNDLE, alarms=RULES[name])
    return detector.process(samples_of(values)).events, detector


def _facts(events: list[AlarmEvent]) -> list[tuple[str, float, bool, str | None]]:
    return [(one.kind, one.time - START, one.reopened, one.end_reason) for one in events]


def test_a_fault_that_pauses_is_one_alarm() -> None:
    """Within the bundle's `merge_samples` of its end an alarm is reopened; its onset, start and number stay."""
    events, detector = _found("as in the bundle", _twice_faulty())
    assert _facts(events) == [
        ("start", 62, False, None),
        ("update", 64, False, None),
        ("end", 133, False, "cleared"),
        ("update", 150, True, None),
        ("update", 200, False, None),
        ("end", 219, False, "cleared"),
    ]
    assert {one.alarm_number for one in events} == {1}
    assert {(one.onset_time - START, one.start_time - START) for one in events} == {(60, 62)}
    assert [one.severity for one in events] == ["critical"] * 6
    assert detector.held_back.total() == 0


def test_without_merging_it_is_two() -> None:
    """With `merge_samples = 0` the second part is an alarm of its own, whose onset lies after the first one's end."""
    events, _ = _found("no merging", _twice_faulty())
    starts = [one for one in events if one.kind == "start"]
    assert [(one.alarm_number, one.onset_time - START) for one in starts] == [(1, 60), (2, 149)]


def test_a_cool_down_delays_and_is_counted() -> None:
    """During the cool-down nothing opens; what lasts longer opens after it, with its true onset."""
    events, detector = _found("cool-down", _twice_faulty())
    starts = [one for one in events if one.kind == "start"]
    assert [(one.time - START, one.onset_time - START) for one in starts] == [(62, 60), (133 + 61, 149)]
    assert detector.held_back == {"cool_down": 1, "minimum_deviation": 0}


def test_a_deviation_too_small_is_held_back_until_it_grows() -> None:
    """The alarm opens with the first sample that deviates enough by the numbers of its own event."""
    loose, _ = _found("as in the bundle", _twice_faulty())
    strict, detector = _found("least deviation", _twice_faulty())
    assert loose[0].time <= strict[0].time
    opener = strict[0].sensors[0]
    assert opener.actual is not None
    assert opener.expected is not None
    assert abs(opener.actual - opener.expected) >= 1.3
    # The first part is held back until it goes so far; the second never does.
    assert {one.time for one in loose if one.reopened}
    assert not [one for one in strict if one.reopened]
    assert detector.held_back == {"cool_down": 0, "minimum_deviation": 2}


def test_a_sensor_without_a_rule_opens_as_before() -> None:
    """A rule for a sensor that has nothing to do with it changes nothing."""
    detector = load_detector(TINY_BUNDLE, alarms={"sensors": {"flow": {"min_absolute": 1e9}}})
    assert _facts(detector.process(samples_of(_twice_faulty())).events) == _facts(
        _found("as in the bundle", _twice_faulty())[0]
    )


def test_without_rules_nothing_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The shares of the sensors are looked at for events alone, unless a sensor has a rule."""
    detector = load_detector(TINY_BUNDLE)
    asked: list[int] = []
    shares = detector.scorer.shares

    def counted(state: Any, present: Any) -> Any:
        asked.append(len(state.heard))
        return shares(state, present)

    monkeypatch.setattr(detector.scorer, "shares", counted)
    assert len(asked) == 0
    events = detector.process(samples_of(_twice_faulty())).events
    assert len(asked) == len(events)


def _fleet() -> Samples:
    return interleaved(
        [
            samples_of(_twice_faulty(), 0),
            samples_of(normal_values(COUNT, 1), 1),
            samples_of(_twice_faulty(5), 2),
        ]
    )


def _ordered(events: list[AlarmEvent]) -> list[tuple[Any, ...]]:
    facts = ("asset", "time", "kind", "alarm_number", "onset_time", "severity", "reopened", "end_reason")
    return sorted((tuple(getattr(one, fact) for fact in facts) for one in events), key=lambda one: one[:3])


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("size", [1, 50])
def test_batches_equal_one_by_one(name: str, size: int) -> None:
    """Whatever the rules, samples fed at once, one by one and across a restart give the same events and counts."""
    samples = _fleet()
    whole = load_detector(TINY_BUNDLE, alarms=RULES[name])
    expected = whole.process(samples).events
    parts = load_detector(TINY_BUNDLE, alarms=RULES[name])
    found: list[AlarmEvent] = []
    for at in range(0, len(samples), size):
        found += parts.process(pick(samples, slice(at, at + size))).events
        if at % 200 == 0:
            parts.state = DetectorState.from_bytes(parts.state.to_bytes(), parts.bundle)
    assert _ordered(found) == _ordered(expected)
    assert parts.held_back == whole.held_back


def test_replay_shows_a_reopened_alarm_as_one() -> None:
    """The record of a replayed alarm spans all its parts and says how often it was reopened and why it ended."""
    pipeline = Pipeline(load_detector(TINY_BUNDLE))
    values = _twice_faulty()
    columns = (np.zeros(COUNT, np.int64), START + np.arange(COUNT, dtype=np.float64), values)
    (alarm,) = replay(pipeline, _history(columns)).alarms
    record = alarm.record()
    assert (record["reopened"], record["end_reason"]) == (1, "cleared")
    assert record["duration_seconds"] == 219 - 62


@pytest.mark.parametrize(
    ("alarms", "said"),
    [
        ({"open_count": 9}, r"alarms\.open_window: must be at least open_count"),
        ({"sensors": {"speed": {}}}, r"alarms\.sensors\.speed: is not a sensor, known are pressure"),
    ],
)
def test_rules_that_do_not_fit_the_bundle_stop_the_start(alarms: dict[str, Any], said: str) -> None:
    """A rule for a sensor that there is not, or against the bundle's other rules, is one line and exit code 78."""
    with pytest.raises(ConfigurationError, match="^" + said) as caught:
        load_detector(Path(TINY_BUNDLE), alarms=alarms)
    assert caught.value.exit_code == 78


def _starts_with_habits(values: Float32, **rules: Any) -> list[float]:
    """Return when alarms start with a gate that knows 5000 readings of the tiny machine."""
    tiny = load_detector(TINY_BUNDLE)
    habits = sensor_habits([normal_values(5000, seed=5)])
    sensors = tuple(
        replace(sensor, **asdict(habit))
        for sensor, habit in zip(tiny.bundle.manifest.sensors, habits, strict=True)
    )
    bundle = replace(tiny.bundle, manifest=replace(tiny.bundle.manifest, sensors=sensors))
    detector = Detector(bundle, tiny.forecaster, alarm_rules=replace(tiny.alarm_rules, **rules))
    return [one.time - START for one in detector.process(samples_of(values)).events if one.kind == "start"]


@pytest.mark.parametrize("height", [5.0, 30.0, 200.0])
def test_a_single_reading_far_out_opens_no_alarm(height: float) -> None:
    """However far out, a spike of one sensor is a matter of data quality; a level that steps is seen a sample later."""
    values = normal_values(COUNT, seed=3)
    spiked, stepped = values.copy(), values.copy()
    spiked[[150, 250], 0] += np.float32(height)
    stepped[250:, 0] += np.float32(height)
    assert _starts_with_habits(spiked) == []
    assert _starts_with_habits(stepped) == [251.0]


def test_where_a_single_sample_opens_an_alarm_a_spike_does() -> None:
    """With `open_count = 1` a single reading is heeded as it comes."""
    values = normal_values(COUNT, seed=3)
    values[250, 0] += np.float32(30.0)
    assert _starts_with_habits(values, open_count=1, open_window=1) == [250.0]
