"""Many steps of the forecaster in one run, for ONNX Runtime, of the architectures that ONNX's own operators can carry.

The packed state is that of `trainer.step`. ONNX's own `LSTM` over time is several times faster than a step for each
tick where there are few assets; for one tick of many the step is the faster one by a tenth (docs/decisions/0010).
"""

from typing import Any

import numpy as np

from edge_agent.contract.errors import ExportError
from edge_agent.contract.types import Float32
from trainer.highway import ewma_gain
from trainer.model import ForecasterWeights, ModelSpec, without_batch_normalisation
from trainer.step import joined_head
from trainer.step_onnx import OnnxOps, assemble, output_shapes

_FIRST, _SECOND, _LAST = [0], [1], [2]


def chunk_graph(weights: ForecasterWeights) -> Any:
    """Return the checked model: `input` (B, L, I), `state` (B, S) → `forecast` (B, L, H, F, P), `next_state` (B, S).

    Raises:
        ExportError: the architecture has no such form.
    """
    if not weights.spec.has_chunk_form:
        raise ExportError("only LSTM layers beside the highway have a chunk form")
    weights = without_batch_normalisation(weights)
    spec, ops = weights.spec, OnnxOps()
    # Time first inside, as ONNX's recurrent operators want it.
    below = ticks = ops.node("Transpose", ["input"], perm=[1, 0, 2])[0]
    *cells, average = ops.split("state", [*spec.cell_sizes, len(spec.spans) * spec.sensors])
    after: list[str] = []
    for number in range(len(spec.units)):
        below, *ends = _lstm(weights, ops, number, below, cells[2 * number : 2 * number + 2])
        after += ends
    values = _columns(ops, ticks, 0, spec.sensors)
    averages, average = _averages(spec, ops, values, average)
    context = [_columns(ops, ticks, 2 * spec.sensors, spec.inputs)] if spec.context else []
    kernel, bias = joined_head(weights)
    read = ops.node("Concat", [values, averages, *context, below], axis=2)
    product = ops.node("MatMul", [*read, ops.constant(kernel)])
    flat = ops.node("Add", [*product, ops.constant(bias)])
    in_batches = ops.node("Transpose", flat, perm=[1, 0, 2])
    shapes = output_shapes(spec)
    forecast = ops.node("Reshape", [*in_batches, ops.constant([0, 0, *shapes["forecast"]])])
    return assemble(
        "chunk",
        ops,
        {"input": ["batch", "ticks", spec.inputs], "state": ["batch", spec.state_size]},
        {"forecast": forecast[0], "next_state": ops.concat([*after, average])},
        {"forecast": ["batch", "ticks", *shapes["forecast"]], "next_state": ["batch", spec.state_size]},
    )


def _columns(ops: OnnxOps, ticks: str, first: int, end: int) -> str:
    bounds = [ops.constant([edge]) for edge in (first, end)]
    return ops.node("Slice", [ticks, *bounds, ops.constant(_LAST)])[0]


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


def _gates_of_onnx(array: Float32) -> Float32:
    """Return an array (…, 4u) with its gates in the order of ONNX (i, o, f, c), from that of Keras (i, f, c, o)."""
    i, f, c, o = np.split(array, 4, axis=-1)
    return np.concatenate([i, o, f, c], axis=-1)
