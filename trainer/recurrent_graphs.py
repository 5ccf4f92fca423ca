"""The graphs that carry a packed state, written node by node from the weights: one tick, or many in one run.

Both read the same state: h and c of each layer, first to last, then the EWMAs of each span; zeros are its beginning.
The chunk runs ONNX's own `LSTM` over time, several times faster than a step for each tick where there are few assets;
for one tick of many assets the step is the faster one by a tenth (docs/decisions/0010).
"""

from typing import Any

import numpy as np

from edge_agent.contract.types import Float32
from trainer.highway import ewma_gain
from trainer.model import ForecasterWeights

OPSET = 17
_IR_VERSION = 10  # read by every ONNX Runtime that knows the opset


def step_graph(weights: ForecasterWeights, onnx: Any) -> Any:
    """Return the model `input` (B, I), `state` (B, S) → `forecast` (B, H, F, P), `next_state` (B, S)."""
    return _StepGraph(weights).build(onnx)


def chunk_graph(weights: ForecasterWeights, onnx: Any) -> Any:
    """Return the model `input` (B, L, I), `state` (B, S) → `forecast` (B, L, H, F, P), `next_state` (B, S)."""
    return _ChunkGraph(weights).build(onnx)


class _RecurrentGraph:
    """Collects the nodes and constants of a graph.

    Attributes:
        name: of the graph.
        axes: of the input and the forecast, before those of one tick.
    """

    name = ""
    axes: tuple[str, ...] = ()

    def __init__(self, weights: ForecasterWeights) -> None:
        self._weights = weights
        self._nodes: list[tuple[str, list[str], list[str], dict[str, Any]]] = []
        self._constants: dict[str, Any] = {}

    def build(self, onnx: Any) -> Any:
        """Return the checked ONNX model."""
        spec = self._weights.spec
        self._add_nodes()
        nodes = [onnx.helper.make_node(kind, ins, outs, **fields) for kind, ins, outs, fields in self._nodes]
        floats = onnx.TensorProto.FLOAT
        info = onnx.helper.make_tensor_value_info
        graph = onnx.helper.make_graph(
            nodes,
            self.name,
            [
                info("input", floats, [*self.axes, spec.inputs]),
                info("state", floats, ["batch", spec.state_size]),
            ],
            [
                info("forecast", floats, [*self.axes, spec.horizons, spec.sensors, spec.parameters]),
                info("next_state", floats, ["batch", spec.state_size]),
            ],
            [onnx.numpy_helper.from_array(array, name) for name, array in self._constants.items()],
        )
        model = onnx.helper.make_model(
            graph, opset_imports=[onnx.helper.make_opsetid("", OPSET)], ir_version=_IR_VERSION
        )
        onnx.checker.check_model(model, full_check=True)
        return model

    def _add_nodes(self) -> None:
        raise NotImplementedError

    def _head_weights(self) -> tuple[str, str]:
        """Return highway and head as one product of values, averages, context and the last layer's output."""
        highway: Float32 = self._weights.highway
        kernel = self._constant("head_kernel", np.concatenate([highway[:-1], self._weights.head_kernel]))
        return kernel, self._constant("head_bias", highway[-1] + self._weights.head_bias)

    def _node(self, kind: str, inputs: list[str], outputs: list[str], **fields: Any) -> None:
        self._nodes.append((kind, inputs, outputs, fields))

    def _constant(self, name: str, value: Any) -> str:
        array = np.asarray(value)
        self._constants[name] = array.astype(np.float32 if array.dtype.kind == "f" else np.int64)
        return name


class _StepGraph(_RecurrentGraph):
    """One tick, in plain products: as fast as they are for many assets."""

    name = "step"
    axes = ("batch",)

    def _add_nodes(self) -> None:
        spec = self._weights.spec
        layers = range(len(spec.units))
        sizes = [size for units in spec.units for size in (units, units)] + [spec.sensors] * len(spec.spans)
        names = [f"{part}_{n}" for n in layers for part in "hc"] + [f"ewma_{span}" for span in spec.spans]
        self._node("Split", ["state", self._constant("state_sizes", sizes)], names, axis=1)
        parts = [spec.sensors, spec.sensors, spec.context][: 3 if spec.context else 2]
        names_of_parts = ["values", "mask", "context"][: len(parts)]
        self._node("Split", ["input", self._constant("parts", parts)], names_of_parts, axis=1)
        below = "input"
        for number in layers:
            self._lstm(number, below)
            below = f"next_h_{number}"
        for span in spec.spans:
            self._average(span)
        self._head(below)
        self._node("Concat", [f"next_{name}" for name in names], ["next_state"], axis=1)

    def _lstm(self, number: int, below: str) -> None:
        kernel, recurrent, bias = self._weights.layers[number]
        joined = self._constant(f"kernel_{number}", np.concatenate([kernel, recurrent]))
        offset = self._constant(f"bias_{number}", bias)
        quarters = self._constant(f"gates_{number}", [len(recurrent)] * 4)
        i, f, c, o = (f"{gate}_{number}" for gate in ("in", "forget", "cell", "out"))
        self._node("Concat", [below, f"h_{number}"], [f"joined_{number}"], axis=1)
        self._node("Gemm", [f"joined_{number}", joined, offset], [f"sum_{number}"])
        self._node("Split", [f"sum_{number}", quarters], [f"{gate}_sum" for gate in (i, f, c, o)], axis=1)
        for gate, kind in ((i, "Sigmoid"), (f, "Sigmoid"), (c, "Tanh"), (o, "Sigmoid")):
            self._node(kind, [f"{gate}_sum"], [gate])
        self._node("Mul", [f, f"c_{number}"], [f"kept_{number}"])
        self._node("Mul", [i, c], [f"new_{number}"])
        self._node("Add", [f"kept_{number}", f"new_{number}"], [f"next_c_{number}"])
        self._node("Tanh", [f"next_c_{number}"], [f"shown_{number}"])
        self._node("Mul", [o, f"shown_{number}"], [f"next_h_{number}"])

    def _average(self, span: int) -> None:
        gain = self._constant(f"gain_{span}", np.float32(ewma_gain(span)))
        self._node("Sub", ["values", f"ewma_{span}"], [f"change_{span}"])
        self._node("Mul", [f"change_{span}", gain], [f"part_{span}"])
        self._node("Add", [f"ewma_{span}", f"part_{span}"], [f"next_ewma_{span}"])

    def _head(self, hidden: str) -> None:
        spec = self._weights.spec
        kernel, offset = self._head_weights()
        shape = self._constant("shape", [-1, spec.horizons, spec.sensors, spec.parameters])
        context = ["context"] if spec.context else []
        read = ["values", *(f"next_ewma_{span}" for span in spec.spans), *context, hidden]
        self._node("Concat", read, ["read"], axis=1)
        self._node("Gemm", ["read", kernel, offset], ["flat"])
        self._node("Reshape", ["flat", shape], ["forecast"])


class _ChunkGraph(_RecurrentGraph):
    """Many ticks, time first inside, as ONNX's recurrent operators want it."""

    name = "chunk"
    axes = ("batch", "ticks")

    def _add_nodes(self) -> None:
        spec = self._weights.spec
        layers = range(len(spec.units))
        names = [*(f"{part}_{n}" for n in layers for part in "hc"), "ewma"]
        sizes = [size for units in spec.units for size in (units, units)] + [len(spec.spans) * spec.sensors]
        self._node("Split", ["state", self._constant("state_sizes", sizes)], names, axis=1)
        self._constant("first", [0])
        self._constant("second", [1])
        self._node("Transpose", ["input"], ["ticks"], perm=[1, 0, 2])
        last = self._constant("last_axis", [2])
        self._node("Slice", ["ticks", "first", self._constant("width", [spec.sensors]), last], ["values"])
        if spec.context:
            ends = self._constant("mask_end", [2 * spec.sensors]), self._constant("input_end", [spec.inputs])
            self._node("Slice", ["ticks", *ends, last], ["context"])
        below = "ticks"
        for number in layers:
            self._lstm(number, below)
            below = f"shown_{number}"
        self._averages()
        self._head(below)
        self._node("Concat", [f"next_{name}" for name in names], ["next_state"], axis=1)

    def _lstm(self, number: int, below: str) -> None:
        kernel, recurrent, bias = (_gates_of_onnx(array) for array in self._weights.layers[number])
        ends = [f"h_{number}", f"c_{number}"]
        for end in ends:
            self._node("Unsqueeze", [end, "first"], [f"{end}_in"])
        matrices = [
            self._constant(f"kernel_{number}", kernel.T[None]),
            self._constant(f"recurrent_{number}", recurrent.T[None]),
            self._constant(f"bias_{number}", np.concatenate([bias, np.zeros_like(bias)])[None]),
        ]
        self._node(
            "LSTM",
            [below, *matrices, "", *(f"{end}_in" for end in ends)],
            [f"every_{number}", *(f"{end}_out" for end in ends)],
            hidden_size=kernel.shape[1] // 4,
        )
        self._node("Squeeze", [f"every_{number}", "second"], [f"shown_{number}"])
        for end in ends:
            self._node("Squeeze", [f"{end}_out", "first"], [f"next_{end}"])

    def _averages(self) -> None:
        """Add the EWMAs as a recurrent layer without anything that bends: `e_t = a x_t + (1 - a) e_{t-1}`."""
        spec = self._weights.spec
        gains = np.repeat([ewma_gain(span) for span in spec.spans], spec.sensors)
        kernel = np.tile(np.eye(spec.sensors), (len(spec.spans), 1)) * gains[:, None]
        self._node("Unsqueeze", ["ewma", "first"], ["ewma_in"])
        matrices = [
            self._constant("gain", kernel[None]),
            self._constant("fade", np.diag(1.0 - gains)[None]),
        ]
        self._node(
            "RNN",
            ["values", *matrices, "", "", "ewma_in"],
            ["every_ewma", "ewma_out"],
            hidden_size=len(gains),
            activations=["Affine"],
            activation_alpha=[1.0],
            activation_beta=[0.0],
        )
        self._node("Squeeze", ["every_ewma", "second"], ["averages"])
        self._node("Squeeze", ["ewma_out", "first"], ["next_ewma"])

    def _head(self, below: str) -> None:
        spec = self._weights.spec
        kernel, offset = self._head_weights()
        shape = self._constant("shape", [0, 0, spec.horizons, spec.sensors, spec.parameters])
        context = ["context"] if spec.context else []
        self._node("Concat", ["values", "averages", *context, below], ["read"], axis=2)
        self._node("MatMul", ["read", kernel], ["product"])
        self._node("Add", ["product", offset], ["flat"])
        self._node("Transpose", ["flat"], ["in_batches"], perm=[1, 0, 2])
        self._node("Reshape", ["in_batches", shape], ["forecast"])


def _gates_of_onnx(array: Float32) -> Float32:
    """Return an array (…, 4u) with its gates in the order of ONNX (i, o, f, c), from that of Keras (i, f, c, o)."""
    i, f, c, o = np.split(array, 4, axis=-1)
    return np.concatenate([i, o, f, c], axis=-1)
