"""Laws of the contradiction: one sensor against all others."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.contract.contradiction import Contradiction, fit_contradiction
from edge_agent.contract.ewma import deviation
from edge_agent.contract.mahalanobis import Mahalanobis, shrunk_correlation
from edge_agent.contract.scoring import Scorer
from edge_agent.contract.scoring_model import NOTHING_USUAL
from edge_agent.contract.types import Bool, Float64, Samples
from tests.small_bundle import make_small_bundle, normal_values
from trainer.calibrate import CONTRADICTION_ROWS, CalibrationHistory, calibrate

WIDTH = 6
SPAN = 5
JUDGED: Bool = np.ones(WIDTH, np.bool_)


def _normal(count: int, seed: int) -> Float64:
    """Return rows (n, F) of sensors that follow one load, each with noise of its own, variance 1."""
    rng = np.random.default_rng(seed)
    return np.asarray(0.8 * rng.normal(size=(count, 1)) + 0.6 * rng.normal(size=(count, WIDTH)))


@pytest.fixture(scope="module")
def space() -> Mahalanobis:
    """Return the space of normal rows."""
    return Mahalanobis(shrunk_correlation(_normal(20_000, 1)))


@pytest.fixture(scope="module")
def contradiction(space: Mahalanobis) -> Contradiction:
    """Return what is learnt of normal rows."""
    rows = _normal(20_000, 1)
    present = np.ones(rows.shape, np.bool_)
    model = fit_contradiction(rows, present, space.correlation, JUDGED, SPAN)
    return Contradiction(model, space, SPAN)


def test_in_normal_operation_a_contradiction_is_one_of_a_standard_normal(space: Mahalanobis) -> None:
    """Where residuals are white and normal, what is usual is the 0.99 quantile of |N(0, 1)|."""
    rows = _normal(50_000, 2)
    model = fit_contradiction(rows, np.ones(rows.shape, np.bool_), space.correlation, JUDGED, SPAN)
    np.testing.assert_allclose(model.usual, 2.576, rtol=0.1)


def test_what_moves_all_sensors_is_no_contradiction(contradiction: Contradiction, space: Mahalanobis) -> None:
    """The same shift is far when one sensor has it alone, and near when all do; the distance tells less of the two."""
    alone, together = np.eye(WIDTH)[3:4], np.ones((1, WIDTH))
    far, near = (contradiction.largest(shift, None)[0] for shift in (alone, together))
    assert far > 4.0 * near
    assert int(contradiction.ratios(alone, None)[0].argmax()) == 3
    distances = [space.distance(shift[:, None], None)[0, 0] for shift in (alone, together)]
    assert far / near > distances[0] / distances[1]


def test_a_fault_of_one_sensor_is_not_diluted(contradiction: Contradiction, space: Mahalanobis) -> None:
    """Over its 0.99 quantile, a shift of one sensor stands higher in the contradiction than in the distance."""
    rows = float(deviation([SPAN])[0]) * _normal(20_000, 3)
    moved = rows + 2.0 * np.eye(WIDTH)[3]
    ratios = []
    for statistic in (contradiction.largest, lambda one, _: space.distance(one[:, None], None)[:, 0]):
        usual = np.quantile(statistic(rows, None), 0.99)
        ratios.append(np.median(statistic(moved, None)) / usual)
    assert ratios[0] > ratios[1]


@settings(max_examples=40, deadline=None)
@given(
    pattern=st.lists(st.booleans(), min_size=WIDTH, max_size=WIDTH),
    filler=st.sampled_from([0.0, -50.0, 1e6]),
    seed=st.integers(0, 99),
)
def test_a_missing_sensor_neither_contradicts_nor_is_contradicted(
    contradiction: Contradiction, pattern: list[bool], filler: float, seed: int
) -> None:
    """Whatever stands in missing cells, the others' contradictions are the same, and those of the missing are 0."""
    average = np.random.default_rng(seed).normal(size=(1, WIDTH))
    present = np.array([pattern])
    filled = np.where(present, average, filler)
    found, expected = (contradiction.ratios(one, present) for one in (filled, average))
    np.testing.assert_array_equal(found, expected)
    assert not found[~present].any()
    assert contradiction.largest(average, present)[0] == found.max()


@pytest.mark.parametrize(
    ("rows", "interval"),
    [(900, 1.0), (8000, 1.0), (16_000, 3600.0)],
    ids=["minutes", "under a week", "many weeks"],
)
def test_in_all_but_a_few_rows_contradictions_are_judged(tmp_path: Path, rows: int, interval: float) -> None:
    """Either statistic alone reaches the threshold, be it of a tail or a margin; a few hundred rows judge none."""
    bundle = make_small_bundle(tmp_path / "bundle")
    bundle = replace(bundle, manifest=replace(bundle.manifest, sampling_interval_seconds=interval))
    samples = Samples(np.zeros(rows, np.int64), np.arange(rows), normal_values(rows, 3))
    found = calibrate(bundle, CalibrationHistory(samples, np.arange(rows) >= rows // 2), 1.0)
    assert (found.threshold.tail is not None) == (interval > 1.0)
    assert bool(found.scoring.contradiction) == (rows // 2 >= CONTRADICTION_ROWS)
    if not found.scoring.contradiction:
        return
    assert found.threshold.tail or np.nanmax(found.statistic) < found.threshold.value
    for aspect in (0, 3):
        aspects = np.array([[0.1, np.nan, 0.0, 0.1]])
        assert Scorer(found.scoring).judged(aspects, NOTHING_USUAL)[0] < found.threshold.value
        aspects[0, aspect] = 100.0
        assert Scorer(found.scoring).judged(aspects, NOTHING_USUAL)[0] > found.threshold.value
