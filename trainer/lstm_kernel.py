"""An LSTM layer over whole sequences and its gradients by hand, in numpy: what a CPU does fastest.

Hochreiter and Schmidhuber 1997 with the forget gate of Gers et al. 2000; the gradient is back-propagation through
time (Werbos 1990). Time comes first and the batch last, (T, rows, B): all numbers of one gate of one step then lie
together, and numpy's loops run over them without a jump. A step reads `[input; last output; 1]`, so that one product
with the joined weights is all its affine part, bias included; what the weights' gradients need is one product again.
Weights come and gradients go in the order of Keras, gates i, f, c, o. Inside it is i, f, o, c, and what becomes a
sigmoid is halved beforehand: sigmoid(z) = tanh(z / 2) / 2 + 1 / 2, so that one tanh serves all four.
"""

import math
import sys
import threading

import numpy as np
from scipy.linalg.blas import sgemm

from edge_agent.contract.types import Float32

_HALF = np.float32(0.5)
_ONE = np.float32(1.0)
_ALIGNMENT = 64
_UNUSED = 3
"""References to a room that nobody holds: by the list, by the loop, by the question."""


def forward(
    inputs: Float32, kernel: Float32, recurrent: Float32, bias: Float32
) -> tuple[Float32, Float32, Float32, Float32]:
    """Compute a layer from zero state.

    Args:
        inputs: (T, n, B).
        kernel: (n, 4u).
        recurrent: (u, 4u).
        bias: (4u,).

    Returns:
        the outputs (T, u, B), and what the gradients need: `seen` (T, n + u + 1, B) by each step, its gates
        (T, 4u, B) and its cells (T, u, B).
    """
    steps, width, batch = inputs.shape
    units = len(recurrent)
    weights = _ordered(np.concatenate([kernel, recurrent, bias[None]]))
    weights[:, : 3 * units] *= _HALF
    weights = np.ascontiguousarray(weights.T)
    seen = _empty(steps, width + units + 1, batch)
    seen[:, :width] = inputs
    seen[:1, width:-1] = 0.0
    seen[:, -1] = 1.0
    gates = _empty(steps, 4 * units, batch)
    cells, outputs = (_empty(steps, units, batch) for _ in range(2))
    kept = np.zeros((units, batch), np.float32)
    for step in range(steps):
        np.matmul(weights, seen[step], out=gates[step])
        if step:
            kept[...] = cells[step - 1]
        _advance(gates[step], kept, cells[step], outputs[step])
        if step + 1 < steps:
            seen[step + 1, width:-1] = outputs[step]
    return outputs, seen, gates, cells


def _advance(gates: Float32, kept: Float32, cell: Float32, output: Float32) -> None:
    """Compute gates in place from their halved affine part, and from them cell and output; `kept` is used up."""
    units = len(cell)
    open_, candidate = gates[: 3 * units], gates[3 * units :]
    np.tanh(gates, out=gates)
    np.multiply(open_, _HALF, out=open_)
    np.add(open_, _HALF, out=open_)
    np.multiply(gates[:units], candidate, out=cell)
    np.multiply(kept, gates[units : 2 * units], out=kept)
    np.add(cell, kept, out=cell)
    np.tanh(cell, out=output)
    np.multiply(output, gates[2 * units : 3 * units], out=output)


def backward(
    upstream: Float32, seen: Float32, gates: Float32, cells: Float32, recurrent: Float32
) -> tuple[Float32, Float32, Float32, Float32]:
    """Compute the gradients of a layer.

    Args:
        upstream: (T, u, B) by the outputs.
        seen: from `forward`.
        gates: from `forward`.
        cells: from `forward`.
        recurrent: (u, 4u).

    Returns:
        `found`, the gradient (T, 4u, B) by the affine parts of the gates in the order inside, and those by kernel
        (n, 4u), recurrent kernel (u, 4u) and bias (4u,).
    """
    steps, units, batch = upstream.shape
    weights = _ordered(recurrent)
    found = _empty(*gates.shape)
    by_output, by_cell, *spare = (np.zeros((units, batch), np.float32) for _ in range(4))
    nothing = np.zeros((units, batch), np.float32)
    by_weights = np.zeros((4 * units, seen.shape[1]), np.float32, order="F")
    for step in reversed(range(steps)):
        np.add(by_output, upstream[step], out=by_output)
        before = cells[step - 1] if step else nothing
        _retreat(gates[step], cells[step], before, by_output, by_cell, found[step], spare)
        np.matmul(weights, found[step], out=by_output)
        # While the step is in the cache; numpy has no product that is added to something.
        by_weights = sgemm(
            1.0, found[step].T, seen[step].T, beta=1.0, c=by_weights, trans_a=True, overwrite_c=True
        )
    total = _in_order_of_keras(by_weights.T)
    return found, total[: -units - 1], total[-units - 1 : -1], total[-1]


def _retreat(
    gates: Float32,
    cell: Float32,
    before: Float32,
    by_output: Float32,
    by_cell: Float32,
    found: Float32,
    spare: list[Float32],
) -> None:
    """Write a step's gradient by its affine parts into `found`; `by_cell` becomes that of the step before."""
    units, (bent, part) = len(cell), spare
    i, f, o, c = (gates[place * units : (place + 1) * units] for place in range(4))
    by_i, by_f, by_o, by_c = (found[place * units : (place + 1) * units] for place in range(4))
    np.tanh(cell, out=bent)
    # By a sigmoid's affine part it is s - s², by a tanh's 1 - t².
    np.multiply(gates, gates, out=found)
    np.subtract(gates[: 3 * units], found[: 3 * units], out=found[: 3 * units])
    np.subtract(_ONE, by_c, out=by_c)
    np.multiply(by_output, o, out=part)
    np.add(by_cell, part, out=by_cell)
    np.multiply(part, bent, out=part)
    np.multiply(part, bent, out=part)
    np.subtract(by_cell, part, out=by_cell)
    np.multiply(by_output, bent, out=part)
    np.multiply(by_o, part, out=by_o)
    for gradient, factor in ((by_i, c), (by_f, before), (by_c, i)):
        np.multiply(gradient, by_cell, out=gradient)
        np.multiply(gradient, factor, out=gradient)
    np.multiply(by_cell, f, out=by_cell)


def by_inputs(found: Float32, kernel: Float32) -> Float32:
    """Return the gradient (T, n, B) by the inputs.

    Args:
        found: from `backward`.
        kernel: (n, 4u).
    """
    return np.matmul(_ordered(kernel), found, out=_empty(len(found), len(kernel), found.shape[2]))


def _ordered(weights: Float32) -> Float32:
    """Return a copy with the gates (…, 4u) in the order i, f, o, c."""
    i, f, c, o = np.split(weights, 4, axis=-1)
    return np.concatenate([i, f, o, c], axis=-1)


def _in_order_of_keras(weights: Float32) -> Float32:
    """Return a copy with the gates (…, 4u) in the order i, f, c, o."""
    i, f, o, c = np.split(weights, 4, axis=-1)
    return np.concatenate([i, f, c, o], axis=-1)


class _Rooms:
    """Memory that is used again: what is given back to the system costs a fifth of a step to get anew, page by page."""

    def __init__(self) -> None:
        self._known: dict[int, list[Float32]] = {}
        self._lock = threading.Lock()

    def take(self, *shape: int) -> Float32:
        """Return an array whose numbers are whatever they are; it is free again when nobody holds it any more.

        It begins at a multiple of 64 bytes: TensorFlow takes such a one as it is, and copies others.
        """
        count = math.prod(shape)
        with self._lock:
            known = self._known.setdefault(count, [])
            room = next((one for one in known if sys.getrefcount(one) <= _UNUSED), None)
            if room is None:
                room = np.empty(count + _ALIGNMENT // 4, np.float32)
                known.append(room)
            skipped = -room.ctypes.data % _ALIGNMENT // 4
            return room[skipped : skipped + count].reshape(shape)

    def forget(self) -> None:
        """Give all memory back."""
        with self._lock:
            self._known.clear()


ROOMS = _Rooms()
_empty = ROOMS.take
