"""The LSTM layer that is trained: on one core under TensorFlow computed by `trainer.lstm_kernel`, else by Keras.

Keras's LSTM is a loop of the graph there: it multiplies the inputs step by step, adds up the gradients of the weights
step by step, and starts some forty operations a step. The same arithmetic by hand takes two thirds of the processor
time, on one core: with more of them Keras's loop is as quick by the clock
(docs/decisions/0030-lstm-training-kernel.md). Weights, their names and first values, and the draws of dropout are
those of Keras.
"""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from threadpoolctl import threadpool_limits

from trainer import lstm_kernel
from trainer.backend import keras
from trainer.devices import computes_on_one_core

Sequence = Callable[[Any, Any, Any, Any], Any]
"""Inputs (B, T, n), kernel (n, 4u), recurrent kernel (u, 4u) and bias (4u,) → outputs (B, T, u), differentiable."""


class FastLSTM(keras.layers.LSTM):  # type: ignore[misc]
    """Keras's LSTM; where `trainer.lstm_kernel` can compute it, it does."""

    def call(
        self, sequences: Any, initial_state: Any = None, mask: Any = None, training: bool = False
    ) -> Any:
        """Return the outputs of all steps (B, T, u), or of the last one (B, u), of sequences (B, T, n)."""
        if (
            initial_state is not None
            or mask is not None
            or not self._is_plain()
            or not computes_on_one_core()
        ):
            return super().call(sequences, initial_state=initial_state, mask=mask, training=training)
        if training and self.dropout:
            sequences = sequences * keras.ops.expand_dims(self.cell.get_dropout_mask(sequences[:, 0, :]), 1)
            self.cell.reset_dropout_mask()
        cell = self.cell
        outputs = _sequence()(sequences, cell.kernel, cell.recurrent_kernel, cell.bias)
        return outputs if self.return_sequences else outputs[:, -1, :]

    def _is_plain(self) -> bool:
        """Return whether it is the LSTM that the kernel knows."""
        activations = (self.activation, self.recurrent_activation)
        return (
            activations == (keras.activations.tanh, keras.activations.sigmoid)
            and self.use_bias
            and self.compute_dtype == "float32"
            and not self.recurrent_dropout
            and not (self.go_backwards or self.stateful or self.unroll or self.return_state)
        )


@functools.cache
def _sequence() -> Sequence:
    """Return the kernel as a function of TensorFlow's tensors, with its gradient."""
    import tensorflow as tf

    def called(function: Callable[..., Any], inputs: list[Any], count: int = 1) -> Any:
        # Not stateful: what nobody asks for, such as the gradient by the inputs of the first layer, is not computed.
        types = tf.float32 if count == 1 else [tf.float32] * count
        return tf.numpy_function(function, inputs, types, stateful=False)

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def computed(inputs: Any, kernel: Any, recurrent: Any, bias: Any) -> Any:
        """Return (T, u, B) of (T, n, B)."""
        outputs, seen, gates, cells = called(lstm_kernel.forward, [inputs, kernel, recurrent, bias], 4)
        outputs.set_shape([inputs.shape[0], recurrent.shape[0], inputs.shape[2]])

        def gradient(upstream: Any) -> tuple[Any, ...]:
            found, *by_weights = called(lstm_kernel.backward, [upstream, seen, gates, cells, recurrent], 4)
            by_inputs = called(lstm_kernel.by_inputs, [found, kernel])
            for one, like in zip((by_inputs, *by_weights), (inputs, kernel, recurrent, bias), strict=True):
                one.set_shape(like.shape)
            return by_inputs, *by_weights

        return outputs, gradient

    def sequence(inputs: Any, kernel: Any, recurrent: Any, bias: Any) -> Any:
        # Between two layers both transpositions go: TensorFlow's graph optimiser knows them as each other's inverse.
        first = tf.transpose(inputs, (1, 2, 0))
        # As tensors: a gradient of one's own wants no variables.
        weights = [tf.convert_to_tensor(one) for one in (kernel, recurrent, bias)]
        return tf.transpose(computed(first, *weights), (2, 0, 1))

    return sequence


@contextmanager
def kernel_at_work() -> Iterator[None]:
    """Let numpy compute each product with one thread, and give the kernel's memory back at the end.

    Its matrices are small: two threads wait for each other, which took half as much processor time again for a tenth
    less by the clock.
    """
    if not computes_on_one_core():
        # Elsewhere a backend may have good use for more of them.
        yield
        return
    try:
        with threadpool_limits(1, "blas"):
            yield
    finally:
        lstm_kernel.ROOMS.forget()
