"""Integrated gradients of a forecast (Sundararajan, Taly and Yan 2017, Axiomatic Attribution for Deep Networks).

`A_i = (x_i - b_i) ∫ ∂f/∂x_i (b + α (x - b)) dα`, with Gauss and Legendre's quadrature. They sum to `f(x) - f(b)`.

Keras has no gradient that all its backends share, but each can train: the gradient by an offset that starts at zero is
what one step of plain gradient descent makes of it. So this needs no TensorFlow and is exact to float32.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_agent.contract.types import Float32, Float64
from trainer.backend import keras
from trainer.model import ForecasterWeights
from trainer.network import build_window_model

POINTS = 32
"""Of the quadrature: exact for polynomials of degree 63."""


@dataclass(frozen=True)
class Attribution:
    """What a window's cells contribute to forecasts one tick ahead, scaled units.

    Attributes:
        cells: (K, T, I) of K forecasts.
        forecast: (K,) from the window.
        baseline: (K,) from the baseline.
    """

    cells: Float64
    forecast: Float64
    baseline: Float64

    @property
    def gap(self) -> Float64:
        """Return (K,) by how much the cells miss `forecast - baseline`."""
        return np.asarray(np.abs(self.cells.sum(axis=(1, 2)) - (self.forecast - self.baseline)))


class _Offset(keras.layers.Layer):  # type: ignore[misc]
    """Adds a weight of the same shape, which starts at zero."""

    def __init__(self, shape: tuple[int, ...], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.offset = self.add_weight(name="offset", shape=shape, initializer="zeros")

    def call(self, windows: Any) -> Any:
        """Return the windows with the offset."""
        return windows + self.offset


def integrated_gradients(
    weights: ForecasterWeights, window: Float32, baseline: Float32, sensors: Sequence[int]
) -> Attribution:
    """Attribute forecasts one tick ahead to the cells of a window.

    Args:
        weights: of the forecaster.
        window: (T, I) inputs.
        baseline: (T, I) inputs from which the path to the window begins.
        sensors: places of the sensors whose forecasts are attributed.
    """
    nodes, masses = np.polynomial.legendre.leggauss(POINTS)
    along = ((nodes + 1.0) / 2.0)[:, None, None]
    path = (baseline + along * (window - baseline)).astype(np.float32)
    forecaster = build_window_model(weights, batch=POINTS)
    asked, given = _model(forecaster, path.shape)
    cells = np.empty((len(sensors), *window.shape))
    for place, sensor in enumerate(sensors):
        gradient = _gradient(asked, given, path, sensor)
        cells[place] = (window - baseline) * np.tensordot(masses / 2.0, gradient, axes=1)
    ends = np.zeros_like(path)
    ends[0], ends[1] = window, baseline
    forecast = _point(forecaster(ends, training=False))[:2]
    return Attribution(cells, forecast[0, list(sensors)], forecast[1, list(sensors)])


def _model(forecaster: Any, shape: tuple[int, ...]) -> tuple[Any, Any]:
    """Return a model whose only weight is the offset, with the layer that holds it."""
    forecaster.trainable = False
    given = _Offset(shape, name="offset")
    window = keras.Input(batch_shape=shape)
    asked = keras.Model(window, _first(forecaster(given(window), training=False)))
    asked.compile(
        optimizer=keras.optimizers.SGD(1.0),
        loss=lambda chosen, forecast: keras.ops.sum(chosen * forecast),
        jit_compile=keras.backend.backend() == "jax",
    )
    return asked, given


def _gradient(asked: Any, given: Any, path: Float32, sensor: int) -> Float64:
    """Return (M, T, I) the gradient of one sensor's forecast at each point of the path."""
    chosen = np.zeros(asked.output_shape, np.float32)
    chosen[:, 0, sensor, 0] = 1.0
    given.offset.assign(keras.ops.zeros_like(given.offset))
    asked.train_on_batch(path, chosen)
    return -np.asarray(keras.ops.convert_to_numpy(given.offset), np.float64)


def _point(forecast: Any) -> Float64:
    """Return (B, F) the point forecast one tick ahead."""
    return np.asarray(keras.ops.convert_to_numpy(_first(forecast)), np.float64)[:, 0, :, 0]


def _first(outputs: Any) -> Any:
    return outputs[0] if isinstance(outputs, list | tuple) else outputs
