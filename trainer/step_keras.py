"""The step as a function of tensors, from which TensorFlow traces the TFLite step graph; its weights are constants."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from edge_agent.contract.types import Float32
from trainer.backend import keras
from trainer.model import EPSILON


class KerasOps:
    """Computes at once, or within a trace; a tensor is one of the backend."""

    def split(self, tensor: Any, sizes: Sequence[int]) -> list[Any]:
        """See `trainer.step.StepOps`."""
        return list(keras.ops.split(tensor, np.cumsum(sizes)[:-1].tolist(), axis=1))

    def split_last(self, tensor: Any, sizes: Sequence[int]) -> list[Any]:
        """See `trainer.step.StepOps`."""
        return list(keras.ops.split(tensor, np.cumsum(sizes)[:-1].tolist(), axis=-1))

    def concat(self, tensors: Sequence[Any]) -> Any:
        """See `trainer.step.StepOps`."""
        return keras.ops.concatenate(list(tensors), axis=1)

    def affine(self, tensor: Any, kernel: Float32, bias: Float32, name: str) -> Any:
        """See `trainer.step.StepOps`."""
        return keras.ops.add(keras.ops.matmul(tensor, kernel), bias)

    def gates(self, tensor: Any, kernel: Float32, bias: Float32, name: str) -> list[Any]:
        """See `trainer.step.StepOps`."""
        return self.split(self.affine(tensor, kernel, bias, name), [len(bias) // 4] * 4)

    def product(self, tensor: Any, kernel: Float32) -> Any:
        """See `trainer.step.StepOps`."""
        return keras.ops.matmul(tensor, kernel)

    def sigmoid(self, tensor: Any) -> Any:
        """See `trainer.step.StepOps`."""
        return keras.ops.sigmoid(tensor)

    def tanh(self, tensor: Any) -> Any:
        """See `trainer.step.StepOps`."""
        return keras.ops.tanh(tensor)

    def relu(self, tensor: Any) -> Any:
        """See `trainer.step.StepOps`."""
        return keras.ops.relu(tensor)

    def softmax(self, tensor: Any) -> Any:
        """See `trainer.step.StepOps`."""
        return keras.ops.softmax(tensor, axis=-1)

    def add(self, left: Any, right: Any) -> Any:
        """See `trainer.step.StepOps`."""
        return keras.ops.add(left, right)

    def subtract(self, left: Any, right: Any) -> Any:
        """See `trainer.step.StepOps`."""
        return keras.ops.subtract(left, right)

    def multiply(self, left: Any, right: Any) -> Any:
        """See `trainer.step.StepOps`."""
        return keras.ops.multiply(left, right)

    def scale(self, tensor: Any, factor: Float32) -> Any:
        """See `trainer.step.StepOps`."""
        return keras.ops.multiply(tensor, factor)

    def normalise(self, tensor: Any, gamma: Float32, beta: Float32) -> Any:
        """See `trainer.step.StepOps`."""
        ops = keras.ops
        centred = tensor - ops.mean(tensor, axis=-1, keepdims=True)
        variance = ops.mean(ops.square(centred), axis=-1, keepdims=True)
        return centred / ops.sqrt(variance + EPSILON) * gamma + beta

    def reshape(self, tensor: Any, shape: Sequence[int]) -> Any:
        """See `trainer.step.StepOps`."""
        return keras.ops.reshape(tensor, (-1, *shape))
