"""Exported graphs are those that were asked for, in the shapes of the contract."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge_agent.contract.errors import ExportError
from edge_agent.forecaster import Forecaster, OnnxGraph
from tests.architectures import ARCHITECTURES, Example, random_model, random_windows
from trainer.export import STEP_GRAPH, WINDOW_GRAPH, Job, export_all, export_graphs, export_step, graph_names
from trainer.model import weights_of
from trainer.verify import run_steps


def test_a_bundle_has_a_graph_for_each_mode_runtime_and_precision(rounded: Example) -> None:
    """An int8 bundle has eight graphs, a float32 one four, one with attention those of windows only."""
    spec = rounded.weights.spec
    names = graph_names(spec, "int8")
    assert sorted(path.name for path in rounded.directory.iterdir()) == sorted(names)
    assert len(names) == 8
    assert graph_names(spec) == ("window.onnx", "step.onnx", "window.tflite", "step.tflite")
    assert graph_names(ARCHITECTURES["attention"], "int8") == (
        "window.onnx", "window.tflite", "window.int8.onnx", "window.int8.tflite",
    )  # fmt: skip


def test_graphs_take_any_batch_and_give_named_shapes(rounded: Example) -> None:
    """Both ONNX graphs serve one row and many, bit for bit the same, in the shapes of the contract."""
    spec, windows = rounded.weights.spec, random_windows(rounded.weights.spec, 7)
    window = OnnxGraph(rounded.directory / WINDOW_GRAPH)
    many = window.run({"window": windows})["forecast"]
    one = window.run({"window": windows[:1]})["forecast"]
    assert many.shape == (7, 2, 3, 1)
    assert (one == many[:1]).all()
    results = OnnxGraph(rounded.directory / STEP_GRAPH).run(
        {"input": windows[:, 0], "state": np.zeros((7, spec.state_size), np.float32)}
    )
    assert results["forecast"].shape == (7, 2, 3, 1)
    assert results["next_state"].shape == (7, spec.state_size) == (7, 2 * 36 + 2 * 3)


def test_state_carries_the_past(rounded: Example) -> None:
    """Samples before a window change the forecast of the step graph when the state is carried over."""
    forecaster = Forecaster(rounded.directory, "step", rounded.weights.spec.state_size)
    fresh = run_steps(forecaster, rounded.windows[:, 4:])
    carried = run_steps(forecaster, rounded.windows)
    assert np.abs(fresh - carried).max() > 1e-3


def test_a_graph_alone_leaves_nothing_else(rounded: Example, tmp_path: Path) -> None:
    """Of the int8 step alone, as folds are calibrated with, no float32 graph stays behind."""
    export_graphs([Job(rounded.weights, tmp_path, ("step.int8.onnx",))])
    assert [path.name for path in tmp_path.iterdir()] == ["step.int8.onnx"]
    assert (tmp_path / "step.int8.onnx").read_bytes() == (rounded.directory / "step.int8.onnx").read_bytes()


def test_attention_has_no_step_graph(tmp_path: Path) -> None:
    """What looks at the whole window is refused as a step by its reason."""
    spec = ARCHITECTURES["attention"]
    with pytest.raises(ExportError, match="it has no step form"):
        export_step(weights_of(random_model(spec), spec), tmp_path / STEP_GRAPH)


def test_failed_export_is_one_line(rounded: Example, tmp_path: Path) -> None:
    """An export that fails in its own process comes back as one clear line."""
    broken = replace(rounded.weights, head_bias=rounded.weights.head_bias[:1])
    with pytest.raises(ExportError, match="could not be exported") as failure:
        export_all(broken, tmp_path)
    assert "\n" not in str(failure.value)
