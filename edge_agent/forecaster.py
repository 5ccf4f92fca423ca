"""Run the forecaster's graphs, with ONNX Runtime or LiteRT; no other module knows ONNX Runtime.

ONNX Runtime is imported when a graph is opened: a very small device has LiteRT in its place.
"""

import io
import os
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_agent.contract.bundle import CHUNK, graph_file
from edge_agent.contract.errors import BundleError, ConfigurationError
from edge_agent.contract.types import Float32, Int64
from edge_agent.litert import LiteRtGraph
from edge_agent.row_graphs import gather_graph, scatter_graph

# A daemon beside a machine reports to nobody but its operator; after the import it would be too late to say so.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

MAX_BATCH = 256
"""Larger batches are no faster on a CPU and cost memory (the window graph: 249 MB at 1024)."""

_CARRIED = ["forecast", "next_state"]
_CPU, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
_CUDA_OPTIONS = {"use_tf32": "0"}
"""Products of ten bits of mantissa would forecast otherwise than what the thresholds were calibrated with."""

OnDevice = Any
"""An array in the memory of a session's device: an OrtValue, whose package has no types."""


class OnnxGraph:
    """One ONNX graph in one session with one thread and no spinning.

    Args:
        graph: the `.onnx` file, or what one would hold.
        provider: `cpu`, `cuda` (fails unless the session really runs on CUDA) or `auto` (falls back to the CPU).

    Raises:
        BundleError: the file is not a graph ONNX Runtime can load.
        ConfigurationError: `cuda` was asked for and is not what the session got, or ONNX Runtime is not installed.
    """

    batch = MAX_BATCH

    def __init__(self, graph: Path | bytes, provider: str = "cpu") -> None:
        try:
            import onnxruntime
        except ImportError as reason:
            raise ConfigurationError(
                "bundle.runtime: onnx needs the package onnxruntime: install the extra `cpu` or `gpu`"
            ) from reason
        self._session = _opened(onnxruntime, graph, provider)
        # The list of *available* providers always claims CUDA; only the session tells the truth.
        self.provider = "cuda" if _CUDA in self._session.get_providers() else "cpu"
        if provider == "cuda" and self.provider != "cuda":
            why = _loaded_libraries(onnxruntime)
            raise ConfigurationError(
                f"bundle.provider: cuda was asked for, but the session runs on the CPU{why and ': ' + why}"
            )
        self._outputs = [output.name for output in self._session.get_outputs()]

    def run(self, feeds: dict[str, Float32]) -> dict[str, NDArray[np.float32]]:
        """Return the graph's outputs by name."""
        return dict(zip(self._outputs, self._session.run(None, feeds), strict=True))

    def run_in_order(self, names: list[str], feeds: dict[str, Float32]) -> list[Float32]:
        """Return the named outputs in the order of `names`."""
        outputs: list[Float32] = self._session.run(names, feeds)
        return outputs

    def place(self, array: Float32) -> OnDevice:
        """Return the array in the memory of the session's device, on the CPU the very same memory."""
        import onnxruntime

        return onnxruntime.OrtValue.ortvalue_from_numpy(array, self.provider)

    def run_on_device(
        self,
        feeds: Mapping[str, "Float32 | Int64 | OnDevice"],
        kept: Mapping[str, OnDevice | None],
        shown: tuple[str, ...] = (),
    ) -> list[OnDevice]:
        """Run with IO binding, so that what lies on the device stays there.

        Args:
            feeds: inputs by name, arrays or what lies on the device.
            kept: outputs that stay on the device, each with what it is written into; None makes room for it.
            shown: outputs that come back to where NumPy can read them.

        Returns:
            The outputs, first those of `kept`, then those of `shown`; `numpy()` of the latter is an array.
        """
        binding = self._session.io_binding()
        for name, value in feeds.items():
            if isinstance(value, np.ndarray):
                binding.bind_cpu_input(name, np.ascontiguousarray(value))
            else:
                binding.bind_ortvalue_input(name, value)
        for name, room in kept.items():
            if room is None:
                binding.bind_output(name, self.provider)
            else:
                binding.bind_ortvalue_output(name, room)
        for name in shown:
            binding.bind_output(name, "cpu")
        # Sessions have a stream each: none may begin before what it reads has arrived.
        binding.synchronize_inputs()
        self._session.run_with_iobinding(binding)
        binding.synchronize_outputs()
        outputs: list[OnDevice] = binding.get_outputs()
        return outputs


@dataclass(frozen=True)
class ResidentGraphs:
    """What advances packed states that lie on a device; all run on the same one.

    Attributes:
        step: one tick.
        chunk: many ticks in one run; None where the bundle has none.
        gather, scatter: see `row_graphs`.
    """

    step: OnnxGraph
    chunk: OnnxGraph | None
    gather: OnnxGraph
    scatter: OnnxGraph


class Forecaster:
    """The forms of one forecaster: the step and, where there is one, the chunk, which carry state, or the window.

    Args:
        directory: the bundle's directory.
        inference: `step` (O(1) a sample, carries state) or `window` (stateless, O(T)).
        state_size: width of the packed state of the step graph.
        provider: see `OnnxGraph`; LiteRT runs on the CPU only.
        runtime: `onnx` or `litert`.
        precision: `float32` or `int8`.
        resident: whether the packed states of the assets are to lie on the session's device; None is where that is
            a GPU. It takes steps in float32 on ONNX Runtime.

    Raises:
        BundleError: there is no such graph that could be loaded.
        ConfigurationError: the runtime is not installed, or the provider is not to be had.
    """

    def __init__(
        self,
        directory: Path,
        inference: str,
        state_size: int,
        provider: str = "cpu",
        runtime: str = "onnx",
        precision: str = "float32",
        resident: bool | None = None,
    ) -> None:
        self.inference = inference
        self.state_size = state_size
        self.runtime = runtime
        path = directory / graph_file(inference, runtime, precision)
        if runtime == "litert" and provider == "cuda":
            raise ConfigurationError("bundle.provider: cuda was asked for, but LiteRT runs on the CPU only")
        self._graph = LiteRtGraph(path) if runtime == "litert" else OnnxGraph(path, provider)
        self.provider = self._graph.provider
        # All rows of a batch share the scale of what int8 rounds: one outlier would blur the others sixteen-fold.
        self._batch = 1 if precision == "int8" else self._graph.batch
        chunk = directory / CHUNK
        runs_chunks = path.name == graph_file("step") and chunk.exists()
        self._chunk = OnnxGraph(chunk, provider) if runs_chunks else None
        self.resident: ResidentGraphs | None = None
        """What keeps the packed states on the device; None where they lie in the detector's own arrays."""
        wanted = self.provider == "cuda" if resident is None else resident
        if wanted and path.name == graph_file("step") and isinstance(self._graph, OnnxGraph):
            rows = (OnnxGraph(make(state_size), provider) for make in (gather_graph, scatter_graph))
            self.resident = ResidentGraphs(self._graph, self._chunk, *rows)

    def advance(self, inputs: Float32, state: Float32) -> Float32:
        """Advance L ticks: in one run where there is a graph for it, or one by one.

        Args:
            inputs: (B, L, I) scaled inputs.
            state: (B, S) packed state, zero at the start; changed in place.

        Returns:
            The forecasts (B, L, H, F, P) of the ticks after each.
        """
        ticks = inputs.shape[1]
        if ticks == 1:
            return self._carried(self._graph, inputs[:, 0], state)[:, None]
        if self._chunk is not None:
            return self._carried(self._chunk, inputs, state)
        return np.stack([self._carried(self._graph, inputs[:, tick], state) for tick in range(ticks)], axis=1)

    def _carried(self, graph: "OnnxGraph | LiteRtGraph", inputs: Float32, state: Float32) -> Float32:
        """Run a graph that carries state, however many assets there are."""
        forecasts = []
        for at in range(0, len(inputs), self._batch):
            part = slice(at, at + self._batch)
            forecast, state[part] = graph.run_in_order(
                _CARRIED, {"input": inputs[part], "state": state[part]}
            )
            forecasts.append(forecast)
        return forecasts[0] if len(forecasts) == 1 else np.concatenate(forecasts)

    def window(self, windows: Float32) -> Float32:
        """Forecast (B, H, F, P) from windows (B, T, I) of scaled inputs, oldest row first."""
        parts = [
            self._graph.run_in_order(["forecast"], {"window": windows[at : at + self._batch]})[0]
            for at in range(0, len(windows), self._batch)
        ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _opened(onnxruntime: Any, graph: Path | bytes, provider: str) -> Any:
    """Return a session on the CPU or, where it can be had, on CUDA."""
    # What is not even compiled in is not asked for: ONNX Runtime would only warn on standard error.
    if provider == "cpu" or _CUDA not in onnxruntime.get_available_providers():
        return _cpu_session(onnxruntime, graph)
    try:
        return _cuda_session(onnxruntime, graph)
    except ConfigurationError:
        # Where it is the graph that cannot be loaded, this says so.
        session = _cpu_session(onnxruntime, graph)
        if provider == "cuda":
            raise
        return session


def _cpu_session(onnxruntime: Any, graph: Path | bytes) -> Any:
    try:
        return _session(onnxruntime, graph, [_CPU])
    except Exception as reason:  # ONNX Runtime raises many unrelated types
        name = graph if isinstance(graph, Path) else "rows"
        raise BundleError(f"{name}: not a graph ONNX Runtime can load: {_first_line(reason)}") from reason


def _cuda_session(onnxruntime: Any, graph: Path | bytes) -> Any:
    # Errors only: a warning of its own for each session says that rows named twice would be undefined; none is.
    onnxruntime.set_default_logger_severity(3)
    # Against TF32 once more, in the libraries that ONNX Runtime calls: they read it when they are loaded.
    os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")
    missing = _loaded_libraries(onnxruntime)
    try:
        # ONNX Runtime's own fallback would print, among what commands print for programs, and lose what lies there.
        return _session(onnxruntime, graph, [(_CUDA, _CUDA_OPTIONS), _CPU], enable_fallback=0)
    except Exception as reason:  # as above
        because = missing or _first_line(reason)
        raise ConfigurationError(f"bundle.provider: cuda was asked for, but {because}") from reason


@cache
def _loaded_libraries(onnxruntime: Any) -> str:
    """Load CUDA and cuDNN as the extra `gpu` installs them, where the system's loader does not look.

    Returns:
        what could not be loaded from there nor from the system, in a line; empty where nothing lacks.
    """
    told = io.StringIO()
    # It prints, among what commands print for programs.
    with redirect_stdout(told):
        onnxruntime.preload_dlls()
    lines = [line for line in told.getvalue().splitlines() if line.startswith("Failed to load")]
    return lines[0] if lines else ""


def _session(onnxruntime: Any, graph: Path | bytes, providers: list[Any], **fields: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    # What a run needs is given back after it: the arena would keep the most that any run ever took, and is no quicker.
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    source = graph if isinstance(graph, bytes) else str(graph)
    return onnxruntime.InferenceSession(source, options, providers=providers, **fields)


def _first_line(reason: Exception) -> str:
    return str(reason).strip().splitlines()[0] if str(reason).strip() else type(reason).__name__
