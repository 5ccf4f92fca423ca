"""Proves that the exported graphs forecast what the trained model forecasts; refuses a wrong one with the reason."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_agent.contract.errors import BundleError, ExportError
from edge_agent.contract.types import Float32
from edge_agent.forecaster import Forecaster
from trainer.backend import keras, quiet_native_output
from trainer.export import CHUNK_GRAPH, graph_names
from trainer.model import ForecasterWeights
from trainer.network import build_window_model

TOLERANCE = 1e-5
"""Largest deviation from Keras that is accepted of a float32 graph, in scaled units."""
INT8_TOLERANCE = 0.1
"""Largest root mean square deviation of an int8 graph: a tenth of a sensor's deviation, on which the thresholds are
calibrated."""
_SLOW_NODES = ("Loop", "Scan", "If")


@dataclass(frozen=True)
class Proof:
    """What was found of each graph, by its name.

    Attributes:
        deviations: largest absolute deviation from the trained model, scaled units.
        sizes: bytes.
    """

    deviations: dict[str, float]
    sizes: dict[str, int]


def prove_parity(
    weights: ForecasterWeights, directory: Path, windows: Float32, precision: str = "float32"
) -> Proof:
    """Hold all graphs of a bundle against the model that was trained.

    Args:
        weights: of the trained model.
        directory: holds the graphs, see `graph_names`.
        windows: (n, T, I) real inputs.
        precision: of the bundle.

    Raises:
        ExportError: a graph is missing, too small for its weights, made of slow nodes, gives a number that is not
            finite or deviates by more than `TOLERANCE`, in int8 by more than `INT8_TOLERANCE`.
    """
    # On the CPU and without cuDNN: a GPU's shortened floats deviate by more than the graphs do.
    with keras.device("cpu:0"):
        given = build_window_model(weights)(windows)
    given = given[0] if isinstance(given, list | tuple) else given
    expected = np.asarray(keras.ops.convert_to_numpy(given))
    deviations, sizes = {}, {}
    for name in graph_names(weights.spec, precision):
        path = directory / name
        sizes[name] = _checked_size(path, weights)
        if path.suffix == ".onnx":
            _check_nodes(path, weights)
        deviations[name] = _deviation(path, run_graph(path, weights, windows), expected)
    return Proof(deviations, sizes)


def run_graph(path: Path, weights: ForecasterWeights, windows: Float32) -> Float32:
    """Return the (n, H, F, P) forecasts that a graph gives of windows (n, T, I), one that carries state from zero."""
    form, _, rest = path.name.partition(".")
    mode = "window" if form == "window" else "step"
    runtime = "litert" if path.suffix == ".tflite" else "onnx"
    precision = "int8" if rest.startswith("int8") else "float32"
    try:
        with quiet_native_output():  # LiteRT announces its delegate
            forecaster = Forecaster(
                path.parent, mode, weights.spec.state_size, runtime=runtime, precision=precision
            )
    except BundleError as reason:
        raise ExportError(str(reason)) from reason
    if mode == "window":
        return forecaster.window(windows)
    return run_chunk(forecaster, windows) if path.name == CHUNK_GRAPH else run_steps(forecaster, windows)


def run_chunk(forecaster: Forecaster, windows: Float32) -> Float32:
    """Return the (n, H, F, P) forecasts after the T samples of each window, taken at once, from zero state."""
    state = np.zeros((len(windows), forecaster.state_size), np.float32)
    return np.asarray(forecaster.advance(windows, state)[:, -1])


def run_steps(forecaster: Forecaster, windows: Float32) -> Float32:
    """Return the (n, H, F, P) forecasts of a step graph after the T samples of each window, from zero state."""
    state = np.zeros((len(windows), forecaster.state_size), np.float32)
    forecast = np.empty(0, np.float32)
    for tick in range(windows.shape[1]):
        forecast = forecaster.advance(np.ascontiguousarray(windows[:, tick : tick + 1]), state)[:, 0]
    return forecast


def _checked_size(path: Path, weights: ForecasterWeights) -> int:
    """Return the size of a file that can hold the LSTM layers: variables that were not frozen make a small one."""
    if not path.is_file():
        raise ExportError(f"{path}: was not exported")
    size = path.stat().st_size
    held = sum(array.nbytes for layer in weights.layers for array in layer)
    needed = held // 4 if ".int8." in path.name else held
    if size < needed:
        raise ExportError(f"{path}: {size} bytes cannot hold {needed} bytes of weights")
    return size


def _check_nodes(path: Path, weights: ForecasterWeights) -> None:
    """Refuse a graph over time whose LSTM layers did not each become one node, and slow nodes in any."""
    import onnx

    kinds = [node.op_type for node in onnx.load(str(path)).graph.node]
    slow = sorted({kind for kind in kinds if kind in _SLOW_NODES})
    if slow:
        raise ExportError(f"{path}: has {slow[0]} nodes, which are several times slower than LSTM nodes")
    fused = sum(kind in ("LSTM", "DynamicQuantizeLSTM") for kind in kinds)
    wanted = len(weights.spec.units) if path.name.startswith(("window", "chunk")) else 0
    if fused != wanted:
        raise ExportError(f"{path}: {len(weights.spec.units)} LSTM layers became {fused} LSTM nodes")


def _deviation(path: Path, forecast: Float32, expected: Float32) -> float:
    if forecast.shape != expected.shape:
        raise ExportError(f"{path}: forecast has shape {forecast.shape}, the model {expected.shape}")
    difference = np.abs(forecast - expected)
    rounded = ".int8." in path.name
    found = float(np.sqrt(np.mean(difference**2)) if rounded else np.max(difference))
    limit = INT8_TOLERANCE if rounded else TOLERANCE
    if not found <= limit:  # also refuses NaN
        raise ExportError(
            f"{path}: forecasts deviate from the trained model by {found:.2g}, allowed is {limit:g}"
        )
    return float(np.max(difference))
