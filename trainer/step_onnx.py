"""The step graph in ONNX, node by node: the fastest form of one tick, in opset 17."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edge_agent.contract.types import Float32
from trainer.model import EPSILON, ForecasterWeights, ModelSpec
from trainer.step import step

OPSET = 17
IR_VERSION = 10  # read by every ONNX Runtime that knows the opset
PRECISE = "precise_"
"""Begins the name of a product that stays in float32: it adds up the forecast from readings of six digits."""


def step_graph(weights: ForecasterWeights, joined_gates: bool = False) -> Any:
    """Return the checked model: `input` (B, I), `state` (B, S) → the outputs of `step`, by their names.

    Args:
        weights: of the forecaster.
        joined_gates: see `OnnxOps`.

    Raises:
        ExportError: the architecture has no step form.
    """
    spec, ops = weights.spec, OnnxOps(joined_gates)
    outputs = step(weights, ops, "input", "state")
    shapes = output_shapes(spec)
    return assemble(
        "step",
        ops,
        {"input": ["batch", spec.inputs], "state": ["batch", spec.state_size]},
        outputs,
        {name: ["batch", *shapes[name]] for name in outputs},
    )


Shape = list[str | int]


def assemble(
    name: str,
    ops: "OnnxOps",
    inputs: Mapping[str, Shape],
    outputs: Mapping[str, str],
    shapes: Mapping[str, Shape],
) -> Any:
    """Return the checked model of what was collected.

    Args:
        name: of the graph.
        ops: its nodes and constants.
        inputs: their shapes by name.
        outputs: which tensor each is, by name.
        shapes: of the outputs.
    """
    import onnx

    given = {source: output for output, source in outputs.items()}
    floats = onnx.TensorProto.FLOAT
    info = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node(kind, *(_renamed(ends, given) for ends in (ins, outs)), name=node, **fields)
            for kind, ins, outs, node, fields in ops.nodes
        ],
        name,
        [info(one, floats, shape) for one, shape in inputs.items()],
        [info(one, floats, shapes[one]) for one in outputs],
        [onnx.numpy_helper.from_array(array, one) for one, array in ops.constants.items()],
    )
    model = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def output_shapes(spec: ModelSpec) -> dict[str, tuple[int, ...]]:
    """Return the shape of each output of the step, without the batch."""
    shapes = {
        "forecast": (spec.horizons, spec.sensors, spec.parameters),
        "next_state": (spec.state_size,),
    }
    if spec.head.kind == "softmax":
        shapes["state_probability"] = (spec.horizons, len(spec.head.state_values))
    return shapes


def _renamed(names: list[str], given: dict[str, str]) -> list[str]:
    return [given.get(name, name) for name in names]


class OnnxOps:
    """Collects nodes and constants; a tensor is its name.

    Args:
        joined_gates: one product for the four gates of a layer, as is quicker in int8, instead of one each.
    """

    def __init__(self, joined_gates: bool = False) -> None:
        self._joined_gates = joined_gates
        self.nodes: list[tuple[str, list[str], list[str], str, dict[str, Any]]] = []
        self.constants: dict[str, Any] = {}

    def node(
        self, kind: str, inputs: Sequence[str], outputs: int = 1, prefix: str = "", **fields: Any
    ) -> list[str]:
        """Add a node and return the names of its outputs."""
        name = f"{prefix}{kind}_{len(self.nodes)}"
        names = [f"{name}_{part}" for part in range(outputs)]
        self.nodes.append((kind, list(inputs), names, name, fields))
        return names

    def constant(self, value: Any) -> str:
        """Add a constant and return its name."""
        array = np.asarray(value)
        name = f"constant_{len(self.constants)}"
        self.constants[name] = array.astype(np.float32 if array.dtype.kind == "f" else np.int64)
        return name

    def split(self, tensor: str, sizes: Sequence[int]) -> list[str]:
        """See `StepOps`."""
        if len(sizes) == 1:
            return [tensor]
        return self.node("Split", [tensor, self.constant(list(sizes))], len(sizes), axis=1)

    def split_last(self, tensor: str, sizes: Sequence[int]) -> list[str]:
        """See `StepOps`."""
        return self.node("Split", [tensor, self.constant(list(sizes))], len(sizes), axis=-1)

    def concat(self, tensors: Sequence[str]) -> str:
        """See `StepOps`."""
        return tensors[0] if len(tensors) == 1 else self.node("Concat", tensors, axis=1)[0]

    def affine(self, tensor: str, kernel: Float32, bias: Float32, name: str) -> str:
        """See `StepOps`."""
        prefix = "" if name.startswith("lstm") else PRECISE
        return self.node("Gemm", [tensor, self.constant(kernel), self.constant(bias)], prefix=prefix)[0]

    def gates(self, tensor: str, kernel: Float32, bias: Float32, name: str) -> list[str]:
        """See `StepOps`.

        With a product for each gate, ONNX Runtime applies the activation within the product, and nothing is copied
        apart (docs/decisions/0022).
        """
        if self._joined_gates:
            return self.split(self.affine(tensor, kernel, bias, name), [len(bias) // 4] * 4)
        parts = zip(np.split(kernel, 4, axis=1), np.split(bias, 4), strict=True)
        return [self.affine(tensor, *part, name) for part in parts]

    def product(self, tensor: str, kernel: Float32) -> str:
        """See `StepOps`."""
        return self.node("MatMul", [tensor, self.constant(kernel)], prefix=PRECISE)[0]

    def sigmoid(self, tensor: str) -> str:
        """See `StepOps`."""
        return self.node("Sigmoid", [tensor])[0]

    def tanh(self, tensor: str) -> str:
        """See `StepOps`."""
        return self.node("Tanh", [tensor])[0]

    def relu(self, tensor: str) -> str:
        """See `StepOps`."""
        return self.node("Relu", [tensor])[0]

    def softmax(self, tensor: str) -> str:
        """See `StepOps`."""
        return self.node("Softmax", [tensor], axis=-1)[0]

    def add(self, left: str, right: str) -> str:
        """See `StepOps`."""
        return self.node("Add", [left, right])[0]

    def subtract(self, left: str, right: str) -> str:
        """See `StepOps`."""
        return self.node("Sub", [left, right])[0]

    def multiply(self, left: str, right: str) -> str:
        """See `StepOps`."""
        return self.node("Mul", [left, right])[0]

    def scale(self, tensor: str, factor: Float32) -> str:
        """See `StepOps`."""
        return self.node("Mul", [tensor, self.constant(factor)])[0]

    def normalise(self, tensor: str, gamma: Float32, beta: Float32) -> str:
        """See `StepOps`."""
        weights = [self.constant(gamma), self.constant(beta)]
        return self.node("LayerNormalization", [tensor, *weights], axis=-1, epsilon=EPSILON)[0]

    def reshape(self, tensor: str, shape: Sequence[int]) -> str:
        """See `StepOps`."""
        return self.node("Reshape", [tensor, self.constant([-1, *shape])])[0]
