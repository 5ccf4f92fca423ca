"""Laws of running the forecaster's graphs."""

from pathlib import Path

import numpy as np
import pytest

from edge_agent.contract.bundle import read_bundle
from edge_agent.contract.errors import BundleError, ConfigurationError
from edge_agent.contract.types import Float32
from edge_agent.forecaster import MAX_BATCH, Forecaster, OnnxGraph
from tests.tiny_machine import SENSORS, TINY_BUNDLE, WINDOW

STATE = read_bundle(TINY_BUNDLE).manifest.state_size
INPUTS = 2 * len(SENSORS)


def _forecaster(inference: str) -> Forecaster:
    return Forecaster(TINY_BUNDLE, inference, STATE)


def _windows(count: int) -> Float32:
    rng = np.random.default_rng(3)
    values = rng.normal(size=(count, WINDOW, len(SENSORS)))
    return np.concatenate([values, rng.random(values.shape) < 0.1], axis=2).astype(np.float32)


def test_a_window_is_its_steps_from_zero() -> None:
    """T steps from a zero state forecast what the window graph forecasts, to 1e-5."""
    windows = _windows(7)
    step = _forecaster("step")
    state = np.zeros((7, STATE), np.float32)
    for tick in range(WINDOW):
        forecast, state = step.step(windows[:, tick], state)
    assert forecast.shape == (7, 1, len(SENSORS), 1)
    np.testing.assert_allclose(forecast, _forecaster("window").window(windows), rtol=0, atol=1e-5)


def test_a_large_batch_of_windows_equals_its_parts() -> None:
    """A batch beyond the limit forecasts row by row what small batches forecast."""
    windows, graph = _windows(2 * MAX_BATCH + 88), _forecaster("window")
    parts = [graph.window(windows[at : at + 50]) for at in range(0, len(windows), 50)]
    np.testing.assert_allclose(graph.window(windows), np.concatenate(parts), rtol=0, atol=1e-6)


def test_a_large_batch_of_steps_equals_its_parts() -> None:
    """A step of a batch beyond the limit gives forecasts and states of small batches."""
    inputs, graph = _windows(2 * MAX_BATCH + 88)[:, 0], _forecaster("step")
    state = np.random.default_rng(4).normal(size=(len(inputs), STATE)).astype(np.float32)
    forecast, after = graph.step(inputs, state)
    parts = [graph.step(inputs[at : at + 50], state[at : at + 50]) for at in range(0, len(inputs), 50)]
    np.testing.assert_allclose(forecast, np.concatenate([part[0] for part in parts]), rtol=0, atol=1e-6)
    np.testing.assert_allclose(after, np.concatenate([part[1] for part in parts]), rtol=0, atol=1e-6)


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_cuda_is_never_claimed_without_a_gpu() -> None:
    """Where sessions cannot run on CUDA, `cuda` is refused and `auto` says that it runs on the CPU."""
    with pytest.raises(ConfigurationError, match=r"bundle\.provider: cuda was asked for"):
        Forecaster(TINY_BUNDLE, "step", STATE, "cuda")
    assert Forecaster(TINY_BUNDLE, "step", STATE, "auto").provider == "cpu"


@pytest.mark.parametrize("content", [b"", b"not a graph", None])
def test_a_file_that_is_no_graph_is_refused_by_name(tmp_path: Path, content: bytes | None) -> None:
    """An empty, a foreign and a missing file are refused in one line that names it."""
    path = tmp_path / "step.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BundleError, match=r"step\.onnx: not a graph") as failure:
        OnnxGraph(path)
    assert "\n" not in str(failure.value)
