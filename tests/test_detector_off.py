"""Laws of a machine that is off: no score, no alarm, and nothing of it in calibration."""

import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from edge_agent.contract.bundle import Bundle, read_bundle
from edge_agent.contract.off_condition import OffCondition
from edge_agent.contract.types import AlarmEvent, Float32, Outcomes, Samples
from edge_agent.detector import Detector, open_detector
from edge_agent.detector_state import DetectorState
from edge_agent.events import BundleIdentity, EventWriter
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
from trainer.calibrate import CalibrationHistory, calibrate

COUNT = 240
SETTLE = 5
STILL = OffCondition("flow", "<", 20.0, SETTLE)
STOPS = ((40, 60), (90, 120))
SCHEMA = Path(__file__).parent.parent / "edge_agent" / "schemas" / "event.json"


def _bundle(condition: OffCondition | None) -> Bundle:
    bundle = read_bundle(TINY_BUNDLE)
    return replace(bundle, manifest=replace(bundle.manifest, off_condition=condition))


def _detector(mode: str = "step") -> Detector:
    return open_detector(_bundle(STILL), mode)


def _stopped(values: Float32, stops: tuple[tuple[int, int], ...] = STOPS) -> Float32:
    """Return the values with the machine standing still now and then: no flow, no pressure, and it cools down."""
    rng = np.random.default_rng(7)
    for first, last in stops:
        values[first:last] = np.array([1.0, 40.0, 0.0]) + 0.01 * rng.random((last - first, 3))
    return values


def _resting(count: int, stops: tuple[tuple[int, int], ...] = STOPS) -> list[int]:
    return sorted(row for first, last in stops for row in range(first, min(last + SETTLE, count)))


@pytest.fixture(params=["step", "window"])
def mode(request: pytest.FixtureRequest) -> str:
    """Return each mode of inference."""
    return str(request.param)


def test_off_and_settling_have_no_score(mode: str) -> None:
    """Samples of a stop and those that settle after it have no score and are marked as off; all others have one."""
    outcomes = _detector(mode).process(samples_of(_stopped(normal_values(COUNT, 1))))
    assert outcomes.off is not None
    assert np.flatnonzero(outcomes.off).tolist() == _resting(COUNT)
    unscored = np.flatnonzero(~np.isfinite(outcomes.score))
    assert unscored.tolist() == [*range(8), *_resting(COUNT)]
    assert outcomes.events == []
    assert not outcomes.quality


def test_without_a_condition_a_stop_is_news(mode: str) -> None:
    """The same stops are alarms for a bundle that does not know when the machine is off."""
    outcomes = open_detector(_bundle(None), mode).process(samples_of(_stopped(normal_values(COUNT, 1))))
    assert outcomes.off is None
    assert outcomes.events


def test_the_averages_begin_after_settling() -> None:
    """Nothing of a stop or a start is in the averages behind the score; the slow drift that was learnt is."""
    samples = samples_of(_stopped(normal_values(COUNT, 1), STOPS[:1]))
    detector = _detector()
    detector.process(pick(samples, slice(0, 40)))
    detector.state.scoring.bias[0] += 0.25
    detector.state.scoring.offset[0] += 0.5
    known = [getattr(detector.state.scoring, name)[0].copy() for name in ("bias", "offset", "lesson")]
    detector.process(pick(samples, slice(40, 60 + SETTLE)))
    scoring = detector.state.scoring
    assert not scoring.level[0].any()
    assert not scoring.residual[0].any()
    assert known[-1].any()
    for found, before in zip((scoring.bias[0], scoring.offset[0], scoring.lesson[0]), known, strict=True):
        np.testing.assert_array_equal(found, before)
    detector.process(pick(samples, slice(60 + SETTLE, 61 + SETTLE)))
    assert detector.state.scoring.level[0].any()


def _facts(events: list[AlarmEvent]) -> list[tuple[str, float, int, str | None]]:
    return [(one.kind, one.time - START, one.alarm_number, one.end_reason) for one in events]


def test_an_alarm_ends_when_the_machine_goes_off() -> None:
    """The end says so, names no score and no sensor, keeps the severity; what follows the start is a new alarm."""
    outcomes = _detector().process(samples_of(_stopped(faulty_values(COUNT, 20, 80, seed=2), STOPS[:1])))
    ends = [event for event in outcomes.events if event.kind == "end"]
    assert (ends[0].time - START, ends[0].end_reason, ends[0].sensors) == (40, "off", ())
    assert ends[0].severity == "critical"
    assert not outcomes.alarm[40 : 60 + SETTLE].any()
    starts = [event for event in outcomes.events if event.kind == "start"]
    assert [event.alarm_number for event in starts] == [1, 2]
    assert starts[1].onset_time - START >= 60 + SETTLE
    payload = EventWriter(BundleIdentity("tiny", "1", "ab")).write(ends[0], "a")
    jsonschema.validate(payload, json.loads(SCHEMA.read_text("utf-8")), jsonschema.Draft202012Validator)


def _fleet() -> Samples:
    return interleaved(
        [
            samples_of(_stopped(faulty_values(COUNT, 20, 80, seed=2)), 0),
            samples_of(normal_values(COUNT, 1), 1),
            samples_of(_stopped(faulty_values(COUNT, 70, 200, seed=4), ((30, 50), (76, 77), (150, 155))), 2),
        ]
    )


@pytest.mark.parametrize("size", [1, 50])
def test_batches_equal_one_by_one(mode: str, size: int) -> None:
    """Fed at once, one by one, in chunks and across restarts, stops give the same scores, marks and events."""
    samples = _fleet()
    expected = _detector(mode).process(samples)
    detector, parts = _detector(mode), list[Outcomes]()
    for at in range(0, len(samples), size):
        parts.append(detector.process(pick(samples, slice(at, at + size))))
        if at % 100 == 0:
            detector.state = DetectorState.from_bytes(detector.state.to_bytes(), detector.bundle)
    assert "off" in {event.end_reason for event in expected.events}
    score = np.concatenate([part.score for part in parts])
    np.testing.assert_allclose(score, expected.score, rtol=1e-6, atol=1e-6)
    marks = [part.off for part in parts if part.off is not None]
    np.testing.assert_array_equal(np.concatenate(marks), expected.off)
    np.testing.assert_array_equal(np.concatenate([part.alarm for part in parts]), expected.alarm)
    for asset in range(3):
        own = [event for part in parts for event in part.events if event.asset == asset]
        assert _facts(own) == _facts([event for event in expected.events if event.asset == asset])


def test_a_dead_speed_sensor_leaves_the_machine_as_it_was() -> None:
    """An impossible reading of the sensor that tells off from on does not switch the machine off."""
    values = normal_values(COUNT, 1)
    values[50:80, SENSORS.index("flow")] = -99999.0
    outcomes = _detector().process(samples_of(values))
    assert outcomes.off is not None
    assert not outcomes.off.any()
    assert np.isfinite(outcomes.score[50:80]).all()


def test_measuring_and_gating_leave_the_same_samples_out(mode: str) -> None:
    """Calibration sees neither values nor statistics of samples that the daemon would not score."""
    samples = samples_of(_stopped(normal_values(COUNT, 1)))
    outcomes = _detector(mode).process(samples)
    forecast, statistics = _detector(mode).measure(samples)
    scored = np.isfinite(outcomes.score)
    np.testing.assert_array_equal(np.isfinite(statistics[:, :-1]).all(axis=1), scored)
    np.testing.assert_array_equal(np.isfinite(forecast).all(axis=1), scored)
    passed = _detector(mode).gated(samples).values
    np.testing.assert_array_equal(np.isnan(passed).all(axis=1), outcomes.off)


def test_stops_teach_nothing() -> None:
    """Range, scales and threshold come from running rows: they are nearly those of a machine that never stops."""
    rows = 6000
    stops = tuple((first, first + 40) for first in range(300, rows, 400))
    steady = normal_values(rows, 3)
    found = {}
    for name, values, condition in (
        ("steady", steady, None),
        ("stops", _stopped(steady.copy(), stops), STILL),
        ("unaware", _stopped(steady.copy(), stops), None),
    ):
        history = CalibrationHistory(samples_of(values), np.arange(rows) >= rows // 2)
        found[name] = calibrate(_bundle(condition), history, 100_000.0)
    assert found["stops"].scored_rows == rows // 2 - len(_resting(rows, stops[7:]))
    np.testing.assert_allclose(found["stops"].scoring.low, found["steady"].scoring.low, atol=0.5)
    np.testing.assert_allclose(
        found["stops"].scoring.level_scale, found["steady"].scoring.level_scale, rtol=0.2
    )
    assert found["unaware"].scoring.low[0] < 2 * found["steady"].scoring.low[0]


@pytest.mark.parametrize(("strange", "trimmed"), [(6, False), (1, True)])
def test_what_every_stop_is_like_calibrates(strange: int, trimmed: bool) -> None:
    """How a machine runs down before each stop is part of its calibration; what happens once is left out of it."""
    rows = 6000
    stops = tuple((first, first + 40) for first in range(400, rows, 1000))
    values = _stopped(normal_values(rows, 3), stops)
    for first, _ in stops[-strange:]:
        values[first - 8 : first, 0] += np.linspace(0.5, 4.0, 8)
    history = CalibrationHistory(samples_of(values), np.arange(rows) >= rows // 2)
    found = calibrate(_bundle(STILL), history, 100_000.0)
    assert (found.trimmed_rows > 0) == trimmed
