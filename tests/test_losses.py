"""Each loss is least at what its head is to say, and counts no cell that was not measured."""

from typing import Any

import numpy as np
import pytest

from edge_agent.contract.types import Float32, Float64
from trainer.heads import Head
from trainer.losses import build_loss
from trainer.model import ModelSpec

STATES = (-1.0, 0.0, 2.0)
WINDOW, SENSORS = 4, 2


def _spec(head: Head, horizons: int = 1) -> ModelSpec:
    return ModelSpec(SENSORS, WINDOW, (3,), horizons, head=head)


def _packed(targets: Float64, weights: Float64 | None = None) -> Float32:
    """Return targets (n, T, H * F) beside their weights."""
    weights = np.ones_like(targets) if weights is None else weights
    return np.concatenate([targets, weights], axis=-1).astype(np.float32)


def _loss(
    spec: ModelSpec, targets: Float64, raw: Any, points: str = "auto", weights: Float64 | None = None
) -> float:
    return float(build_loss(spec, points)(_packed(targets, weights), np.asarray(raw, np.float32)))


def _everywhere(numbers: list[float], count: int) -> Float64:
    """Return the same outputs for every step of `count` sub-sequences."""
    return np.broadcast_to(np.asarray(numbers), (count, WINDOW, len(numbers)))


def test_points_are_squared_or_by_huber() -> None:
    """Within one scaled unit both are the square, beyond it Huber grows by its slope there."""
    spec, targets = _spec(Head()), np.zeros((1, WINDOW, SENSORS))
    for error, square, huber in ((0.5, 0.25, 0.25), (1.0, 1.0, 1.0), (3.0, 9.0, 5.0)):
        raw = _everywhere([error, -error], 1)
        assert _loss(spec, targets, raw) == _loss(spec, targets, raw, "mse") == pytest.approx(square)
        assert _loss(spec, targets, raw, "huber") == pytest.approx(huber)


def test_the_likelihood_wants_mean_and_variance() -> None:
    """No other mean or variance has a smaller loss than those of the targets; there it is the entropy."""
    spec = _spec(Head("gaussian"))
    targets = np.random.default_rng(0).normal(1.0, 2.0, (500, WINDOW, SENSORS))
    mean, variance = targets.mean(axis=(0, 1)), targets.var(axis=(0, 1))
    best = [mean[0], np.log(variance[0]), mean[1], np.log(variance[1])]
    least = _loss(spec, targets, _everywhere(best, 500))
    assert least == pytest.approx(0.5 * (np.log(variance) + 1.0).mean(), rel=1e-4)
    for number in range(4):
        for by in (-0.2, 0.2):
            other = list(best)
            other[number] += by
            assert _loss(spec, targets, _everywhere(other, 500)) > least


def test_the_pinball_loss_wants_quantiles() -> None:
    """No other number has a smaller loss than the quantile of the targets, for each of them."""
    spec = _spec(Head("quantile", (0.5, 0.1, 0.9)))
    targets = np.random.default_rng(1).exponential(1.0, (500, WINDOW, SENSORS))
    best = np.quantile(targets.reshape(-1, SENSORS), [0.5, 0.1, 0.9], axis=0).T.ravel().tolist()
    least = _loss(spec, targets, _everywhere(best, 500))
    for number in range(6):
        for by in (-0.1, 0.1):
            other = list(best)
            other[number] += by
            assert _loss(spec, targets, _everywhere(other, 500)) > least


@pytest.mark.parametrize("horizons", [1, 2])
def test_the_cross_entropy_is_of_the_state_alone(horizons: int) -> None:
    """The state's cell costs minus the logarithm of its probability, the other sensors their squares."""
    spec = _spec(Head("softmax", state_sensor=1, state_values=STATES), horizons)
    # 1.9 was never seen: it counts as the nearest state.
    targets = np.tile([0.5, 1.9], (1, WINDOW, horizons))
    logits = np.array([0.3, -0.2, 1.0])
    raw = _everywhere([*([0.1, 77.0, *logits] * horizons)], 1)
    entropy = np.log(np.exp(logits).sum()) - logits[2]
    assert _loss(spec, targets, raw) == pytest.approx((entropy + 0.4**2) / 2, rel=1e-5)


@pytest.mark.parametrize(
    "head",
    [Head(), Head("gaussian"), Head("quantile", (0.5, 0.9)), Head("softmax", state_values=STATES)],
    ids=lambda head: head.kind,
)
def test_a_cell_that_was_not_measured_costs_nothing(head: Head) -> None:
    """Whatever is held in a missing cell, the loss is that of the others."""
    spec = _spec(head)
    rng = np.random.default_rng(2)
    targets, raw = rng.normal(size=(3, WINDOW, SENSORS)), rng.normal(size=(3, WINDOW, spec.outputs))
    weights = (rng.random(targets.shape) < 0.7).astype(np.float64)
    other = np.where(weights > 0, targets, 50.0)
    assert _loss(spec, targets, raw, weights=weights) == _loss(spec, other, raw, weights=weights)
    assert _loss(spec, targets, raw, weights=np.zeros_like(weights)) == 0.0
