"""Many steps of the forecaster in one run, for ONNX Runtime: of every architecture that has a step form.

The packed state is that of `trainer.step`. ONNX's own `LSTM` over time is several times faster than a step for each
tick where there are few assets; for one tick of many the step is the faster one by a tenth (docs/decisions/0010).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from edge_agent.contract.types import Float32
from trainer.highway import ewma_gain
from trainer.model import ForecasterWeights, ModelSpec, without_batch_normalisation
from trainer.step import check_form, joined_head, read_out
from trainer.step_onnx import OnnxOps, Shape, assemble, output_shapes

_FIRST, _SECOND, _LAST = [0], [1], [2]
_END = 2**31 - 1


class ChunkOps(OnnxOps):
    """Collects nodes and constants of many ticks: a tensor is (L, B, something), read out (B, L, something)."""

    def reshape(self, tensor: str, shape: Sequence[int]) -> str:
        """See `StepOps`; both first axes stay."""
        return self.node("Reshape", [tensor, self.constant([0, 0, *shape])])[0]


def chunk_graph(weights: ForecasterWeights) -> Any:
    """Return the checked model: `input` (B, L, I), `state` (B, S) → the outputs of `step` by their names.

    All but `next_state` have an axis of the ticks after that of the batch: `forecast` is (B, L, H, F, P).

    Raises:
        ExportError: the architecture has no such form.
    """
    check_form(weights.spec, "chunk")
    weights = without_batch_normalisation(weights)
    spec, ops = weights.spec, ChunkOps()
    # Time first inside, as ONNX's recurrent operators want it.
    ticks = ops.node("Transpose", ["input"], perm=[1, 0, 2])[0]
    *cells, averages, ring = _split_state(spec, ops)
    below = ticks
    after: list[str] = []
    if spec.convolution:
        below, ring = _convolve(weights, ops, ring)
    for number in range(len(spec.units)):
        below, *ends = _lstm(weights, ops, number, below, cells[2 * number : 2 * number + 2])
        after += ends
        if spec.normalisation == "layer":
            below = ops.normalise(below, *weights.others[f"norm_{number}"])
    regressors: list[str] = []
    if spec.highway:
        regressors, average = _regressors(spec, ops, ticks, averages)
        after.append(average)
    after += [ring] if ring else []
    outputs = _head(weights, ops, [*regressors, below]) | {"next_state": ops.concat(after)}
    shapes: dict[str, Shape] = {
        name: ["batch", "ticks", *shape] for name, shape in output_shapes(spec).items()
    }
    carried: Shape = ["batch", spec.state_size]
    return assemble(
        "chunk",
        ops,
        {"input": ["batch", "ticks", spec.inputs], "state": carried},
        outputs,
        shapes | {"next_state": carried},
    )


def _split_state(spec: ModelSpec, ops: OnnxOps) -> list[str]:
    """Return h and c of each layer, the averages of all spans, and the ring; '' for a part that there is not."""
    averages = len(spec.spans) * spec.sensors if spec.highway else 0
    sizes = [*spec.cell_sizes, averages, spec.state_size - sum(spec.cell_sizes) - averages]
    parts = iter(ops.split("state", [size for size in sizes if size]))
    return [next(parts) if size else "" for size in sizes]


def _convolve(weights: ForecasterWeights, ops: OnnxOps, ring: str) -> tuple[str, str]:
    """Return what the convolution gives at each tick, and the last inputs, which the next chunk needs."""
    kernel, bias = weights.others["convolution"]
    seen, before = "input", len(kernel) - 1
    if ring:
        rows = ops.node("Reshape", [ring, ops.constant([0, before, weights.spec.inputs])])
        seen = ops.node("Concat", [*rows, "input"], axis=1)[0]
        ring = ops.node("Flatten", [_cut(ops, seen, -before, _END, _SECOND)], axis=1)[0]
    channels = ops.node("Transpose", [seen], perm=[0, 2, 1])
    found = ops.node("Conv", [*channels, ops.constant(kernel.transpose(2, 1, 0)), ops.constant(bias)])
    return ops.node("Transpose", [ops.relu(found[0])], perm=[2, 0, 1])[0], ring


def _cut(ops: OnnxOps, tensor: str, first: int, end: int, axis: list[int]) -> str:
    bounds = [ops.constant([edge]) for edge in (first, end)]
    return ops.node("Slice", [tensor, *bounds, ops.constant(axis)])[0]


def _lstm(
    weights: ForecasterWeights, ops: OnnxOps, number: int, below: str, before: list[str]
) -> tuple[str, str, str]:
    """Return what the layer shows at each tick, and h and c after the last."""
    kernel, recurrent, bias = (_gates_of_onnx(array) for array in weights.layers[number])
    first = ops.constant(_FIRST)
    arrays = [kernel.T[None], recurrent.T[None], np.concatenate([bias, np.zeros_like(bias)])[None]]
    every, hidden, cell = ops.node(
        "LSTM",
        [
            below,
            *(ops.constant(array) for array in arrays),
            "",
            *(ops.node("Unsqueeze", [end, first])[0] for end in before),
        ],
        3,
        hidden_size=kernel.shape[1] // 4,
    )
    shown = ops.node("Squeeze", [every, ops.constant(_SECOND)])[0]
    hidden, cell = (ops.node("Squeeze", [end, first])[0] for end in (hidden, cell))
    return shown, hidden, cell


def _regressors(spec: ModelSpec, ops: OnnxOps, ticks: str, averages: str) -> tuple[list[str], str]:
    """Return what the highway reads at each tick: values, averages, context; and the averages after the last."""
    values = _cut(ops, ticks, 0, spec.sensors, _LAST)
    every, after = _averages(spec, ops, values, averages)
    context = [_cut(ops, ticks, 2 * spec.sensors, spec.inputs, _LAST)] if spec.context else []
    return [values, every, *context], after


def _averages(spec: ModelSpec, ops: OnnxOps, values: str, before: str) -> tuple[str, str]:
    """Return the EWMAs at each tick and after the last.

    They are a recurrent layer without anything that bends: `e_t = a x_t + (1 - a) e_{t-1}`.
    """
    gains = np.repeat([ewma_gain(span) for span in spec.spans], spec.sensors)
    kernel = np.tile(np.eye(spec.sensors), (len(spec.spans), 1)) * gains[:, None]
    first = ops.constant(_FIRST)
    every, after = ops.node(
        "RNN",
        [
            values,
            ops.constant(kernel[None]),
            ops.constant(np.diag(1.0 - gains)[None]),
            "",
            "",
            *ops.node("Unsqueeze", [before, first]),
        ],
        2,
        hidden_size=len(gains),
        activations=["Affine"],
        activation_alpha=[1.0],
        activation_beta=[0.0],
    )
    return (
        ops.node("Squeeze", [every, ops.constant(_SECOND)])[0],
        ops.node("Squeeze", [after, first])[0],
    )


def _head(weights: ForecasterWeights, ops: OnnxOps, read: list[str]) -> dict[str, str]:
    """Return the outputs of each tick, batch first, from all that the head reads."""
    kernel, bias = joined_head(weights)
    joined = read[0] if len(read) == 1 else ops.node("Concat", read, axis=2)[0]
    product = ops.node("MatMul", [joined, ops.constant(kernel)])
    flat = ops.node("Add", [*product, ops.constant(bias)])
    return read_out(weights.spec, ops, ops.node("Transpose", flat, perm=[1, 0, 2])[0])


def _gates_of_onnx(array: Float32) -> Float32:
    """Return an array (…, 4u) with its gates in the order of ONNX (i, o, f, c), from that of Keras (i, f, c, o)."""
    i, f, c, o = np.split(array, 4, axis=-1)
    return np.concatenate([i, o, f, c], axis=-1)
