"""Laws of the tail: how rare a value is."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from edge_agent.contract.tail import LEAST_RATE, LEAST_SHAPE, Tail, cluster_peaks, fit_pareto, fit_tail
from edge_agent.contract.types import Float64


def _tail(values: Float64, interval: float = 60.0, separation: int = 1) -> Tail:
    tail = fit_tail(values, interval, separation)
    assert tail is not None
    return tail


@pytest.mark.parametrize("shape", [0.05, 0.2, 0.5])
@pytest.mark.parametrize("scale", [0.01, 3.0])
def test_a_pareto_tail_is_found_again(shape: float, scale: float) -> None:
    """Shape and scale of simulated excesses come back, about as well as SciPy's maximum likelihood finds them."""
    excess = stats.genpareto.rvs(shape, scale=scale, size=4000, random_state=7)
    found_shape, found_scale = fit_pareto(excess)
    scipy_shape, _, scipy_scale = stats.genpareto.fit(excess, floc=0.0)
    assert found_shape == pytest.approx(scipy_shape, abs=0.02)
    assert found_scale == pytest.approx(scipy_scale, rel=0.03)
    assert found_shape == pytest.approx(shape, abs=0.08)


def test_a_bounded_tail_bends_as_far_as_the_data_shows() -> None:
    """A shape below 0 is found again; the rate of what was never exceeded falls as an exponential, not to nothing."""
    excess = stats.genpareto.rvs(-0.3, size=4000, random_state=3)
    shape, scale = fit_pareto(excess)
    assert shape == pytest.approx(-0.3, abs=0.05)
    assert scale == pytest.approx(1.0, rel=0.05)
    rows = 1.0 - stats.uniform.rvs(size=20_000, random_state=4) ** 0.3
    tail, weeks = _tail(rows), 20_000 * 60.0 / (7 * 86_400)
    assert tail.shape < -0.1
    assert tail.rate(np.array([tail.end]))[0] == pytest.approx(1.0 / weeks)
    beyond = np.log(tail.rate(tail.end + np.array([0.0, 0.1, 0.2, 10.0])))
    assert beyond[1] - beyond[0] == pytest.approx(beyond[2] - beyond[1])
    assert np.isfinite(beyond).all()


def test_the_least_shape_keeps_the_mean() -> None:
    """What bends more than can be estimated gets the least shape, with the mean that it has."""
    excess = stats.uniform.rvs(size=500, random_state=3)
    shape, scale = fit_pareto(excess)
    assert shape == LEAST_SHAPE
    assert scale / (1.0 - shape) == pytest.approx(excess.mean())


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), heavy=st.booleans(), separation=st.integers(1, 20))
def test_larger_values_are_never_less_rare(seed: int, heavy: bool, separation: int) -> None:
    """The rate falls or stays with the value, across the start of the tail too, and never reaches zero."""
    rng = np.random.default_rng(seed)
    values = rng.standard_t(3, 3000) ** 2 if heavy else np.abs(rng.normal(size=3000))
    tail = _tail(values, separation=separation)
    rates = tail.rate(np.linspace(-1.0, 200.0, 5000))
    assert (np.diff(rates) <= 1e-9 * rates[:-1]).all()
    assert rates.min() >= LEAST_RATE


@pytest.mark.parametrize("kind", ["heavy", "straight", "bounded"])
def test_value_at_inverts_rate(kind: str) -> None:
    """The value that is exceeded r times a week has the rate r, wherever the tail can say so."""
    rng = np.random.default_rng(1)
    draw = {"heavy": rng.standard_t(3, 20_000) ** 2, "straight": rng.exponential(size=20_000)}
    tail = _tail(draw.get(kind, 1.0 - rng.random(20_000) ** 0.3))
    assert {"heavy": tail.shape > 0.1, "straight": abs(tail.shape) < 0.2, "bounded": tail.shape < -0.1}[kind]
    for rate in (tail.rate_at_start, 1.0, 0.1, 1e-4):
        assert tail.rate(np.array([tail.value_at(rate)]))[0] == pytest.approx(rate, rel=1e-6)
    assert tail.value_at(10 * tail.rate_at_start) == tail.start


def test_rates_are_those_of_the_data() -> None:
    """Levels that the data passed often enough have the rate at which it did."""
    values = np.random.default_rng(2).normal(size=50_000)
    tail, weeks = _tail(values), 50_000 * 60.0 / (7 * 86_400)
    for level in (2.0, 3.0):
        counted = len(cluster_peaks(values, level, 1)) / weeks
        assert tail.rate(np.array([level]))[0] == pytest.approx(counted, rel=0.15)


def test_clusters_end_after_enough_quiet_samples() -> None:
    """Exceedances up to `separation` apart are one cluster, whose highest value counts."""
    values = np.array([0.0, 5, 0, 7, 0, 0, 0, 6, 0])
    assert cluster_peaks(values, 1.0, 2).tolist() == [7, 6]
    assert cluster_peaks(values, 1.0, 4).tolist() == [7]
    assert cluster_peaks(values, 1.0, 1).tolist() == [5, 7, 6]
    assert cluster_peaks(values, 10.0, 1).tolist() == []


def test_too_few_clusters_make_no_claim() -> None:
    """A short or a hardly moving history gives no tail at all."""
    assert fit_tail(np.random.default_rng(0).normal(size=200), 1.0, 1) is None
    assert fit_tail(np.ones(5000), 1.0, 1) is None
