"""Run the forecaster's graphs with ONNX Runtime; no other module knows ONNX Runtime."""

import os
from pathlib import Path

import numpy as np

# A daemon beside a machine reports to nobody but its operator; after the import it would be too late to say so.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime
from numpy.typing import NDArray

from edge_agent.contract.bundle import CHUNK
from edge_agent.contract.errors import BundleError, ConfigurationError
from edge_agent.contract.types import Float32

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
        ConfigurationError: `cuda` was asked for and is not what the session got.
    """

    def __init__(self, path: Path, provider: str = "cpu") -> None:
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
    """The forms of one forecaster: the step and the chunk, which carry state, or the window.

    Args:
        directory: the bundle's directory.
        inference: `step` (O(1) a sample, carries state) or `window` (stateless, O(T)).
        state_size: width of the packed state of the step graph.
        provider: see `OnnxGraph`.
    """

    def __init__(self, directory: Path, inference: str, state_size: int, provider: str = "cpu") -> None:
        self.inference = inference
        self.state_size = state_size
        self._graph = OnnxGraph(directory / f"{inference}.onnx", provider)
        self._chunk = OnnxGraph(directory / CHUNK, provider) if inference == "step" else None
        self.provider = self._graph.provider

    def advance(self, inputs: Float32, state: Float32) -> Float32:
        """Advance L ticks.

        Args:
            inputs: (B, L, I) scaled inputs.
            state: (B, S) packed state, zero at the start; changed in place.

        Returns:
            The forecasts (B, L, H, F, P) of the ticks after each.
        """
        if inputs.shape[1] == 1 or self._chunk is None:
            return self._in_batches(self._graph, inputs[:, 0], state)[:, None]
        return self._in_batches(self._chunk, inputs, state)

    def _in_batches(self, graph: OnnxGraph, inputs: Float32, state: Float32) -> Float32:
        """Run a graph that carries state, however many assets there are."""
        forecasts = []
        for at in range(0, len(inputs), MAX_BATCH):
            part = slice(at, at + MAX_BATCH)
            forecast, state[part] = graph.run_in_order(
                _CARRIED, {"input": inputs[part], "state": state[part]}
            )
            forecasts.append(forecast)
        return forecasts[0] if len(forecasts) == 1 else np.concatenate(forecasts)

    def window(self, windows: Float32) -> Float32:
        """Forecast (B, H, F, P) from windows (B, T, I) of scaled inputs, oldest row first."""
        parts = [
            self._graph.run_in_order(["forecast"], {"window": windows[at : at + MAX_BATCH]})[0]
            for at in range(0, len(windows), MAX_BATCH)
        ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _first_line(reason: Exception) -> str:
    return str(reason).strip().splitlines()[0] if str(reason).strip() else type(reason).__name__
