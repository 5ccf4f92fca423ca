"""The forecaster as a Keras model: a stacked LSTM, with or without what may stand around it, beside the highway.

Backend-neutral Keras 3. In this order: a causal convolution, LSTM layers each followed by a normalisation and a
dropout, self-attention, and the head; every part but the last may be left out. The head's weights start at zero, so
that an untrained model is exactly the ridge regression, and training can only be kept where it beats it.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_agent.contract.errors import ExportError
from edge_agent.contract.types import Bool, Float32
from trainer.backend import keras
from trainer.fast_lstm import FastLSTM
from trainer.layers import Highway, StateReadout
from trainer.model import EPSILON, ForecasterWeights, ModelSpec

_READERS = ("convolution", "lstm_0")
"""The layer that reads the inputs: the first of these that a model has. Its kernel is (…, I, outputs)."""
_BATCH_MOMENTUM = 0.9
"""An epoch is 32 batches by default: with Keras's 0.99 the moving averages would still be at their start after it."""


@dataclass(frozen=True, slots=True)
class Regularisation:
    """What keeps training from over-fitting; nothing of it is in an exported graph.

    Attributes:
        dropout: share of a layer's outputs dropped between layers.
        lstm_dropout: share of an LSTM layer's inputs dropped, the same at each step of a sequence.
        recurrent_dropout: the same of its recurrent inputs; cuDNN cannot compute it.
        kernel_l2, recurrent_l2: penalty on the squares of an LSTM layer's kernel and recurrent kernel.
    """

    dropout: float = 0.0
    lstm_dropout: float = 0.0
    recurrent_dropout: float = 0.0
    kernel_l2: float = 0.0
    recurrent_l2: float = 0.0


def build_model(
    spec: ModelSpec,
    highway: Float32,
    seed: int = 0,
    head_bias: Float32 | None = None,
    regularisation: Regularisation | None = None,
) -> Any:
    """Build the model that is trained: inputs (B, T, I) → raw outputs at each step (B, T, outputs).

    Args:
        spec: the shape.
        highway: (highway_rows, outputs) weights, from `fit_highway` and `Head.spread`.
        seed: of the initial weights and of dropout.
        head_bias: (outputs,) from `Head.initial_bias`; None is zero.
        regularisation: None is none.

    Returns:
        a functional `keras.Model`, equal to the highway until it is trained.
    """
    model = _assemble(spec, False, None, seed, "auto", regularisation or Regularisation())
    set_start(model, highway, np.zeros(spec.outputs, np.float32) if head_bias is None else head_bias)
    return model


def set_start(model: Any, highway: Float32, head_bias: Float32, still: Bool | None = None) -> None:
    """Give a model what it starts with.

    Args:
        model: from `build_model`.
        highway: (highway_rows, outputs).
        head_bias: (outputs,).
        still: (I,) inputs that are zero wherever it is trained. No gradient ever comes to their weights, so that these
            are zero too: random ones would throw every forecast about once the input moves. None is none.
    """
    if len(highway):
        model.get_layer("highway").set_weights([highway])
    head = model.get_layer("head")
    head.set_weights([head.get_weights()[0], head_bias])
    if still is not None and still.any():
        reader = next(layer for layer in model.layers if layer.name in _READERS)
        kernel, *others = reader.get_weights()
        reader.set_weights([np.where(still[:, None], np.zeros_like(kernel), kernel), *others])


def build_window_model(weights: ForecasterWeights, batch: int | None = None) -> Any:
    """Build the model that is exported: window (B, T, I) → forecast (B, H, F, P) from its last step.

    With the head `softmax` it has a second output, the state's probability (B, H, C).

    Args:
        weights: of the trained model.
        batch: a fixed batch size, or None for any.

    Raises:
        ExportError: weights of a layer are missing, which would then be random.
    """
    _check_complete(weights)
    # cuDNN's LSTM has neither an ONNX nor a TFLite counterpart.
    model = _assemble(weights.spec, True, batch, 0, False, Regularisation(), dtype="float32")
    for number, layer in enumerate(weights.layers):
        model.get_layer(f"lstm_{number}").set_weights(list(layer))
    for name, arrays in weights.others.items():
        model.get_layer(name).set_weights(list(arrays))
    model.get_layer("head").set_weights([weights.head_kernel, weights.head_bias])
    if weights.spec.highway:
        model.get_layer("highway").set_weights([weights.highway])
    return model


def _check_complete(weights: ForecasterWeights) -> None:
    spec = weights.spec
    wanted = {f"lstm_{number}" for number in range(len(spec.units))} | set(_other_layers(spec))
    given = {f"lstm_{number}" for number in range(len(weights.layers))} | set(weights.others)
    if missing := sorted(wanted - given):
        raise ExportError(f"the weights of {', '.join(missing)} are missing")


def _other_layers(spec: ModelSpec) -> list[str]:
    """Return the names of the layers with weights beside LSTM, head and highway."""
    norms = [f"norm_{number}" for number in range(len(spec.units))] if spec.normalisation != "none" else []
    return [
        *(["convolution"] if spec.convolution else []),
        *norms,
        *(["attention"] if spec.attention_heads else []),
    ]


def weights_of(model: Any, spec: ModelSpec) -> ForecasterWeights:
    """Return the weights of a model from `build_model` as arrays."""
    layers = tuple(
        tuple(model.get_layer(f"lstm_{number}").get_weights()) for number in range(len(spec.units))
    )
    others = {name: tuple(model.get_layer(name).get_weights()) for name in _other_layers(spec)}
    kernel, bias = model.get_layer("head").get_weights()
    nothing = np.zeros((0, spec.outputs), np.float32)
    highway = model.get_layer("highway").get_weights()[0] if spec.highway else nothing
    return ForecasterWeights(spec, layers, kernel, bias, highway, others)


def _assemble(
    spec: ModelSpec,
    last_only: bool,
    batch: int | None,
    seed: int,
    use_cudnn: bool | str,
    regularisation: Regularisation,
    dtype: str | None = None,
) -> Any:
    layers = keras.layers
    window = keras.Input(batch_shape=(batch, spec.window_length, spec.inputs), name="window", dtype="float32")
    hidden = window
    if spec.convolution:
        filters, size = spec.convolution
        hidden = layers.Conv1D(
            filters,
            size,
            padding="causal",
            activation="relu",
            kernel_initializer=keras.initializers.GlorotUniform(seed=seed + 10_000),
            name="convolution",
            dtype=dtype,
        )(hidden)
    # What is exported is Keras's own layer, whose graph the converters know.
    kind = layers.LSTM if last_only else FastLSTM
    for number, units in enumerate(spec.units):
        whole = not last_only or number < len(spec.units) - 1 or spec.attention_heads > 0
        hidden = kind(
            units,
            return_sequences=whole,
            kernel_initializer=keras.initializers.GlorotUniform(seed=seed + 2 * number),
            recurrent_initializer=keras.initializers.Orthogonal(seed=seed + 2 * number + 1),
            use_cudnn=use_cudnn,
            name=f"lstm_{number}",
            dtype=dtype,
            **_regularised(regularisation, seed + 20_000 + number),
        )(hidden)
        hidden = _normalised(spec, number, hidden, dtype)
        if regularisation.dropout:
            hidden = layers.Dropout(regularisation.dropout, seed=seed + 30_000 + number)(hidden)
    if spec.attention_heads:
        hidden = _attended(spec, hidden, last_only, seed + 40_000, dtype)
    # Sums of the head stay in float32 whatever the policy is: a forecast is held against readings of six digits.
    raw = layers.Dense(spec.outputs, kernel_initializer="zeros", name="head", dtype="float32")(hidden)
    if spec.highway:
        linear = Highway(
            spec.spans,
            spec.window_length,
            (spec.highway_rows, spec.outputs),
            spec.sensors,
            last_only,
            name="highway",
        )(window)
        raw = layers.Add(name="forecast", dtype="float32")([linear, raw])
    return keras.Model(window, _read_out(spec, raw) if last_only else raw)


def _regularised(regularisation: Regularisation, seed: int) -> dict[str, Any]:
    """Return the arguments of an LSTM layer; those of nothing are left out, as some rule cuDNN out."""
    wanted: dict[str, Any] = {"seed": seed}
    if regularisation.lstm_dropout:
        wanted["dropout"] = regularisation.lstm_dropout
    if regularisation.recurrent_dropout:
        wanted["recurrent_dropout"] = regularisation.recurrent_dropout
    if regularisation.kernel_l2:
        wanted["kernel_regularizer"] = keras.regularizers.L2(regularisation.kernel_l2)
    if regularisation.recurrent_l2:
        wanted["recurrent_regularizer"] = keras.regularizers.L2(regularisation.recurrent_l2)
    return wanted


def _normalised(spec: ModelSpec, number: int, hidden: Any, dtype: str | None) -> Any:
    name = f"norm_{number}"
    if spec.normalisation == "batch":
        return keras.layers.BatchNormalization(
            momentum=_BATCH_MOMENTUM, epsilon=EPSILON, name=name, dtype=dtype
        )(hidden)
    if spec.normalisation == "layer":
        return keras.layers.LayerNormalization(epsilon=EPSILON, name=name, dtype=dtype)(hidden)
    return hidden


def _attended(spec: ModelSpec, hidden: Any, last_only: bool, seed: int, dtype: str | None) -> Any:
    """Add what each step finds in itself and the steps before it; the last one alone needs no mask."""
    width = spec.units[-1]
    attention = keras.layers.MultiHeadAttention(
        spec.attention_heads,
        key_dim=max(1, width // spec.attention_heads),
        kernel_initializer=keras.initializers.GlorotUniform(seed=seed),
        name="attention",
        dtype=dtype,
    )
    asking = hidden[:, -1:, :] if last_only else hidden
    found = attention(asking, hidden, use_causal_mask=not last_only)
    joined = keras.layers.Add(name="attended", dtype=dtype)([asking, found])
    return joined[:, 0, :] if last_only else joined


def _read_out(spec: ModelSpec, raw: Any) -> Any:
    if spec.head.kind == "softmax":
        return StateReadout(spec.head, spec.sensors, spec.horizons, name="state_readout")(raw)
    shape = (spec.horizons, spec.sensors, spec.parameters)
    return keras.layers.Reshape(shape, name="shaped")(raw)
