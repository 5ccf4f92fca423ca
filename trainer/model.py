"""What a forecaster is: its shape, and its weights as arrays."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from edge_agent.contract.types import Float32
from trainer.heads import Head
from trainer.highway import SPANS

EPSILON = 1e-3
"""Of both normalisations; Keras's own default."""


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
