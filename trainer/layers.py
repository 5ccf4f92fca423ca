"""Layers of the model that Keras does not have: the highway, and what turns raw outputs into a forecast."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from trainer.backend import keras
from trainer.heads import Head
from trainer.highway import ewma_matrix


class Highway(keras.layers.Layer):  # type: ignore[misc]
    """The ridge regression, with weights that training leaves alone; in float32 whatever the policy is.

    The EWMAs are one product with a constant matrix: (T, T) for every step, its last rows for the last step only.

    Args:
        spans: of the EWMAs, ticks.
        length: T.
        shape: of its weights, regressors by outputs.
        sensors: F.
        last_only: whether only the last step is computed.
        **kwargs: of a layer.
    """

    def __init__(
        self,
        spans: Sequence[int],
        length: int,
        shape: tuple[int, int],
        sensors: int,
        last_only: bool,
        **kwargs: Any,
    ) -> None:
        super().__init__(dtype="float32", **kwargs)
        self._last_only = last_only
        self._sensors = sensors
        first = length - 1 if last_only else 0
        self._averages = [ewma_matrix(span, length)[first:].astype(np.float32) for span in spans]
        self.weight = self.add_weight(name="weight", shape=shape, initializer="zeros", trainable=False)

    def call(self, window: Any) -> Any:
        """Return (B, T, outputs), or (B, outputs) for the last step only, of inputs (B, T, 2 F + X)."""
        ops = keras.ops
        values = window[:, :, : self._sensors]
        slow = [ops.matmul(ops.convert_to_tensor(matrix), values) for matrix in self._averages]
        now = window[:, -1:, :] if self._last_only else window
        read = [now[:, :, : self._sensors], *slow]
        if window.shape[-1] > 2 * self._sensors:
            read.append(now[:, :, 2 * self._sensors :])
        regressors = ops.concatenate(read, axis=-1)
        if self._last_only:
            regressors = regressors[:, 0, :]
        return ops.matmul(regressors, self.weight[:-1]) + self.weight[-1]


class StateReadout(keras.layers.Layer):  # type: ignore[misc]
    """Raw outputs of the head `softmax` (B, H * (F + C)) → forecast (B, H, F, 1) and state probability (B, H, C)."""

    def __init__(self, head: Head, sensors: int, horizons: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._shape = (-1, horizons, sensors + len(head.state_values))
        self._sensors = sensors
        self._keep, self._values = head.state_constants(sensors)

    def call(self, raw: Any) -> Any:
        """Return forecast and probability."""
        ops = keras.ops
        shaped = ops.reshape(raw, self._shape)
        probability = ops.softmax(shaped[..., self._sensors :], axis=-1)
        points = shaped[..., : self._sensors] * self._keep
        expected = ops.matmul(probability, ops.convert_to_tensor(self._values))
        return ops.expand_dims(points + expected, axis=-1), probability
