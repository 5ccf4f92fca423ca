"""From a trained model to the graphs of a bundle; the one door to TensorFlow, tf2onnx and onnx.

Whatever needs TensorFlow runs in a process of its own that sees no GPU (`python -m trainer.export`): a graph traced
beside a GPU would hold cuDNN nodes, the training backend may be another one, and its memory ends with it.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from edge_agent.contract.errors import ExportError
from edge_agent.contract.types import Float32
from trainer.highway import ewma_gain
from trainer.model import ForecasterWeights, build_window_model

WINDOW_GRAPH = "window.onnx"
STEP_GRAPH = "step.onnx"
TFLITE_WINDOW = "window.tflite"
_OPSET = 17
_IR_VERSION = 10  # read by every ONNX Runtime that knows the opset
_TIMEOUT_SECONDS = 900


def export_all(weights: ForecasterWeights, directory: Path) -> None:
    """Write `window.onnx`, `window.tflite` and `step.onnx` into an existing directory.

    Raises:
        ExportError: a graph could not be made.
    """
    export_step(weights, directory / STEP_GRAPH)
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / "weights.npz"
        weights.save(source)
        environment = {
            **os.environ,
            "CUDA_VISIBLE_DEVICES": "",
            "KERAS_BACKEND": "tensorflow",
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "PYTHONPATH": os.pathsep.join(entry or "." for entry in sys.path),
        }
        command = [sys.executable, "-m", "trainer.export", str(source), str(directory)]
        try:
            done = subprocess.run(
                command,
                env=environment,
                capture_output=True,
                text=True,
                timeout=_TIMEOUT_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise ExportError(f"{directory}: the export took more than {_TIMEOUT_SECONDS} s") from error
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise ExportError(f"{directory}: the graphs could not be exported: {last}")


def export_window(weights: ForecasterWeights, path: Path) -> None:
    """Write the window graph: `window` (B, T, I) → `forecast` (B, H, F, P), any batch size.

    Raises:
        ExportError: an LSTM layer did not become one ONNX `LSTM` node.
    """
    import onnx
    import tensorflow as tf
    import tf2onnx

    spec = weights.spec
    model = build_window_model(weights)
    # The batch axis stays open: a fixed one turns the LSTM into a Loop, two to seven times slower.
    signature = [tf.TensorSpec([None, spec.window_length, spec.inputs], tf.float32, name="window")]
    graph, _ = tf2onnx.convert.from_function(
        tf.function(lambda window: model(window, training=False), input_signature=signature),
        input_signature=signature,
        opset=_OPSET,
    )
    _name_ends(graph.graph, "window", "forecast")
    kinds = [node.op_type for node in graph.graph.node]
    if kinds.count("LSTM") != len(spec.units) or "Loop" in kinds:
        raise ExportError(
            f"{path.name}: {len(spec.units)} LSTM layers became {kinds.count('LSTM')} LSTM nodes "
            f"and {kinds.count('Loop')} loops"
        )
    onnx.checker.check_model(graph)
    path.write_bytes(graph.SerializeToString())


def _name_ends(graph: Any, source: str, result: str) -> None:
    """Rename the only input and the only output of a graph."""
    if len(graph.input) != 1 or len(graph.output) != 1:
        raise ExportError(
            f"the window graph has {len(graph.input)} inputs and {len(graph.output)} outputs, not one"
        )
    renamed = {graph.input[0].name: source, graph.output[0].name: result}
    for node in graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        node.output[:] = [renamed.get(name, name) for name in node.output]
    graph.input[0].name = source
    graph.output[0].name = result


def export_tflite(weights: ForecasterWeights, path: Path) -> None:
    """Write the window graph for LiteRT: (1, T, I) → (1, H, F, P), weights as constants.

    Raises:
        ExportError: the file is too small to hold the weights, the sign of variables that were not frozen.
    """
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import (
        convert_variables_to_constants_v2,
    )

    model = build_window_model(weights, batch=1)
    signature = tf.TensorSpec([1, weights.spec.window_length, weights.spec.inputs], tf.float32, name="window")
    traced = tf.function(lambda window: model(window, training=False)).get_concrete_function(signature)
    # Variables that are not frozen convert without a word and then give NaN.
    frozen = convert_variables_to_constants_v2(traced)
    content: bytes = tf.lite.TFLiteConverter.from_concrete_functions([frozen]).convert()
    needed = sum(array.nbytes for layer in weights.layers for array in layer)
    if len(content) < needed:
        raise ExportError(f"{path.name}: {len(content)} bytes cannot hold {needed} bytes of weights")
    path.write_bytes(content)


def export_step(weights: ForecasterWeights, path: Path) -> None:
    """Write the step graph: `input` (B, I), `state` (B, S) → `forecast` (B, H, F, P), `next_state` (B, S).

    The state is h and c of each layer, first to last, then the EWMAs of each span; zeros are its beginning.
    """
    import onnx

    path.write_bytes(_StepGraph(weights).build(onnx).SerializeToString())


class _StepGraph:
    """Collects the nodes and constants of one step."""

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
            "step",
            [
                info("input", floats, ["batch", spec.inputs]),
                info("state", floats, ["batch", spec.state_size]),
            ],
            [
                info("forecast", floats, ["batch", spec.horizons, spec.sensors, spec.parameters]),
                info("next_state", floats, ["batch", spec.state_size]),
            ],
            [onnx.numpy_helper.from_array(array, name) for name, array in self._constants.items()],
        )
        model = onnx.helper.make_model(
            graph, opset_imports=[onnx.helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION
        )
        onnx.checker.check_model(model, full_check=True)
        return model

    def _add_nodes(self) -> None:
        spec = self._weights.spec
        layers = range(len(spec.units))
        sizes = [size for units in spec.units for size in (units, units)] + [spec.sensors] * len(spec.spans)
        names = [f"{part}_{n}" for n in layers for part in "hc"] + [f"ewma_{span}" for span in spec.spans]
        self._node("Split", ["state", self._constant("state_sizes", sizes)], names, axis=1)
        parts = [spec.sensors, spec.sensors, spec.context][: 3 if spec.context else 2]
        self._node(
            "Split",
            ["input", self._constant("parts", parts)],
            ["values", "mask", "context"][: len(parts)],
            axis=1,
        )
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
        """Add highway and head as one product of everything they read."""
        spec = self._weights.spec
        highway: Float32 = self._weights.highway
        kernel = self._constant("head_kernel", np.concatenate([highway[:-1], self._weights.head_kernel]))
        offset = self._constant("head_bias", highway[-1] + self._weights.head_bias)
        shape = self._constant("shape", [-1, spec.horizons, spec.sensors, spec.parameters])
        context = ["context"] if spec.context else []
        read = ["values", *(f"next_ewma_{span}" for span in spec.spans), *context, hidden]
        self._node("Concat", read, ["read"], axis=1)
        self._node("Gemm", ["read", kernel, offset], ["flat"])
        self._node("Reshape", ["flat", shape], ["forecast"])

    def _node(self, kind: str, inputs: list[str], outputs: list[str], **fields: Any) -> None:
        self._nodes.append((kind, inputs, outputs, fields))

    def _constant(self, name: str, value: Any) -> str:
        array = np.asarray(value)
        self._constants[name] = array.astype(np.float32 if array.dtype.kind == "f" else np.int64)
        return name


def _export_with_tensorflow(source: Path, directory: Path) -> None:
    """Write the graphs that need TensorFlow; runs in a process of its own."""
    weights = ForecasterWeights.load(source)
    export_window(weights, directory / WINDOW_GRAPH)
    export_tflite(weights, directory / TFLITE_WINDOW)


if __name__ == "__main__":
    _export_with_tensorflow(Path(sys.argv[1]), Path(sys.argv[2]))
