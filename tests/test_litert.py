"""LiteRT in place of ONNX Runtime."""

import sys
from pathlib import Path

import numpy as np
import pytest

from edge_agent.contract.errors import BundleError, ConfigurationError
from edge_agent.forecaster import Forecaster, OnnxGraph
from edge_agent.litert import LiteRtGraph
from tests.architectures import Example
from tests.tiny_machine import TINY_BUNDLE


def test_both_runtimes_step_alike(rounded: Example) -> None:
    """Forecasts and states of a batch agree to 1e-5, row by row, however large it is."""
    spec = rounded.weights.spec
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(40, spec.inputs)).astype(np.float32)
    state = rng.normal(size=(40, spec.state_size)).astype(np.float32)
    states = [state, state.copy()]
    given, found = (
        Forecaster(rounded.directory, "step", spec.state_size, runtime=runtime).advance(
            inputs[:, None], carried
        )
        for runtime, carried in zip(("onnx", "litert"), states, strict=True)
    )
    np.testing.assert_allclose(found, given, rtol=0, atol=1e-5)
    np.testing.assert_allclose(states[1], states[0], rtol=0, atol=1e-5)


def test_a_result_is_not_overwritten_by_the_next(rounded: Example) -> None:
    """What a call returned stays as it was after further calls."""
    graph = LiteRtGraph(rounded.directory / "window.tflite")
    first = graph.run_in_order(["forecast"], {"window": rounded.windows[:1]})[0]
    kept = first.copy()
    graph.run_in_order(["forecast"], {"window": rounded.windows[1:2] + 1.0})
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize("content", [None, b"", b"not a graph at all", b"\0" * 5000])
def test_a_file_that_is_no_graph_is_refused_by_name(tmp_path: Path, content: bytes | None) -> None:
    """A missing, an empty and a foreign file are refused in one line that names it."""
    path = tmp_path / "step.tflite"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BundleError, match=r"step\.tflite: not a graph") as failure:
        LiteRtGraph(path)
    assert "\n" not in str(failure.value)


def test_a_runtime_that_is_not_installed_is_named(rounded: Example, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its package either runtime is refused with the extra that brings it; each runs without the other's."""
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(ConfigurationError, match=r"install the extra `litert`"):
        LiteRtGraph(rounded.directory / "step.tflite")
    OnnxGraph(TINY_BUNDLE / "step.onnx")
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ConfigurationError, match=r"install the extra `cpu` or `gpu`"):
        OnnxGraph(TINY_BUNDLE / "step.onnx")
    LiteRtGraph(rounded.directory / "step.tflite")


def test_cuda_is_refused(rounded: Example) -> None:
    """LiteRT runs on the CPU: `cuda` is an error, `auto` is the CPU."""
    size = rounded.weights.spec.state_size
    with pytest.raises(ConfigurationError, match=r"bundle\.provider: cuda was asked for"):
        Forecaster(rounded.directory, "step", size, "cuda", "litert")
    assert Forecaster(rounded.directory, "step", size, "auto", "litert").provider == "cpu"
