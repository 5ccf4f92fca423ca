"""From a trained model to the graphs of a bundle; the one door to TensorFlow and tf2onnx.

Whatever needs TensorFlow runs in a process of its own that sees no GPU (`python -m trainer.export`): a graph traced
beside a GPU would hold cuDNN nodes, the training backend may be another one, and its memory ends with it. Whether a
graph is right is not for the process that made it to say: `trainer.verify` refuses a wrong one.
"""

import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edge_agent.contract.bundle import CHUNK, PRECISIONS, RUNTIMES, graph_file
from edge_agent.contract.errors import ExporterMissingError, ExportError
from trainer.chunk_onnx import chunk_graph
from trainer.model import ForecasterWeights, ModelSpec
from trainer.network import build_window_model
from trainer.quantize import quantize
from trainer.step import step
from trainer.step_keras import KerasOps
from trainer.step_onnx import OPSET, step_graph

WINDOW_GRAPH = graph_file("window")
STEP_GRAPH = graph_file("step")
CHUNK_GRAPH = CHUNK
TFLITE_WINDOW = graph_file("window", "litert")
TFLITE_STEP = graph_file("step", "litert")
_TIMEOUT_SECONDS = 900
_WRITTEN = {STEP_GRAPH: step_graph, CHUNK_GRAPH: chunk_graph}
"""Written node by node, without TensorFlow."""


@dataclass(frozen=True)
class Job:
    """Graphs of one forecaster.

    Attributes:
        weights: of the forecaster.
        directory: that exists, and that the graphs go to.
        names: of the graphs, see `graph_file`.
    """

    weights: ForecasterWeights
    directory: Path
    names: tuple[str, ...]


def graph_names(spec: ModelSpec, precision: str = "float32") -> tuple[str, ...]:
    """Return the graphs of a bundle: windows and, where there is such a form, steps for each runtime, and chunks.

    An int8 bundle has windows and steps in both precisions. It has no chunks: with the scale of a whole chunk they
    would round otherwise than steps do.
    """
    modes = ("window", "step") if spec.has_step_form else ("window",)
    precisions = PRECISIONS if precision == "int8" else ("float32",)
    chunk = (CHUNK_GRAPH,) if precision == "float32" and spec.has_step_form else ()
    return (*(graph_file(m, runtime, p) for p in precisions for runtime in RUNTIMES for m in modes), *chunk)


def deployed_graphs(mode: str, runtime: str = "onnx", precision: str = "float32") -> tuple[str, ...]:
    """Return the graphs that run in one mode, `step` or `window`, with one runtime and precision."""
    graph = graph_file(mode, runtime, precision)
    return (graph, CHUNK_GRAPH) if graph == STEP_GRAPH else (graph,)


def can_export() -> bool:
    """Return whether TensorFlow is installed; a machine that trains with another backend may have none."""
    return importlib.util.find_spec("tensorflow") is not None


def export_all(weights: ForecasterWeights, directory: Path, precision: str = "float32") -> None:
    """Write all graphs of a bundle, see `graph_names`, into an existing directory.

    Raises:
        ExportError: a graph could not be made.
    """
    export_graphs([Job(weights, directory, graph_names(weights.spec, precision))])


def export_recurrent(weights: ForecasterWeights, directory: Path) -> None:
    """Write the ONNX graphs that carry state: the step and the chunk. TensorFlow is not started.

    Raises:
        ExportError: the architecture has no step form.
    """
    export_graphs([Job(weights, directory, deployed_graphs("step"))])


def export_graphs(jobs: Sequence[Job]) -> None:
    """Write graphs of one forecaster or of many, with one start of TensorFlow at most.

    Raises:
        ExportError: a graph could not be made.
    """
    # An int8 graph of ONNX is made from the float32 one, which goes again where it is not wanted itself.
    whole = [
        replace(job, names=tuple({*job.names, *(_float_of(name) for name in job.names if _is_rounded(name))}))
        for job in jobs
    ]
    for job in whole:
        for name in set(_WRITTEN) & set(job.names):
            (job.directory / name).write_bytes(_WRITTEN[name](job.weights).SerializeToString())
    if any(_traced_names(job) for job in whole):
        _export_elsewhere(whole)
    for job, made in zip(jobs, whole, strict=True):
        for name in filter(_is_rounded, job.names):
            _write_rounded(job, name)
        for name in set(made.names) - set(job.names):
            (job.directory / name).unlink()


def _write_rounded(job: Job, name: str) -> None:
    """Write an int8 graph of ONNX; that of the step from a form of its own, which is the quicker one in int8."""
    if _float_of(name) != STEP_GRAPH:
        quantize(job.directory / _float_of(name), job.directory / name)
        return
    with tempfile.TemporaryDirectory() as scratch:
        joined = Path(scratch) / STEP_GRAPH
        joined.write_bytes(step_graph(job.weights, joined_gates=True).SerializeToString())
        quantize(joined, job.directory / name)


def _is_rounded(name: str) -> bool:
    return name.endswith(".int8.onnx")


def _float_of(name: str) -> str:
    return name.replace(".int8", "")


def _traced_names(job: Job) -> list[str]:
    """Return which of the graphs need TensorFlow."""
    return sorted(name for name in job.names if name not in _WRITTEN and not _is_rounded(name))


def _export_elsewhere(jobs: Sequence[Job]) -> None:
    """Write the graphs that need TensorFlow in a process of its own."""
    if not can_export():
        raise ExporterMissingError("TensorFlow is not installed: graphs are exported through it")
    with tempfile.TemporaryDirectory() as scratch:
        words: list[str] = []
        for number, job in enumerate(jobs):
            source = Path(scratch) / f"{number}.npz"
            job.weights.save(source)
            words += [str(source), str(job.directory), ",".join(_traced_names(job))]
        environment = {
            **os.environ,
            "CUDA_VISIBLE_DEVICES": "",
            "KERAS_BACKEND": "tensorflow",
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "PYTHONPATH": os.pathsep.join(entry or "." for entry in sys.path),
        }
        command = [sys.executable, "-m", "trainer.export", *words]
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
            raise ExportError(
                f"{jobs[0].directory}: the export took more than {_TIMEOUT_SECONDS} s"
            ) from error
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise ExportError(f"{jobs[0].directory}: the graphs could not be exported: {last}")


def _export_with_tensorflow(words: Sequence[str]) -> None:
    """Write graphs; `words` are weights, directory and names of one forecaster after the other."""
    for source, directory, names in zip(words[::3], words[1::3], words[2::3], strict=True):
        for name, content in _traced(ForecasterWeights.load(Path(source)), names.split(",")):
            (Path(directory) / name).write_bytes(content)


def _traced(weights: ForecasterWeights, names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Yield name and content; a TFLite graph is traced once for both precisions."""
    if WINDOW_GRAPH in names:
        yield WINDOW_GRAPH, _window_graph(weights)
    for mode, trace in (("window", _trace_window), ("step", _trace_step)):
        wanted = [p for p in PRECISIONS if graph_file(mode, "litert", p) in names]
        if wanted:
            frozen = trace(weights)
            for precision in wanted:
                yield graph_file(mode, "litert", precision), _converted(frozen, precision)


def _window_graph(weights: ForecasterWeights) -> bytes:
    """Return the window graph: `window` (B, T, I) → `forecast` (B, H, F, P), any batch size."""
    import onnx
    import tensorflow as tf
    import tf2onnx

    spec = weights.spec
    # The batch axis stays open: a fixed one turns the LSTM into a Loop, two to seven times slower.
    signature = [tf.TensorSpec([None, spec.window_length, spec.inputs], tf.float32, name="window")]
    model = build_window_model(weights)
    graph, _ = tf2onnx.convert.from_function(
        tf.function(lambda window: model(window, training=False), input_signature=signature, autograph=False),
        input_signature=signature,
        opset=OPSET,
    )
    _rename(graph.graph)
    onnx.checker.check_model(graph)
    content: bytes = graph.SerializeToString()
    return content


def _rename(graph: Any) -> None:
    """Name the input and the outputs of a window graph, and number all else: the names it comes with differ each time.

    Which output is which is seen by the number of axes.
    """
    outputs = {4: "forecast", 3: "state_probability"}
    renamed = {"": "", graph.input[0].name: "window"}
    renamed |= {end.name: outputs[len(end.type.tensor_type.shape.dim)] for end in graph.output}
    inner = [*(one.name for one in graph.initializer), *(name for node in graph.node for name in node.output)]
    for name in inner:
        renamed.setdefault(name, f"tensor_{len(renamed):05}")
    for number, node in enumerate(graph.node):
        node.name = f"node_{number:05}"
        node.input[:] = [renamed[name] for name in node.input]
        node.output[:] = [renamed[name] for name in node.output]
    for end in (*graph.input, *graph.output, *graph.initializer):
        end.name = renamed[end.name]
    del graph.value_info[:]


def _trace_window(weights: ForecasterWeights) -> Any:
    """Return (1, T, I) → (1, H, F, P) as a function of TensorFlow."""
    import tensorflow as tf

    model = build_window_model(weights, batch=1)
    signature = tf.TensorSpec([1, weights.spec.window_length, weights.spec.inputs], tf.float32, name="window")
    return _frozen(tf.function(lambda window: model(window, training=False), autograph=False), signature)


def _trace_step(weights: ForecasterWeights) -> Any:
    """Return (1, I), (1, S) → forecast and next state as a function of TensorFlow."""
    import tensorflow as tf

    spec = weights.spec
    # The converter keeps the names of the arguments.
    traced = tf.function(lambda input, state: step(weights, KerasOps(), input, state), autograph=False)  # noqa: A006
    signature = [
        tf.TensorSpec([1, width], tf.float32, name=name)
        for name, width in (("input", spec.inputs), ("state", spec.state_size))
    ]
    return _frozen(traced, *signature)


def _frozen(function: Any, *signature: Any) -> Any:
    """Trace a function; variables that are not frozen convert without a word and then give NaN."""
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    return convert_variables_to_constants_v2(function.get_concrete_function(*signature))


def _converted(frozen: Any, precision: str) -> bytes:
    """Return the TFLite file; in int8 large weights have 8 bits, and what they multiply is rounded as it comes."""
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_concrete_functions([frozen])
    if precision == "int8":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    content: bytes = converter.convert()
    return content


if __name__ == "__main__":
    _export_with_tensorflow(sys.argv[1:])
