"""Layers of the model that Keras does not have: the highway, and what turns raw outputs into a forecast."""

from typing import TYPE_CHECKING, Any

import numpy as np

from trainer.backend import keras
from trainer.highway import ewma_matrix

if TYPE_CHECKING:
    from trainer.model import ModelSpec


class Highway(keras.layers.Layer):  # type: ignore[misc]
    """The ridge regression, with weights that training leaves alone; in float32 whatever the policy is.

    The EWMAs are one product with a constant matrix: (T, T) for every step, its last rows for the last step only.
    """

    def __init__(self, spec: "ModelSpec", last_only: bool, **kwargs: Any) -> None:
        super().__init__(dtype="float32", **kwargs)
        self._last_only = last_only
        first = spec.window_length - 1 if last_only else 0
        length = spec.window_length
        self._averages = [ewma_matrix(span, length)[first:].astype(np.float32) for span in spec.spans]
        shape = (spec.highway_rows, spec.outputs)
        self.weight = self.add_weight(name="weight", shape=shape, initializer="zeros", trainable=False)

    def call(self, values: Any) -> Any:
        """Return (B, T, outputs), or (B, outputs) for the last step only."""
        ops = keras.ops
        slow = [ops.matmul(ops.convert_to_tensor(matrix), values) for matrix in self._averages]
        now = values[:, -1:, :] if self._last_only else values
        regressors = ops.concatenate([now, *slow], axis=-1)
        if self._last_only:
            regressors = regressors[:, 0, :]
        return ops.matmul(regressors, self.weight[:-1]) + self.weight[-1]


class StateReadout(keras.layers.Layer):  # type: ignore[misc]
    """Raw outputs of the head `softmax` (B, H * (F + C)) → forecast (B, H, F, 1) and state probability (B, H, C)."""

    def __init__(self, spec: "ModelSpec", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._shape = (-1, spec.horizons, spec.sensors + len(spec.head.state_values))
        self._sensors = spec.sensors
        self._keep, self._values = state_constants(spec)

    def call(self, raw: Any) -> Any:
        """Return forecast and probability."""
        ops = keras.ops
        shaped = ops.reshape(raw, self._shape)
        probability = ops.softmax(shaped[..., self._sensors :], axis=-1)
        points = shaped[..., : self._sensors] * self._keep
        expected = ops.matmul(probability, ops.convert_to_tensor(self._values))
        return ops.expand_dims(points + expected, axis=-1), probability


def state_constants(spec: "ModelSpec") -> tuple[Any, Any]:
    """Return (F,) with 0 at the state's sensor and 1 elsewhere, and (C, F) with the state's values in its column."""
    keep = np.ones(spec.sensors, np.float32)
    keep[spec.head.state_sensor] = 0.0
    values = np.zeros((len(spec.head.state_values), spec.sensors), np.float32)
    values[:, spec.head.state_sensor] = spec.head.state_values
    return keep, values
