"""Laws of running the forecaster's graphs."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_agent.contract.bundle import read_bundle
from edge_agent.contract.errors import BundleError, ConfigurationError
from edge_agent.contract.types import Float32
from edge_agent.forecaster import MAX_BATCH, Forecaster, OnnxGraph, _loaded_libraries
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
        forecast = step.advance(windows[:, tick : tick + 1], state)[:, 0]
    assert forecast.shape == (7, 1, len(SENSORS), 1)
    np.testing.assert_allclose(forecast, _forecaster("window").window(windows), rtol=0, atol=1e-5)


def test_a_large_batch_of_windows_equals_its_parts() -> None:
    """A batch beyond the limit forecasts row by row what small batches forecast."""
    windows, graph = _windows(2 * MAX_BATCH + 88), _forecaster("window")
    parts = [graph.window(windows[at : at + 50]) for at in range(0, len(windows), 50)]
    np.testing.assert_allclose(graph.window(windows), np.concatenate(parts), rtol=0, atol=1e-6)


@pytest.mark.parametrize("ticks", [1, 5])
def test_a_large_batch_of_steps_equals_its_parts(ticks: int) -> None:
    """A batch beyond the limit gives forecasts and states of small batches, tick by tick and in chunks."""
    inputs, graph = _windows(2 * MAX_BATCH + 88)[:, :ticks], _forecaster("step")
    together = np.random.default_rng(4).normal(size=(len(inputs), STATE)).astype(np.float32)
    apart = together.copy()
    forecast = graph.advance(inputs, together)
    parts = [graph.advance(inputs[at : at + 50], apart[at : at + 50]) for at in range(0, len(inputs), 50)]
    np.testing.assert_allclose(forecast, np.concatenate(parts), rtol=0, atol=1e-6)
    np.testing.assert_allclose(together, apart, rtol=0, atol=1e-6)


def test_a_chunk_is_its_steps() -> None:
    """Many ticks in one run forecast what one after the other does, and leave the same state."""
    inputs, graph = _windows(7), _forecaster("step")
    at_once, stepwise = np.zeros((2, 7, STATE), np.float32)
    found = graph.advance(inputs, at_once)
    steps = [graph.advance(inputs[:, tick : tick + 1], stepwise) for tick in range(WINDOW)]
    np.testing.assert_allclose(found, np.concatenate(steps, axis=1), rtol=0, atol=1e-6)
    np.testing.assert_allclose(at_once, stepwise, rtol=0, atol=1e-6)


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_cuda_is_never_claimed_without_a_gpu() -> None:
    """Where sessions cannot run on CUDA, `cuda` is refused and `auto` says that it runs on the CPU."""
    with pytest.raises(ConfigurationError, match=r"bundle\.provider: cuda was asked for"):
        Forecaster(TINY_BUNDLE, "step", STATE, "cuda")
    assert Forecaster(TINY_BUNDLE, "step", STATE, "auto").provider == "cpu"


def test_cuda_that_fails_is_one_line_and_nothing_printed(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """With the GPU's wheel and no GPU `cuda` says in one line why, `auto` runs on the CPU, and neither prints."""
    import onnxruntime

    class _WithoutGpu(onnxruntime.InferenceSession):  # type: ignore[misc]  # it has no types
        def _create_inference_session(self, providers: list[Any], *others: Any) -> None:
            self._fallback_providers = ["CPUExecutionProvider"]
            if providers != ["CPUExecutionProvider"]:
                raise RuntimeError("CUDA failure 100: no CUDA-capable device is detected\nand much more")
            super()._create_inference_session(providers, *others)

    monkeypatch.setattr(onnxruntime, "InferenceSession", _WithoutGpu)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    with pytest.raises(ConfigurationError, match=r"^bundle\.provider: cuda .*no CUDA-capable") as failure:
        Forecaster(TINY_BUNDLE, "step", STATE, "cuda")
    assert "\n" not in str(failure.value)
    forecaster = Forecaster(TINY_BUNDLE, "step", STATE, "auto")
    assert (forecaster.provider, forecaster.resident) == ("cpu", None)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "told", ["", "Failed to load libcublas.so.13: no such file\nPlease follow the page\n"]
)
def test_the_libraries_that_the_extra_brings_are_loaded_before_a_session_asks(
    told: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The system's loader does not look where pip puts CUDA; what is nowhere is the reason, and nothing is printed."""
    import onnxruntime

    def preload() -> None:
        print(told, end="")

    monkeypatch.setattr(onnxruntime, "preload_dlls", preload)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    _loaded_libraries.cache_clear()
    reason = told.split("\n")[0] or r"the session runs on the CPU$"
    with (
        pytest.warns(UserWarning, match="Specified provider"),
        pytest.raises(ConfigurationError, match=reason),
    ):
        Forecaster(TINY_BUNDLE, "step", STATE, "cuda")
    _loaded_libraries.cache_clear()
    assert capfd.readouterr().out == ""


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_a_file_that_is_no_graph_is_refused_where_cuda_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the GPU's wheel too the file is named, and CUDA is not blamed for it."""
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CUDAExecutionProvider"])
    (tmp_path / "step.onnx").write_bytes(b"not a graph")
    with pytest.raises(BundleError, match=r"step\.onnx: not a graph"):
        OnnxGraph(tmp_path / "step.onnx", "cuda")


@pytest.mark.parametrize("content", [b"", b"not a graph", None])
def test_a_file_that_is_no_graph_is_refused_by_name(tmp_path: Path, content: bytes | None) -> None:
    """An empty, a foreign and a missing file are refused in one line that names it."""
    path = tmp_path / "step.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BundleError, match=r"step\.onnx: not a graph") as failure:
        OnnxGraph(path)
    assert "\n" not in str(failure.value)
