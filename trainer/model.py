"""The forecaster as a Keras model: a stacked LSTM, with or without what may stand around it, beside the highway.

Backend-neutral Keras 3. In this order: a causal convolution, LSTM layers each followed by a normalisation and a
dropout, self-attention, and the head; every part but the last may be left out. The head's weights start at zero, so
that an untrained model is exactly the ridge regression, and training can only be kept where it beats it.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from edge_agent.contract.errors import ExportError
from edge_agent.contract.types import Float32
from trainer.backend import keras
from trainer.heads import Head
from trainer.highway import SPANS
from trainer.layers import Highway, StateReadout

EPSILON = 1e-3
"""Of both normalisations; Keras's own default."""
_BATCH_MOMENTUM = 0.9
"""An epoch is 32 batches by default: with Keras's 0.99 the moving averages would still be at their start after it."""


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """The shape of a forecaster.

    Attributes:
        sensors: F that are forecast; the inputs of a step are F scaled values, F mask cells (1.0 = missing), and X
            of the context.
        window_length: T, samples in a window and in a training sub-sequence.
        units: units of each LSTM layer, first to last.
        horizons: H, ticks ahead from 1 to H.
        spans: EWMA spans of the highway, ticks.
        highway: whether it takes part.
        convolution: filters and kernel size of a causal convolution before the LSTM; empty is none.
        attention_heads: heads of the self-attention after the LSTM; 0 is none.
        normalisation: after each LSTM layer, `none`, `batch` or `layer`.
        head: what the outputs mean.
        context: X, exogenous quantities and calendar inputs, which are read and not forecast.
    """

    sensors: int
    window_length: int
    units: tuple[int, ...] = (128, 64, 32)
    horizons: int = 1
    spans: tuple[int, ...] = SPANS
    highway: bool = True
    convolution: tuple[int, ...] = ()
    attention_heads: int = 0
    normalisation: str = "none"
    head: Head = field(default_factory=Head)
    context: int = 0

    @property
    def inputs(self) -> int:
        """Return I, the inputs of one step."""
        return 2 * self.sensors + self.context

    @property
    def parameters(self) -> int:
        """Return P, numbers that a forecast has for each sensor and horizon."""
        return self.head.parameters

    @property
    def outputs(self) -> int:
        """Return how many numbers the network gives, see `Head.outputs`."""
        return self.head.outputs(self.sensors, self.horizons)

    @property
    def highway_rows(self) -> int:
        """Return the rows of the highway: values, their EWMAs, context, intercept; 0 where it takes no part."""
        return (1 + len(self.spans)) * self.sensors + self.context + 1 if self.highway else 0

    @property
    def cell_sizes(self) -> tuple[int, ...]:
        """Return the widths of h and c of each layer, first to last."""
        return tuple(size for units in self.units for size in (units, units))

    @property
    def state_parts(self) -> tuple[int, ...]:
        """Return the widths that the packed state is made of: h and c of each layer, EWMAs, the last inputs."""
        averages = [self.sensors] * len(self.spans) if self.highway else []
        ring = [(self.convolution[1] - 1) * self.inputs] if self.convolution else []
        return (*self.cell_sizes, *averages, *(size for size in ring if size))

    @property
    def state_size(self) -> int:
        """Return S; 1, which nothing reads, where only windows can be run."""
        return sum(self.state_parts) if self.has_step_form else 1

    @property
    def has_step_form(self) -> bool:
        """Return whether one step can be computed from the last one's state: attention looks at the whole window."""
        return not self.attention_heads

    @property
    def ridge(self) -> "ModelSpec":
        """Return the shape of the ridge regression alone, which forecasts one value of each sensor."""
        return ModelSpec(
            self.sensors, self.window_length, (), self.horizons, self.spans, context=self.context
        )

    def record(self) -> dict[str, Any]:
        """Return the architecture for the manifest."""
        return {
            "kind": "+".join(
                [
                    *(["convolution"] if self.convolution else []),
                    *(["lstm"] if self.units else []),
                    *(["attention"] if self.attention_heads else []),
                    *(["highway"] if self.highway else []),
                ]
            ),
            "units": list(self.units),
            "highway_spans": list(self.spans) if self.highway else [],
            "convolution": list(self.convolution),
            "attention_heads": self.attention_heads,
            "normalisation": self.normalisation,
            "parameters": list(self.head.parameter_names),
            "step_form": self.has_step_form,
        }


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


@dataclass(frozen=True, slots=True)
class ForecasterWeights:
    """Everything a trained forecaster is, as arrays.

    Attributes:
        spec: the shape.
        layers: of each LSTM layer kernel (in, 4u), recurrent kernel (u, 4u), bias (4u); gates i, f, c, o.
        head_kernel: (units of the last layer, outputs).
        head_bias: (outputs,).
        highway: (highway_rows, outputs); the last row is the intercept.
        others: of the other layers, by their names in the model, in the order of Keras: `convolution`, `attention`
            and `norm_0`, `norm_1`, ….
    """

    spec: ModelSpec
    layers: tuple[tuple[Float32, Float32, Float32], ...]
    head_kernel: Float32
    head_bias: Float32
    highway: Float32
    others: Mapping[str, tuple[Float32, ...]] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        """Return the size of all arrays."""
        arrays = [array for layer in (*self.layers, *self.others.values()) for array in layer]
        return sum(array.nbytes for array in (*arrays, self.head_kernel, self.head_bias, self.highway))

    def save(self, path: Path) -> None:
        """Write spec and arrays into one npz file."""
        named = {f"layer_{n}": layer for n, layer in enumerate(self.layers)} | dict(self.others)
        arrays = {
            f"{name}.{part}": array for name, layer in named.items() for part, array in enumerate(layer)
        }
        arrays |= {"head_kernel": self.head_kernel, "head_bias": self.head_bias, "highway": self.highway}
        with path.open("wb") as file:
            np.savez(file, allow_pickle=False, spec=np.array(json.dumps(asdict(self.spec))), **arrays)

    @staticmethod
    def load(path: Path) -> "ForecasterWeights":
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as file:
            fields = {key: _tuples(value) for key, value in json.loads(str(file["spec"])).items()}
            head = Head(**{key: _tuples(value) for key, value in fields["head"].items()})
            spec = ModelSpec(**fields | {"head": head})
            named: dict[str, list[Float32]] = {}
            # An archive keeps its order, and so that of the arrays of a layer.
            for entry in file.files:
                if "." in entry:
                    named.setdefault(entry.partition(".")[0], []).append(file[entry])
            layers = tuple(tuple(named.pop(f"layer_{number}")) for number in range(len(spec.units)))
            others = {name: tuple(arrays) for name, arrays in named.items()}
            head_kernel, head_bias, highway = file["head_kernel"], file["head_bias"], file["highway"]
        return ForecasterWeights(spec, layers, head_kernel, head_bias, highway, others)  # type: ignore[arg-type]  # three each


def _tuples(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def without_batch_normalisation(weights: ForecasterWeights) -> ForecasterWeights:
    """Return the same forecaster with each batch normalisation folded into the layer above it.

    In use it is y = a h + b, and y W = h (a W) + b W. The layer above must be an LSTM or the head.
    """
    spec = weights.spec
    if spec.normalisation != "batch":
        return weights
    layers = list(weights.layers)
    head_kernel, head_bias = weights.head_kernel, weights.head_bias
    for number in range(len(spec.units)):
        gamma, beta, mean, variance = weights.others[f"norm_{number}"]
        scale = gamma / np.sqrt(variance + np.float32(EPSILON))
        shift = beta - mean * scale
        if number + 1 < len(layers):
            kernel, recurrent, bias = layers[number + 1]
            layers[number + 1] = (scale[:, None] * kernel, recurrent, bias + shift @ kernel)
        else:
            head_kernel, head_bias = scale[:, None] * head_kernel, head_bias + shift @ head_kernel
    others = {name: arrays for name, arrays in weights.others.items() if not name.startswith("norm_")}
    plain = replace(spec, normalisation="none")
    return ForecasterWeights(plain, tuple(layers), head_kernel, head_bias, weights.highway, others)


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


def set_start(model: Any, highway: Float32, head_bias: Float32) -> None:
    """Give a model the highway (highway_rows, outputs) and the bias of the head (outputs,) that it starts with."""
    if len(highway):
        model.get_layer("highway").set_weights([highway])
    head = model.get_layer("head")
    head.set_weights([head.get_weights()[0], head_bias])


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
    for number, units in enumerate(spec.units):
        whole = not last_only or number < len(spec.units) - 1 or spec.attention_heads > 0
        hidden = layers.LSTM(
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
