"""What the outputs mean, where they begin untrained, and which of them the detector takes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge_agent.contract.bundle import Bundle
from edge_agent.contract.types import Float32, Samples
from edge_agent.detector import open_detector
from edge_agent.forecaster import Forecaster
from tests.architectures import random_model
from tests.small_bundle import SENSORS, WINDOW, make_small_bundle, normal_values
from trainer.export import export_recurrent
from trainer.heads import Head
from trainer.model import ModelSpec
from trainer.network import weights_of

STATES = (-1.0, 0.0, 2.0)
HEADS = {
    "point": Head(),
    "gaussian": Head("gaussian"),
    "quantile": Head("quantile", (0.5, 0.05, 0.95)),
    "softmax": Head("softmax", state_sensor=0, state_values=STATES),
}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle of two sensors, whose step graph is going to be replaced."""
    return make_small_bundle(tmp_path_factory.mktemp("small") / "bundle")


@pytest.mark.parametrize("kind", HEADS)
def test_the_detector_takes_the_first_number_as_its_forecast(
    kind: str, small: Bundle, tmp_path: Path
) -> None:
    """Value, mean, median or expected state of the first horizon: that, in engineering units, is what is scored."""
    spec = ModelSpec(len(SENSORS), WINDOW, (4,), horizons=2, head=HEADS[kind])
    export_recurrent(weights_of(random_model(spec), spec), tmp_path)
    bundle = replace(
        small, directory=tmp_path, manifest=replace(small.manifest, state_size=spec.state_size, head=kind)
    )
    values = normal_values(WINDOW + 5, seed=3)
    rows = len(values)
    found = open_detector(bundle).process(Samples(np.zeros(rows, np.int64), np.arange(rows), values)).forecast
    forecaster, scaling = Forecaster(tmp_path, "step", spec.state_size), small.manifest.scaling
    state = np.zeros((1, spec.state_size), np.float32)
    for row in range(rows - 1):
        scaled = scaling.apply(values[row : row + 1])
        inputs = np.concatenate([scaled, np.zeros_like(scaled)], axis=1).astype(np.float32)
        forecast = forecaster.advance(inputs[:, None], state)[:, 0]
        assert forecast.shape == (1, 2, len(SENSORS), spec.parameters)
        if row + 1 >= WINDOW:
            np.testing.assert_allclose(found[row + 1], scaling.invert(forecast[0, :1, :, 0])[0], rtol=1e-5)


@pytest.mark.parametrize("kind", HEADS)
def test_the_highway_moves_locations_alone(kind: str) -> None:
    """Every location of an output follows the ridge regression; spreads and states do not."""
    points = np.random.default_rng(0).normal(size=(5, 2 * 3)).astype(np.float32)
    spread = HEADS[kind].spread(points, 3)
    assert spread.shape == (5, HEADS[kind].outputs(3, 2))
    by_point = points.reshape(5, 2, 3)
    if kind == "softmax":
        with_states = spread.reshape(5, 2, 6)
        np.testing.assert_array_equal(with_states[..., :3], by_point)
        assert not with_states[..., 3:].any()
        return
    by_output = spread.reshape(5, 2, 3, -1)
    for number in range(HEADS[kind].parameters):
        located = not (kind == "gaussian" and number == 1)
        np.testing.assert_array_equal(by_output[..., number], by_point * located)


def test_untrained_outputs_are_as_sure_as_the_ridge_regression_was() -> None:
    """Log-variances, quantiles and state shares begin at those of normally distributed residuals."""
    variance, shares = np.array([[4.0, 0.25]]), np.array([0.5, 0.25, 0.25])

    def begun(kind: str) -> Float32:
        return HEADS[kind].initial_bias(variance, shares)

    assert not begun("point").any()
    np.testing.assert_allclose(begun("gaussian"), [0, np.log(4.0), 0, np.log(0.25)], rtol=1e-6)
    np.testing.assert_allclose(
        begun("quantile"), np.outer([2.0, 0.5], [0, -1.6449, 1.6449]).ravel(), rtol=1e-4
    )
    np.testing.assert_allclose(np.exp(begun("softmax")[2:]), shares, rtol=1e-6)


def test_each_number_has_a_name() -> None:
    """The manifest names as many numbers as there are, the forecast first."""
    for head in HEADS.values():
        assert len(head.parameter_names) == head.parameters
    assert HEADS["quantile"].parameter_names == ("quantile 0.5", "quantile 0.05", "quantile 0.95")
