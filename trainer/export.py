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

from edge_agent.contract.bundle import CHUNK
from edge_agent.contract.errors import ExportError
from trainer.model import ForecasterWeights, build_window_model
from trainer.recurrent_graphs import OPSET, chunk_graph, step_graph

WINDOW_GRAPH = "window.onnx"
STEP_GRAPH = "step.onnx"
CHUNK_GRAPH = CHUNK
TFLITE_WINDOW = "window.tflite"
_TIMEOUT_SECONDS = 900


def export_all(weights: ForecasterWeights, directory: Path) -> None:
    """Write `window.onnx`, `window.tflite`, `step.onnx` and `chunk.onnx` into an existing directory.

    Raises:
        ExportError: a graph could not be made.
    """
    export_recurrent(weights, directory)
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
        opset=OPSET,
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


def export_recurrent(weights: ForecasterWeights, directory: Path) -> None:
    """Write the graphs that carry state, the step and the chunk, see `trainer.recurrent_graphs`."""
    import onnx

    for name, build in ((STEP_GRAPH, step_graph), (CHUNK_GRAPH, chunk_graph)):
        (directory / name).write_bytes(build(weights, onnx).SerializeToString())


def _export_with_tensorflow(source: Path, directory: Path) -> None:
    """Write the graphs that need TensorFlow; runs in a process of its own."""
    weights = ForecasterWeights.load(source)
    export_window(weights, directory / WINDOW_GRAPH)
    export_tflite(weights, directory / TFLITE_WINDOW)


if __name__ == "__main__":
    _export_with_tensorflow(Path(sys.argv[1]), Path(sys.argv[2]))
