"""Laws of signatures: one kind of alarm points one way, whatever its strength, and a change of it is told."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.contract.scoring_state import ScoringState
from edge_agent.contract.signature import GROWTH, ReportedState, changed, directions
from edge_agent.contract.types import AlarmEvent
from edge_agent.detector import Detector, load_detector
from tests.tiny_machine import TINY_BUNDLE, faulty_values, samples_of

ONE = np.array([0])


@pytest.fixture(scope="module")
def loaded() -> Detector:
    """A detector whose bundle and graphs the tests share."""
    return load_detector(TINY_BUNDLE)


def _start(loaded: Detector, sensor: int, seed: int) -> AlarmEvent:
    detector = Detector(loaded.bundle, loaded.forecaster)
    events = detector.process(samples_of(faulty_values(120, 60, 120, sensor, seed))).events
    return events[0]


def test_the_same_fault_points_the_same_way(loaded: Detector) -> None:
    """Signatures have length 1; those of faults of one sensor are nearer to each other than those of two sensors."""
    events = [
        (sensor, np.array(_start(loaded, sensor, seed).signature)) for sensor in (0, 1) for seed in (1, 2, 3)
    ]
    assert all(np.linalg.norm(vector) == pytest.approx(1.0) for _, vector in events)
    pairs = [(a == b, float(x @ y)) for (a, x), (b, y) in combinations(events, 2)]
    same = [cosine for together, cosine in pairs if together]
    other = [cosine for together, cosine in pairs if not together]
    assert min(same) > 0.7
    assert max(other) < 0.6


@settings(max_examples=25, deadline=None)
@given(st.floats(0.1, 10.0), st.integers(0, 1000))
def test_strength_does_not_turn_it(loaded: Detector, strength: float, seed: int) -> None:
    """Averages times any factor have the same direction."""
    rng = np.random.default_rng(seed)
    state = ScoringState.zero(1, loaded.bundle.scoring)
    state.level, state.residual = rng.normal(size=state.level.shape), rng.normal(size=state.level.shape)
    once = directions(loaded.scorer, state)
    state.level, state.residual = strength * state.level, strength * state.residual
    np.testing.assert_allclose(directions(loaded.scorer, state), once, atol=1e-9)


def test_nothing_has_no_direction(loaded: Detector) -> None:
    """Where nothing deviates the signature is zeros, not noise."""
    assert not directions(loaded.scorer, ScoringState.zero(2, loaded.bundle.scoring)).any()


def test_growth_and_turns_are_news_once() -> None:
    """An alarm half again as strong, or one that turned away, is news; the same again is not, nor is what is quiet."""
    reported = ReportedState.zero(1, 1)
    along, across = np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])
    yes, no = np.array([True]), np.array([False])

    def news(direction: np.ndarray, score: float, told: np.ndarray = no) -> bool:
        return bool(changed(reported, ONE, direction, np.array([score]), told)[0])

    news(along, 2.0, yes)
    assert not news(along, 2.0 * GROWTH)
    assert news(along, 2.0 * GROWTH + 0.1)
    assert not news(along, 2.0 * GROWTH + 0.1)
    assert not news(across, 0.9)
    assert news(across, 1.1)
    assert not news(across, 1.1)


def test_a_second_fault_in_an_alarm_is_told(loaded: Detector) -> None:
    """When another sensor fails while an alarm lasts, an update comes that blames it."""
    values = faulty_values(140, 60, 140, 0, 1)
    values[100:] = faulty_values(140, 60, 140, 2, 1)[100:]
    events = Detector(loaded.bundle, loaded.forecaster).process(samples_of(values)).events
    first = next(event for event in events if event.kind == "start")
    later = [event for event in events if event.kind == "update" and event.alarm_number == first.alarm_number]
    assert any(event.sensors[0].name == "flow" for event in later)
    assert first.sensors[0].name == "pressure"
