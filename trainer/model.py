"""The forecaster as a Keras model: a stacked LSTM beside the autoregressive highway.

Backend-neutral Keras 3. The head of the LSTM starts at zero, so an untrained model is exactly the ridge
regression, and training can only be kept where it beats it.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge_agent.contract.types import Float32
from trainer.backend import keras
from trainer.highway import SPANS, ewma_matrix


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """The shape of a forecaster.

    Attributes:
        sensors: F that are forecast; the inputs of a step are F scaled values, F mask cells (1.0 = missing), and X
            of the context.
        window_length: T, samples in a window and in a training sub-sequence.
        units: units of each LSTM layer, first to last.
        horizons: H, ticks ahead from 1 to H.
        parameters: P, numbers the head gives for each sensor and horizon; 1 is a point forecast.
        spans: EWMA spans of the highway, ticks.
        context: X, exogenous quantities and calendar inputs, which are read and not forecast.
    """

    sensors: int
    window_length: int
    units: tuple[int, ...] = (128, 64, 32)
    horizons: int = 1
    parameters: int = 1
    spans: tuple[int, ...] = SPANS
    context: int = 0

    @property
    def inputs(self) -> int:
        """Return I, the inputs of one step."""
        return 2 * self.sensors + self.context

    @property
    def outputs(self) -> int:
        """Return H * F * P, in that order."""
        return self.horizons * self.sensors * self.parameters

    @property
    def state_size(self) -> int:
        """Return S: h and c of each layer, then the EWMAs of each span."""
        return 2 * sum(self.units) + len(self.spans) * self.sensors

    @property
    def regressors(self) -> int:
        """Return the rows of the highway: values, their EWMAs, context, intercept."""
        return (1 + len(self.spans)) * self.sensors + self.context + 1


@dataclass(frozen=True, slots=True)
class ForecasterWeights:
    """Everything a trained forecaster is, as arrays.

    Attributes:
        spec: the shape.
        layers: of each LSTM layer kernel (in, 4u), recurrent kernel (u, 4u), bias (4u); gates i, f, c, o.
        head_kernel: (units of the last layer, H * F * P).
        head_bias: (H * F * P,).
        highway: ((1 + spans) * F + X + 1, H * F * P); the last row is the intercept.
    """

    spec: ModelSpec
    layers: tuple[tuple[Float32, Float32, Float32], ...]
    head_kernel: Float32
    head_bias: Float32
    highway: Float32

    def save(self, path: Path) -> None:
        """Write spec and arrays into one npz file."""
        arrays = {
            f"layer_{n}_{part}": array
            for n, layer in enumerate(self.layers)
            for part, array in enumerate(layer)
        }
        arrays |= {"head_kernel": self.head_kernel, "head_bias": self.head_bias, "highway": self.highway}
        with path.open("wb") as file:
            np.savez(file, allow_pickle=False, spec=np.array(json.dumps(asdict(self.spec))), **arrays)

    @staticmethod
    def load(path: Path) -> "ForecasterWeights":
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as file:
            fields = json.loads(str(file["spec"]))
            spec = ModelSpec(**{**fields, "units": tuple(fields["units"]), "spans": tuple(fields["spans"])})
            layers = tuple(
                (file[f"layer_{n}_0"], file[f"layer_{n}_1"], file[f"layer_{n}_2"])
                for n in range(len(spec.units))
            )
            return ForecasterWeights(spec, layers, file["head_kernel"], file["head_bias"], file["highway"])


class Highway(keras.layers.Layer):  # type: ignore[misc]
    """The ridge regression, with weights that training leaves alone.

    The EWMAs are one product with a constant matrix: (T, T) for every step, its last rows for the last step only.
    """

    def __init__(self, spec: ModelSpec, last_only: bool, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._last_only = last_only
        first = spec.window_length - 1 if last_only else 0
        length = spec.window_length
        self._averages = [ewma_matrix(span, length)[first:].astype(np.float32) for span in spec.spans]
        self._sensors, self._context = spec.sensors, spec.context
        shape = (spec.regressors, spec.outputs)
        self.weight = self.add_weight(name="weight", shape=shape, initializer="zeros", trainable=False)

    def call(self, window: Any) -> Any:
        """Return (B, T, H * F * P), or (B, H * F * P) for the last step only, of inputs (B, T, I)."""
        ops = keras.ops
        values = window[:, :, : self._sensors]
        slow = [ops.matmul(ops.convert_to_tensor(matrix), values) for matrix in self._averages]
        newest = window[:, -1:, :] if self._last_only else window
        read = [newest[:, :, : self._sensors], *slow]
        if self._context:
            read.append(newest[:, :, 2 * self._sensors :])
        regressors = ops.concatenate(read, axis=-1)
        if self._last_only:
            regressors = regressors[:, 0, :]
        return ops.matmul(regressors, self.weight[:-1]) + self.weight[-1]


def build_model(spec: ModelSpec, highway: Float32, seed: int = 0) -> Any:
    """Build the model that is trained: inputs (B, T, I) → forecasts at each step (B, T, H * F * P).

    Args:
        spec: the shape.
        highway: ((1 + spans) * F + X + 1, H * F * P) weights from `fit_highway`.
        seed: of the initial LSTM weights.

    Returns:
        a functional `keras.Model`, equal to the highway until it is trained.
    """
    model = _assemble(spec, last_only=False, batch=None, seed=seed, use_cudnn="auto")
    model.get_layer("highway").set_weights([highway])
    return model


def build_window_model(weights: ForecasterWeights, batch: int | None = None) -> Any:
    """Build the model that is exported: window (B, T, I) → forecast (B, H, F, P) from its last step.

    Args:
        weights: of the trained model.
        batch: a fixed batch size, or None for any.
    """
    # cuDNN's LSTM has neither an ONNX nor a TFLite counterpart.
    model = _assemble(weights.spec, last_only=True, batch=batch, seed=0, use_cudnn=False)
    for number, layer in enumerate(weights.layers):
        model.get_layer(f"lstm_{number}").set_weights(list(layer))
    model.get_layer("head").set_weights([weights.head_kernel, weights.head_bias])
    model.get_layer("highway").set_weights([weights.highway])
    return model


def weights_of(model: Any, spec: ModelSpec) -> ForecasterWeights:
    """Return the weights of a model from `build_model` as arrays."""
    layers = tuple(
        tuple(model.get_layer(f"lstm_{number}").get_weights()) for number in range(len(spec.units))
    )
    kernel, bias = model.get_layer("head").get_weights()
    (highway,) = model.get_layer("highway").get_weights()
    return ForecasterWeights(spec, layers, kernel, bias, highway)


def _assemble(spec: ModelSpec, last_only: bool, batch: int | None, seed: int, use_cudnn: bool | str) -> Any:
    layers = keras.layers
    window = keras.Input(batch_shape=(batch, spec.window_length, spec.inputs), name="window")
    hidden = window
    for number, units in enumerate(spec.units):
        hidden = layers.LSTM(
            units,
            return_sequences=not (last_only and number == len(spec.units) - 1),
            kernel_initializer=keras.initializers.GlorotUniform(seed=seed + 2 * number),
            recurrent_initializer=keras.initializers.Orthogonal(seed=seed + 2 * number + 1),
            use_cudnn=use_cudnn,
            name=f"lstm_{number}",
        )(hidden)
    learned = layers.Dense(spec.outputs, kernel_initializer="zeros", name="head")(hidden)
    linear = Highway(spec, last_only, name="highway")(window)
    forecast = layers.Add(name="forecast")([linear, learned])
    if last_only:
        forecast = layers.Reshape((spec.horizons, spec.sensors, spec.parameters), name="shaped")(forecast)
    return keras.Model(window, forecast)
