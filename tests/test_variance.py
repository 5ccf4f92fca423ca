"""Laws of the variance on both sides."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.contract.ewma import Smoother
from edge_agent.contract.types import Bool, Float64
from edge_agent.contract.variance import (
    LEAST_SQUARE,
    SPANS,
    VarianceModel,
    fit_variance,
    variance_statistic,
)

SENSORS = 3


def _noise(rows: int, seed: int) -> Float64:
    return np.random.default_rng(seed).standard_normal((rows, SENSORS))


def _everywhere(rows: Float64) -> Bool:
    return np.ones(rows.shape, np.bool_)


def _followed(model: VarianceModel, rows: Float64) -> Float64:
    """Return the statistics (n, V) of rows that one asset sends after each other."""
    before = np.ones((1, len(model.spans), SENSORS))
    square = Smoother(model.spans).follow(before, (rows * rows)[None])[0]
    return variance_statistic(model, square, np.ones(SENSORS, np.bool_))


def _model() -> VarianceModel:
    rows = _noise(3000, 1)
    return fit_variance(rows, _everywhere(rows), SPANS)


def test_both_a_noisier_and_a_quieter_sensor_raise_it() -> None:
    """Noise three times as large, and a third as large, both stand far out of what the same noise gives."""
    model, usual = _model(), _noise(400, 2)
    ordinary = float(np.quantile(_followed(model, usual)[100:], 0.99))
    for factor in (3.0, 1.0 / 3.0):
        changed = usual.copy()
        changed[:, 1] *= factor
        assert _followed(model, changed)[-1].max() > 1.5 * ordinary


def test_it_does_not_see_a_sensor_that_is_not_judged() -> None:
    """A sensor that is masked adds nothing, however wild it is."""
    model, square = _model(), np.ones((1, len(SPANS), SENSORS))
    wild = square.copy()
    wild[:, :, 0] = 1e6
    judged = np.array([[False, True, True]])
    assert np.array_equal(variance_statistic(model, square, judged), variance_statistic(model, wild, judged))


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 6), st.integers(0, 1000))
def test_assets_side_by_side_are_as_one_by_one(assets: int, seed: int) -> None:
    """The statistics of many assets in one call equal those of each alone, with sensors missing or not."""
    rng, model = np.random.default_rng(seed), _model()
    square = rng.random((assets, len(SPANS), SENSORS)) + 0.1
    judged = rng.random((assets, SENSORS)) < 0.8
    together = variance_statistic(model, square, judged)
    for one in range(assets):
        alone = variance_statistic(model, square[one : one + 1], judged[one])
        np.testing.assert_allclose(together[one : one + 1], alone, rtol=1e-12)


def test_a_sensor_that_never_moves_is_finite() -> None:
    """Residuals of zero are the smallest that is told apart, not minus infinity."""
    rows = np.zeros((200, SENSORS))
    model = fit_variance(rows, _everywhere(rows), SPANS)
    assert np.isfinite(_followed(model, rows)).all()
    assert (model.centre >= np.log(LEAST_SQUARE)).all()
