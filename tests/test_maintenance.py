"""Laws of maintenance, reset and accepted baselines, on a real bundle."""

import numpy as np
import pytest

from edge_agent.contract.types import AlarmEvent, Float32, Outcomes, Samples
from edge_agent.detector import Detector, load_detector, open_detector
from tests.tiny_machine import START, TINY_BUNDLE, faulty_values, normal_values, samples_of

COUNT = 200
ONE = np.array([0])


@pytest.fixture(scope="module")
def loaded() -> Detector:
    """A detector whose bundle and graphs the tests share."""
    return load_detector(TINY_BUNDLE)


def _fresh(loaded: Detector) -> Detector:
    fresh = Detector(loaded.bundle, loaded.forecaster)
    fresh.ensure_assets(1)
    return fresh


def _maintained(loaded: Detector, since: float, until: float) -> Detector:
    detector = _fresh(loaded)
    detector.maintain(ONE, np.array([START + since]), np.array([START + until]))
    return detector


def _samples(values: Float32, first: int = 0) -> Samples:
    return samples_of(values, first=START + first)


def _facts(events: list[AlarmEvent]) -> list[tuple[str, float, str | None]]:
    return [(event.kind, event.time - START, event.end_reason) for event in events]


def test_nothing_is_raised_in_maintenance(loaded: Detector) -> None:
    """A fault in the time of a maintenance is scored above the threshold and raises nothing."""
    outcomes = _maintained(loaded, 50, 150).process(_samples(faulty_values(COUNT, 60, 140)))
    assert np.nanmax(outcomes.score[60:140]) > 1.0
    assert not outcomes.alarm.any()
    assert outcomes.events == []
    assert _fresh(loaded).process(_samples(faulty_values(COUNT, 60, 140))).events != []


def test_an_open_alarm_ends_with_its_first_sample(loaded: Detector) -> None:
    """An alarm from before ends at the first sample of the maintenance, and says why."""
    events = _facts(_maintained(loaded, 80, 150).process(_samples(faulty_values(COUNT, 60, 140))).events)
    assert events[0][0] == "start"
    assert events[-1] == ("end", 80, "maintenance")
    assert [kind for kind, _, _ in events].count("start") == 1


def test_a_fault_that_outlasts_it_is_raised(loaded: Detector) -> None:
    """Maintenance ends by itself: a fault that is still there afterwards opens an alarm, and not at once."""
    events = _facts(_maintained(loaded, 50, 100).process(_samples(faulty_values(COUNT, 60, 160))).events)
    assert events[0][0] == "start"
    assert 100 < events[0][1] < 130


@pytest.mark.parametrize("size", [1, 7, 64])
def test_chunks_equal_the_whole(loaded: Detector, size: int) -> None:
    """However samples are fed, a maintenance changes the same of them."""
    samples = _samples(faulty_values(COUNT, 60, 160))
    whole = _maintained(loaded, 80, 130).process(samples)
    detector = _maintained(loaded, 80, 130)
    parts = [
        detector.process(Samples(samples.asset[at], samples.tick[at], samples.values[at]))
        for at in (slice(first, first + size) for first in range(0, COUNT, size))
    ]
    np.testing.assert_allclose(_joined(parts, "score"), whole.score, atol=1e-6)
    np.testing.assert_array_equal(_joined(parts, "alarm"), whole.alarm)
    assert _facts([event for part in parts for event in part.events]) == _facts(whole.events)


def _joined(parts: list[Outcomes], name: str) -> Float32:
    return np.concatenate([getattr(part, name) for part in parts])


def test_nothing_is_learnt_in_maintenance(loaded: Detector) -> None:
    """The slow corrections of levels and forecasts stand still in maintenance, and the averages start over after it."""
    detector = _maintained(loaded, 0, 100)
    detector.process(_samples(normal_values(100)))
    assert not detector.state.scoring.bias.any()
    assert not detector.state.scoring.offset.any()
    detector.process(_samples(normal_values(1), 100))
    assert np.abs(detector.state.scoring.level[0, 0]).max() > 0
    alone = _fresh(loaded)
    alone.process(_samples(normal_values(100)))
    assert alone.state.scoring.bias.any()
    assert alone.state.scoring.offset.any()


def test_a_reset_asset_is_a_new_one(loaded: Detector) -> None:
    """After a reset an asset is scored as if it had never sent anything, and others are left alone."""
    detector = _fresh(loaded)
    detector.ensure_assets(2)
    faulty = _samples(faulty_values(100, 60, 100))
    detector.process(faulty)
    detector.process(samples_of(normal_values(100, 4), 1))
    other = detector.state.scoring.level[1].copy()
    assert detector.state.alarms.active[0]
    detector.reset(ONE)
    assert not detector.state.alarms.active[0]
    np.testing.assert_array_equal(detector.state.scoring.level[1], other)
    later = _samples(normal_values(90, 6), 300)
    np.testing.assert_allclose(detector.process(later).score, _fresh(loaded).process(later).score, atol=1e-6)


@pytest.mark.parametrize("seed", [3, 4])
def test_an_accepted_level_is_normal(loaded: Detector, seed: int) -> None:
    """A lasting shift that alarms throughout is mostly normal once it was accepted; the way back then alarms."""
    values = normal_values(800, seed)
    values[100:600, 1] += 7.5
    detector = _fresh(loaded)
    detector.process(_samples(values[:200]))
    before = Detector(loaded.bundle, loaded.forecaster)
    before.state = type(detector.state).from_bytes(detector.state.to_bytes(), loaded.bundle)
    detector.accept_as_normal(ONE)
    assert not detector.state.alarms.active[0]
    assert np.abs(detector.state.scoring.bias).max() > 3.0
    later = _samples(values[200:600], 200)
    assert before.process(later).alarm.all()
    after = detector.process(later)
    assert np.mean(after.score > 1.0) < 0.2
    assert after.alarm.mean() < 0.4
    assert detector.process(_samples(values[600:], 600)).alarm.any()


def test_state_round_trips_with_maintenance(loaded: Detector) -> None:
    """What is known of maintenance is part of the state's bytes."""
    detector = _maintained(loaded, 5, 10)
    detector.process(_samples(normal_values(8)))
    copy = open_detector(loaded.bundle)
    copy.state = type(detector.state).from_bytes(detector.state.to_bytes(), loaded.bundle)
    assert copy.state.maintenance.until[0] == START + 10
    assert copy.state.maintenance.last[0]
