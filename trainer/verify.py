"""Proves that the exported graphs forecast what the trained model forecasts; the one door to LiteRT."""

from pathlib import Path
from typing import Any

import numpy as np

from edge_agent.contract.errors import ExportError
from edge_agent.contract.types import Float32
from edge_agent.forecaster import OnnxGraph
from trainer.backend import keras, quiet_native_output
from trainer.export import CHUNK_GRAPH, STEP_GRAPH, TFLITE_WINDOW, WINDOW_GRAPH
from trainer.model import ModelSpec, build_window_model, weights_of

TOLERANCE = 1e-5
"""Largest deviation from Keras that is accepted, in scaled units."""


def prove_parity(model: Any, spec: ModelSpec, directory: Path, windows: Float32) -> dict[str, float]:
    """Compare the graphs in a directory with the model that was trained.

    Args:
        model: from `build_model`, trained.
        spec: its shape.
        directory: holds `window.onnx`, `step.onnx`, `chunk.onnx` and `window.tflite`.
        windows: (n, T, I) real inputs.

    Returns:
        the largest absolute deviation of each file, in scaled units.

    Raises:
        ExportError: a graph deviates by more than `TOLERANCE` or gives a number that is not finite.
    """
    # On the CPU and without cuDNN: a GPU's shortened floats deviate by more than the graphs do.
    with keras.device("cpu:0"):
        expected = np.asarray(
            keras.ops.convert_to_numpy(build_window_model(weights_of(model, spec))(windows))
        )
    forecasts = {
        WINDOW_GRAPH: _run_window(directory / WINDOW_GRAPH, windows),
        STEP_GRAPH: run_steps(directory / STEP_GRAPH, windows, spec.state_size),
        CHUNK_GRAPH: _run_chunk(directory / CHUNK_GRAPH, windows, spec.state_size),
        TFLITE_WINDOW: _run_tflite(directory / TFLITE_WINDOW, windows),
    }
    deviations = {}
    for name, forecast in forecasts.items():
        if forecast.shape != expected.shape:
            raise ExportError(
                f"{directory / name}: forecast has shape {forecast.shape}, the model {expected.shape}"
            )
        deviations[name] = float(np.max(np.abs(forecast - expected)))
        if not deviations[name] <= TOLERANCE:  # also refuses NaN
            raise ExportError(
                f"{directory / name}: forecasts deviate from the trained model by {deviations[name]:.2g}, "
                f"allowed is {TOLERANCE:g}"
            )
    return deviations


def run_steps(path: Path, windows: Float32, state_size: int) -> Float32:
    """Return the (n, H, F, P) forecasts of the step graph after the T samples of each window, from zero state."""
    graph = OnnxGraph(path)
    state = np.zeros((len(windows), state_size), np.float32)
    forecast = np.empty(0, np.float32)
    for step in range(windows.shape[1]):
        results = graph.run({"input": np.ascontiguousarray(windows[:, step]), "state": state})
        forecast, state = results["forecast"], results["next_state"]
    return forecast


def _run_chunk(path: Path, windows: Float32, state_size: int) -> Float32:
    """Return the same of the chunk graph, which takes the T samples at once."""
    state = np.zeros((len(windows), state_size), np.float32)
    forecast: Float32 = OnnxGraph(path).run({"input": windows, "state": state})["forecast"][:, -1]
    return forecast


def _run_window(path: Path, windows: Float32) -> Float32:
    forecast: Float32 = OnnxGraph(path).run({"window": windows})["forecast"]
    return forecast


def _run_tflite(path: Path, windows: Float32) -> Float32:
    """Return the forecasts of the LiteRT interpreter, one window at a time."""
    from ai_edge_litert.interpreter import Interpreter

    with quiet_native_output():  # it announces its delegate
        interpreter = Interpreter(model_path=str(path), num_threads=1)
        interpreter.allocate_tensors()
    source = interpreter.get_input_details()[0]["index"]
    result = interpreter.get_output_details()[0]["index"]
    forecasts = []
    for window in windows:
        interpreter.set_tensor(source, window[None])
        interpreter.invoke()
        forecasts.append(np.array(interpreter.get_tensor(result)))  # a copy: the next call overwrites it
    return np.concatenate(forecasts)
