"""Run the forecaster's graphs, with ONNX Runtime or LiteRT; no other module knows ONNX Runtime.

ONNX Runtime is imported when a graph is opened: a very small device has LiteRT in its place.
"""

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_agent.contract.bundle import CHUNK, graph_file
from edge_agent.contract.errors import BundleError, ConfigurationError
from edge_agent.contract.types import Float32
from edge_agent.litert import LiteRtGraph

# A daemon beside a machine reports to nobody but its operator; after the import it would be too late to say so.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

MAX_BATCH = 256
"""Larger batches are no faster on a CPU and cost memory (the window graph: 249 MB at 1024)."""

_CARRIED = ["forecast", "next_state"]
_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


class OnnxGraph:
    """One ONNX graph in one session with one thread and no spinning.

    Args:
        path: the `.onnx` file.
        provider: `cpu`, `cuda` (fails unless the session really runs on CUDA) or `auto` (falls back to the CPU).

    Raises:
        BundleError: the file is not a graph ONNX Runtime can load.
        ConfigurationError: `cuda` was asked for and is not what the session got, or ONNX Runtime is not installed.
    """

    batch = MAX_BATCH

    def __init__(self, path: Path, provider: str = "cpu") -> None:
        try:
            import onnxruntime
        except ImportError as reason:
            raise ConfigurationError(
                "bundle.runtime: onnx needs the package onnxruntime: install the extra `cpu` or `gpu`"
            ) from reason
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        # What is not even compiled in is not asked for: ONNX Runtime would only warn on standard error.
        compiled = set(onnxruntime.get_available_providers())
        names = ("cpu",) if provider == "cpu" else ("cuda", "cpu")
        wanted = [_PROVIDERS[name] for name in names if _PROVIDERS[name] in compiled]
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=wanted)
        except Exception as reason:  # ONNX Runtime raises many unrelated types
            raise BundleError(f"{path}: not a graph ONNX Runtime can load: {_first_line(reason)}") from reason
        # The list of *available* providers always claims CUDA; only the session tells the truth.
        self.provider = "cuda" if _PROVIDERS["cuda"] in self._session.get_providers() else "cpu"
        if provider == "cuda" and self.provider != "cuda":
            raise ConfigurationError("bundle.provider: cuda was asked for, but the session runs on the CPU")
        self._outputs = [output.name for output in self._session.get_outputs()]

    def run(self, feeds: dict[str, Float32]) -> dict[str, NDArray[np.float32]]:
        """Return the graph's outputs by name."""
        return dict(zip(self._outputs, self._session.run(None, feeds), strict=True))

    def run_in_order(self, names: list[str], feeds: dict[str, Float32]) -> list[Float32]:
        """Return the named outputs in the order of `names`."""
        outputs: list[Float32] = self._session.run(names, feeds)
        return outputs


class Forecaster:
    """The forms of one forecaster: the step and, where there is one, the chunk, which carry state, or the window.

    Args:
        directory: the bundle's directory.
        inference: `step` (O(1) a sample, carries state) or `window` (stateless, O(T)).
        state_size: width of the packed state of the step graph.
        provider: see `OnnxGraph`; LiteRT runs on the CPU only.
        runtime: `onnx` or `litert`.
        precision: `float32` or `int8`.

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


def _first_line(reason: Exception) -> str:
    return str(reason).strip().splitlines()[0] if str(reason).strip() else type(reason).__name__
