"""Rounding to int8 stays within a row and away from what adds up the forecast."""

import numpy as np
import onnx
import pytest

from edge_agent.forecaster import Forecaster
from tests.architectures import Example


@pytest.mark.parametrize(
    ("name", "rounded_nodes"),
    [("step.int8.onnx", "MatMulInteger"), ("window.int8.onnx", "DynamicQuantizeLSTM")],
)
def test_only_the_lstm_layers_are_rounded(name: str, rounded_nodes: str, rounded: Example) -> None:
    """Each LSTM layer is one product in int8; head and highway stay in float32."""
    kinds = [node.op_type for node in onnx.load(str(rounded.directory / name)).graph.node]
    assert kinds.count(rounded_nodes) == len(rounded.weights.spec.units)
    assert "MatMul" in kinds or "Gemm" in kinds


@pytest.mark.parametrize("runtime", ["onnx", "litert"])
def test_an_outlier_leaves_its_neighbours_as_they_are(runtime: str, rounded: Example) -> None:
    """In int8 a row of a batch gives bit for bit what it gives alone, whatever the others are."""
    spec = rounded.weights.spec
    step = Forecaster(rounded.directory, "step", spec.state_size, runtime=runtime, precision="int8")
    window = Forecaster(rounded.directory, "window", spec.state_size, runtime=runtime, precision="int8")
    windows = rounded.windows.copy()
    windows[1] *= 1000.0
    state = np.random.default_rng(0).normal(size=(len(windows), spec.state_size)).astype(np.float32)
    after, after_alone = state.copy(), state[:1].copy()
    together = step.advance(windows[:, :1], after)
    alone = step.advance(windows[:1, :1], after_alone)
    np.testing.assert_array_equal(together[:1], alone)
    np.testing.assert_array_equal(after[:1], after_alone)
    np.testing.assert_array_equal(window.window(windows)[:1], window.window(windows[:1]))
