"""One step of the forecaster, written once: `trainer.step_onnx` makes ONNX of it, `trainer.step_keras` TFLite.

The packed state is h and c of each LSTM layer, first to last, the EWMA of each span, and the last inputs of the
convolution, oldest first; zeros are its beginning.
"""

from collections.abc import Sequence
from typing import Protocol, TypeVar

import numpy as np

from edge_agent.contract.errors import ExportError
from edge_agent.contract.types import Float32
from trainer.highway import ewma_gain
from trainer.model import ForecasterWeights, ModelSpec, without_batch_normalisation

Tensor = TypeVar("Tensor")


class StepOps(Protocol[Tensor]):
    """What a step is computed with; every tensor is (B, something)."""

    def split(self, tensor: Tensor, sizes: Sequence[int]) -> list[Tensor]:
        """Return parts of these widths."""

    def concat(self, tensors: Sequence[Tensor]) -> Tensor:
        """Return the tensors side by side."""

    def affine(self, tensor: Tensor, kernel: Float32, bias: Float32, name: str) -> Tensor:
        """Return tensor @ kernel + bias; the name marks what may be quantised."""

    def gates(self, tensor: Tensor, kernel: Float32, bias: Float32, name: str) -> list[Tensor]:
        """Return the four parts of equal width of tensor @ kernel + bias; the name marks what may be quantised."""

    def product(self, tensor: Tensor, kernel: Float32) -> Tensor:
        """Return tensor @ kernel, along the last axis."""

    def sigmoid(self, tensor: Tensor) -> Tensor:
        """Return 1 / (1 + e^-x)."""

    def tanh(self, tensor: Tensor) -> Tensor:
        """Return the hyperbolic tangent."""

    def relu(self, tensor: Tensor) -> Tensor:
        """Return what is above 0."""

    def softmax(self, tensor: Tensor) -> Tensor:
        """Return shares along the last axis that sum to 1."""

    def add(self, left: Tensor, right: Tensor) -> Tensor:
        """Return the sum."""

    def subtract(self, left: Tensor, right: Tensor) -> Tensor:
        """Return the difference."""

    def multiply(self, left: Tensor, right: Tensor) -> Tensor:
        """Return the product, cell by cell."""

    def scale(self, tensor: Tensor, factor: Float32) -> Tensor:
        """Return the product with a constant, a number or one along the last axis."""

    def normalise(self, tensor: Tensor, gamma: Float32, beta: Float32) -> Tensor:
        """Return the layer normalisation along the last axis."""

    def reshape(self, tensor: Tensor, shape: Sequence[int]) -> Tensor:
        """Return (B, *shape)."""

    def split_last(self, tensor: Tensor, sizes: Sequence[int]) -> list[Tensor]:
        """Return parts along the last axis."""


def step(
    weights: ForecasterWeights, ops: StepOps[Tensor], inputs: Tensor, state: Tensor
) -> dict[str, Tensor]:
    """Advance the forecaster by one sample.

    Args:
        weights: of an architecture that has a step form.
        ops: what it is computed with.
        inputs: (B, I).
        state: (B, S).

    Returns:
        `forecast` (B, H, F, P), `next_state` (B, S), and with the head `softmax` `state_probability` (B, H, C).

    Raises:
        ExportError: the architecture has no step form.
    """
    check_form(weights.spec, "step")
    weights = without_batch_normalisation(weights)
    spec = weights.spec
    before = ops.split(state, spec.state_parts)
    cells, rest = before[: 2 * len(spec.units)], before[2 * len(spec.units) :]
    after: list[Tensor] = []
    widths = [spec.sensors, spec.sensors, spec.context]
    values, _mask, *context = ops.split(inputs, [width for width in widths if width])
    below = inputs
    if spec.convolution:
        below, ring = _convolve(weights, ops, inputs, rest[-1] if spec.convolution[1] > 1 else None)
    for number in range(len(spec.units)):
        hidden, cell = _lstm(weights, ops, number, below, cells[2 * number], cells[2 * number + 1])
        after += [hidden, cell]
        below = hidden
        if spec.normalisation == "layer":
            gamma, beta = weights.others[f"norm_{number}"]
            below = ops.normalise(hidden, gamma, beta)
    averages = []
    if spec.highway:
        for span, average in zip(spec.spans, rest, strict=False):
            change = ops.scale(ops.subtract(values, average), np.asarray(ewma_gain(span), np.float32))
            averages.append(ops.add(average, change))
        after += averages
    if spec.convolution and spec.convolution[1] > 1:
        after.append(ring)
    regressors = [values, *averages, *context] if spec.highway else []
    return _head(weights, ops, regressors, below) | {"next_state": ops.concat(after)}


def check_form(spec: ModelSpec, form: str) -> None:
    """Refuse an architecture that nothing can be carried of, from sample to sample, in a form of this name.

    Raises:
        ExportError: it has no such form.
    """
    if not spec.has_step_form:
        raise ExportError(f"attention looks at the whole window: it has no {form} form")


def _convolve(
    weights: ForecasterWeights, ops: StepOps[Tensor], inputs: Tensor, ring: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return what the convolution gives at the newest input, and the inputs that the next step needs."""
    kernel, bias = weights.others["convolution"]
    seen = inputs if ring is None else ops.concat([ring, inputs])
    found = ops.relu(ops.affine(seen, kernel.reshape(-1, kernel.shape[2]), bias, "convolution"))
    inputs_width = weights.spec.inputs
    if ring is None:
        return found, inputs
    return found, ops.split(seen, [inputs_width, (len(kernel) - 1) * inputs_width])[1]


def _lstm(
    weights: ForecasterWeights, ops: StepOps[Tensor], number: int, below: Tensor, hidden: Tensor, cell: Tensor
) -> tuple[Tensor, Tensor]:
    kernel, recurrent, bias = weights.layers[number]
    joined = np.concatenate([kernel, recurrent])
    i, f, c, o = ops.gates(ops.concat([below, hidden]), joined, bias, f"lstm_{number}")
    kept = ops.multiply(ops.sigmoid(f), cell)
    new = ops.multiply(ops.sigmoid(i), ops.tanh(c))
    cell = ops.add(kept, new)
    return ops.multiply(ops.sigmoid(o), ops.tanh(cell)), cell


def _head(
    weights: ForecasterWeights, ops: StepOps[Tensor], regressors: list[Tensor], hidden: Tensor
) -> dict[str, Tensor]:
    kernel, bias = joined_head(weights)
    raw = ops.affine(ops.concat([*regressors, hidden]), kernel, bias, "head")
    return read_out(weights.spec, ops, raw)


def read_out(spec: ModelSpec, ops: StepOps[Tensor], raw: Tensor) -> dict[str, Tensor]:
    """Return what the raw outputs of the network (B, outputs) mean: see `step`, without the state."""
    if spec.head.kind != "softmax":
        return {"forecast": ops.reshape(raw, (spec.horizons, spec.sensors, spec.parameters))}
    states = len(spec.head.state_values)
    keep, values = spec.head.state_constants(spec.sensors)
    points, logits = ops.split_last(
        ops.reshape(raw, (spec.horizons, spec.sensors + states)), [spec.sensors, states]
    )
    probability = ops.softmax(logits)
    joined = ops.add(ops.scale(points, keep), ops.product(probability, values))
    shaped = ops.reshape(joined, (spec.horizons, spec.sensors, 1))
    return {"forecast": shaped, "state_probability": probability}


def joined_head(weights: ForecasterWeights) -> tuple[Float32, Float32]:
    """Return kernel and bias that add up highway and head in one product of values, averages, context and hidden."""
    highway = weights.highway
    kernel = np.concatenate([highway[:-1], weights.head_kernel])
    return kernel, weights.head_bias + highway[-1] if weights.spec.highway else weights.head_bias
