"""Exported graphs forecast what the model forecasts, or are refused."""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_agent.contract.errors import ExportError
from edge_agent.contract.types import Float32
from edge_agent.forecaster import Forecaster, OnnxGraph
from trainer.export import (
    STEP_GRAPH,
    TFLITE_STEP,
    TFLITE_WINDOW,
    WINDOW_GRAPH,
    export_all,
    export_step,
    graph_names,
)
from trainer.model import ModelSpec, build_model, weights_of
from trainer.verify import TOLERANCE, prove_parity, run_steps

SPEC = ModelSpec(sensors=3, window_length=20, units=(8, 4), horizons=2)


@dataclass(frozen=True)
class Exported:
    """A model, its graphs, and windows to try them on."""

    model: Any
    directory: Path
    windows: Float32


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """A model whose every weight counts, and its graphs."""
    rng = np.random.default_rng(0)
    model = build_model(SPEC, rng.normal(0, 0.3, (10, 6)).astype(np.float32))
    model.get_layer("head").set_weights([rng.normal(size=(4, 6)), rng.normal(size=6)])
    directory = tmp_path_factory.mktemp("graphs")
    export_all(weights_of(model, SPEC), directory)
    mask = rng.random((7, 20, 3)) < 0.1
    windows = np.concatenate([rng.normal(size=(7, 20, 3)), mask], axis=2).astype(np.float32)
    return Exported(model, directory, windows)


def test_all_graphs_equal_the_model(exported: Exported) -> None:
    """Keras, the window graph, T steps from zero state and LiteRT agree to 1e-5."""
    weights = weights_of(exported.model, SPEC)
    deviations = prove_parity(weights, exported.directory, exported.windows).deviations
    assert set(deviations) == {WINDOW_GRAPH, STEP_GRAPH, TFLITE_WINDOW, TFLITE_STEP}
    assert max(deviations.values()) <= TOLERANCE


def test_graphs_take_any_batch_and_give_named_shapes(exported: Exported) -> None:
    """Both graphs serve one row and many, bit for bit the same, in the shapes of the contract."""
    window = OnnxGraph(exported.directory / WINDOW_GRAPH)
    many = window.run({"window": exported.windows})["forecast"]
    one = window.run({"window": exported.windows[:1]})["forecast"]
    assert many.shape == (7, 2, 3, 1)
    assert (one == many[:1]).all()
    results = OnnxGraph(exported.directory / STEP_GRAPH).run(
        {"input": exported.windows[:, 0], "state": np.zeros((7, SPEC.state_size), np.float32)}
    )
    assert results["forecast"].shape == (7, 2, 3, 1)
    assert results["next_state"].shape == (7, SPEC.state_size) == (7, 2 * 12 + 2 * 3)


def test_state_carries_the_past(exported: Exported) -> None:
    """Samples before a window change the forecast of the step graph when the state is carried over."""
    forecaster = Forecaster(exported.directory, "step", SPEC.state_size)
    fresh = run_steps(forecaster, exported.windows[:, 10:])
    carried = run_steps(forecaster, exported.windows)
    assert np.abs(fresh - carried).max() > 1e-3


@pytest.mark.parametrize("bias", [1e-3, np.nan])
def test_deviating_graph_is_refused(exported: Exported, tmp_path: Path, bias: float) -> None:
    """A graph that deviates or gives NaN is refused by name."""
    for name in graph_names(SPEC):
        shutil.copy(exported.directory / name, tmp_path / name)
    weights = weights_of(exported.model, SPEC)
    export_step(replace(weights, head_bias=weights.head_bias + np.float32(bias)), tmp_path / STEP_GRAPH)
    with pytest.raises(ExportError, match=r"step\.onnx: forecasts deviate"):
        prove_parity(weights, tmp_path, exported.windows)


def test_failed_export_is_one_line(exported: Exported, tmp_path: Path) -> None:
    """An export that fails in its own process comes back as one clear line."""
    weights = weights_of(exported.model, SPEC)
    broken = replace(weights, head_bias=weights.head_bias[:1])
    with pytest.raises(ExportError, match="could not be exported") as failure:
        export_all(broken, tmp_path)
    assert "\n" not in str(failure.value)
