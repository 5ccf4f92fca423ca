"""Laws of the decomposition of a score: every sum is exact, whatever decided."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.contract.bundle import Bundle, read_bundle
from edge_agent.contract.contradiction import ContradictionModel
from edge_agent.contract.fusion import Fusion
from edge_agent.contract.scoring import Scorer
from edge_agent.contract.types import Bool, Samples
from edge_agent.detector import open_detector
from tests.small_bundle import cycling_values, make_small_bundle
from tests.tiny_machine import START, TINY_BUNDLE, faulty_values, samples_of
from trainer.explain import Moment, moment_of
from trainer.score_parts import CONTRADICTION, RANGE, USUAL, sensor_squares


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    """The tiny machine's."""
    return read_bundle(TINY_BUNDLE)


def _samples(hidden: int | None = None) -> Samples:
    values = faulty_values(260, 200, 240, sensor=1)
    if hidden is not None:
        values[150:, hidden] = np.nan
    return samples_of(values)


@settings(max_examples=12, deadline=None)
@given(st.integers(20, 259), st.sampled_from([None, 0, 2]))
def test_the_parts_sum_to_the_logarithm_of_the_statistic(row: int, hidden: int | None) -> None:
    """In ordinary rows, in a fault and with a missing sensor, sources sum to the logarithm, and sensors to sources."""
    moment = moment_of(read_bundle(TINY_BUNDLE), _samples(hidden), "p1", START + row)
    _check(moment)


def _check(moment: Moment) -> None:
    parts = moment.parts
    assert parts.log_statistic == pytest.approx(np.log(moment.statistic), abs=1e-6)
    of_sensors = parts.of_sensors(len(moment.shares)).sum()
    of_none = sum(part.contribution for part in parts.parts if part.shares is None)
    assert of_sensors + of_none == pytest.approx(parts.log_statistic, abs=1e-6)
    for part in parts.parts:
        assert part.shares is None or part.shares.sum() == pytest.approx(1.0, abs=1e-6)


def _contradicting(bundle: Bundle, balance: float) -> Bundle:
    usual = np.full(3, 2.5)
    return replace(bundle, scoring=replace(bundle.scoring, contradiction=ContradictionModel(usual, balance)))


@given(st.lists(st.booleans(), min_size=3, max_size=3).filter(any))
@settings(max_examples=7, deadline=None)
def test_squares_of_sensors_sum_to_the_statistics_of_the_daemon(present: list[bool]) -> None:
    """Each sensor's parts sum to the square of each statistic that the scorer itself gives."""
    detector = open_detector(_contradicting(read_bundle(TINY_BUNDLE), 1.0))
    detector.process(_samples())
    state = detector.state.scoring.take(np.array([0]))
    mask: Bool = np.array(present)
    squares = sensor_squares(detector.bundle.scoring, state, mask)
    expected = Scorer(detector.bundle.scoring).statistics(state, mask[None])[0] ** 2
    np.testing.assert_allclose(squares.sum(axis=1), expected, rtol=1e-6, atol=1e-6)


def test_shapes_and_what_is_usual_have_their_part(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Where shapes recur and scores are held against what is usual of late, the sum is exact all the same."""
    values = cycling_values(2400)
    directory = tmp_path_factory.mktemp("cycle") / "bundle"
    bundle = make_small_bundle(directory, values, adaptation="trailing")
    later = cycling_values(800, seed=3)
    later[700:] = later[699]
    samples = Samples(np.zeros(800, np.int64), np.arange(800), later)
    sources: set[str] = set()
    for tick in (300, 650, 740, 799):
        moment = moment_of(bundle, samples, "p1", tick)
        _check(moment)
        sources |= {part.source for part in moment.parts.parts}
    assert {"shape", "what is usual of late"} <= sources


def test_a_maximum_belongs_to_one_source(bundle: Bundle) -> None:
    """With the maximum for the log-mean, the whole logarithm is that of the largest ratio."""
    largest = replace(
        bundle, scoring=replace(bundle.scoring, fusion=Fusion(rule="maximum", range_guard=False))
    )
    moment = moment_of(largest, _samples(), "p1", START + 220)
    assert len([part for part in moment.parts.parts if part.shares is not None]) == 1
    _check(moment)


def test_what_the_range_guard_decides_is_the_range_guards(bundle: Bundle) -> None:
    """A reading far beyond all that was seen is told as the range's, and belongs to its sensor."""
    values = faulty_values(260, 300, 301)
    quiet = replace(
        bundle, manifest=replace(bundle.manifest, threshold=replace(bundle.manifest.threshold, value=1e3))
    )
    values[200:, 2] = 400.0
    moment = moment_of(quiet, samples_of(values), "p1", START + 205)
    (part,) = moment.parts.parts
    assert part.source == RANGE
    assert part.shares is not None
    assert part.shares.tolist() == [0.0, 0.0, 1.0]
    _check(moment)


def test_what_a_contradiction_decides_is_the_contradicted_sensors(bundle: Bundle) -> None:
    """A score that the contradiction decides is told as its, over what is usual, and belongs to one sensor."""
    moment = moment_of(_contradicting(bundle, 50.0), _samples(), "p1", START + 203)
    decided, usual = moment.parts.parts
    assert (decided.source, usual.source) == (CONTRADICTION, USUAL)
    assert decided.shares is not None
    assert decided.shares.tolist() == [0.0, 1.0, 0.0]
    _check(moment)


def test_the_sensor_at_fault_adds_most(bundle: Bundle) -> None:
    """In the fault of one sensor, that sensor adds most to the logarithm."""
    moment = moment_of(bundle, _samples(), "p1", START + 220)
    assert int(moment.parts.of_sensors(3).argmax()) == 1
    assert moment.strongest[0] == 1
