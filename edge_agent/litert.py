"""Run the forecaster's TFLite graphs with LiteRT, for devices too small for ONNX Runtime; no other module knows it.

LiteRT is imported when a graph is opened, since most devices have no need of it.
"""

from pathlib import Path
from typing import Any

import numpy as np

from edge_agent.contract.errors import BundleError, ConfigurationError
from edge_agent.contract.types import Float32

_OUTPUTS_BY_RANK = {2: "next_state", 3: "state_probability", 4: "forecast"}
"""The converter gives outputs names of its own; what they are is seen by their shapes."""


class LiteRtGraph:
    """One TFLite graph in one interpreter with one thread; its batch is always 1.

    Args:
        path: the `.tflite` file.

    Raises:
        BundleError: the file is not a graph LiteRT can load.
        ConfigurationError: LiteRT is not installed.
    """

    batch = 1
    provider = "cpu"

    def __init__(self, path: Path) -> None:
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError as reason:
            raise ConfigurationError(
                "bundle.runtime: litert needs the package ai-edge-litert: install the extra `litert`"
            ) from reason
        try:
            self._interpreter = Interpreter(model_content=path.read_bytes(), num_threads=1)
            self._interpreter.allocate_tensors()
            self._inputs = {detail["name"]: detail["index"] for detail in self._details("input")}
            self._outputs = {
                _OUTPUTS_BY_RANK[len(detail["shape"])]: detail["index"] for detail in self._details("output")
            }
        except (OSError, ValueError, RuntimeError, KeyError) as reason:
            lines = str(reason).strip().splitlines() or [type(reason).__name__]
            raise BundleError(f"{path}: not a graph LiteRT can load: {lines[0]}") from reason

    def _details(self, end: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = getattr(self._interpreter, f"get_{end}_details")()
        return found

    def run_in_order(self, names: list[str], feeds: dict[str, Float32]) -> list[Float32]:
        """Return the named outputs in the order of `names`, for one row."""
        for name, values in feeds.items():
            self._interpreter.set_tensor(self._inputs[name], values)
        self._interpreter.invoke()
        # A copy: the next call writes into the same memory.
        return [np.array(self._interpreter.get_tensor(self._outputs[name])) for name in names]
