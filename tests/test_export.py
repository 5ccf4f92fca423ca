"""Exported graphs are those that were asked for, in the shapes of the contract."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.contract.errors import ExportError
from edge_agent.contract.types import Float32
from edge_agent.forecaster import Forecaster, OnnxGraph
from tests.architectures import ARCHITECTURES, Example, random_model, random_windows
from trainer.chunk_onnx import chunk_graph
from trainer.export import (
    CHUNK_GRAPH,
    STEP_GRAPH,
    WINDOW_GRAPH,
    Job,
    deployed_graphs,
    export_all,
    export_graphs,
    export_recurrent,
    graph_names,
)
from trainer.model import ForecasterWeights
from trainer.network import weights_of
from trainer.step_onnx import step_graph
from trainer.verify import TOLERANCE, run_steps


def test_a_bundle_has_a_graph_for_each_mode_runtime_and_precision(rounded: Example) -> None:
    """Windows and steps in both runtimes and precisions; chunks in float32; with attention windows only."""
    spec = rounded.weights.spec
    names = graph_names(spec, "int8")
    assert sorted(path.name for path in rounded.directory.iterdir()) == sorted(names)
    assert len(names) == 8
    assert graph_names(spec) == (
        "window.onnx", "step.onnx", "window.tflite", "step.tflite", "chunk.onnx",
    )  # fmt: skip
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


@dataclass(frozen=True)
class Recurrent:
    """A forecaster that carries state.

    Attributes:
        forecaster: in step mode.
        inputs: (B, L, I).
        state: (B, S), not at its beginning.
    """

    forecaster: Forecaster
    inputs: Float32
    state: Float32


STEPPED = [name for name, spec in ARCHITECTURES.items() if spec.has_step_form]


@pytest.fixture(scope="module", params=[*STEPPED, "LiteRT"])
def recurrent(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, rounded: Example
) -> Recurrent:
    """Every architecture that has a step form, with its chunk graph, and the step of LiteRT, which has none."""
    if request.param == "LiteRT":
        spec, directory, runtime = rounded.weights.spec, rounded.directory, "litert"
    else:
        spec, directory, runtime = ARCHITECTURES[request.param], tmp_path_factory.mktemp("graphs"), "onnx"
        export_recurrent(weights_of(random_model(spec), spec), directory)
        assert {path.name for path in directory.iterdir()} == {STEP_GRAPH, CHUNK_GRAPH}
    state = np.random.default_rng(1).normal(size=(7, spec.state_size)).astype(np.float32)
    inputs = random_windows(replace(spec, window_length=20), 7)
    return Recurrent(Forecaster(directory, "step", spec.state_size, runtime=runtime), inputs, state)


def test_chunks_are_beside_steps_in_float32() -> None:
    """Steps of ONNX Runtime in float32 have chunks beside them; windows, int8 and LiteRT have none."""
    assert deployed_graphs("step") == (STEP_GRAPH, CHUNK_GRAPH)
    assert deployed_graphs("window") == (WINDOW_GRAPH,)
    assert deployed_graphs("step", precision="int8") == ("step.int8.onnx",)
    assert deployed_graphs("step", "litert") == ("step.tflite",)


@settings(max_examples=10, deadline=None)
@given(cuts=st.lists(st.integers(1, 19), max_size=4))
def test_a_chunk_cut_anywhere_is_its_steps(recurrent: Recurrent, cuts: list[int]) -> None:
    """Wherever ticks are cut into chunks, each forecast and the state at the end are those of single steps."""
    inputs, once, carried = recurrent.inputs, recurrent.state.copy(), recurrent.state.copy()
    ticks = range(inputs.shape[1])
    expected = [recurrent.forecaster.advance(inputs[:, tick : tick + 1], once)[:, 0] for tick in ticks]
    found = []
    for first, end in pairwise(sorted({0, inputs.shape[1], *cuts})):
        found.append(recurrent.forecaster.advance(inputs[:, first:end], carried))
    np.testing.assert_allclose(np.concatenate(found, axis=1), np.stack(expected, axis=1), atol=TOLERANCE)
    np.testing.assert_allclose(carried, once, atol=TOLERANCE)


def test_a_graph_alone_leaves_nothing_else(rounded: Example, tmp_path: Path) -> None:
    """Of the int8 step alone, as folds are calibrated with, no float32 graph stays behind."""
    export_graphs([Job(rounded.weights, tmp_path, ("step.int8.onnx",))])
    assert [path.name for path in tmp_path.iterdir()] == ["step.int8.onnx"]
    assert (tmp_path / "step.int8.onnx").read_bytes() == (rounded.directory / "step.int8.onnx").read_bytes()


@pytest.mark.parametrize(("form", "graph"), [("step", step_graph), ("chunk", chunk_graph)])
def test_attention_carries_nothing(form: str, graph: Callable[[ForecasterWeights], Any]) -> None:
    """What looks at the whole window is refused as a step and as a chunk by its reason."""
    spec = ARCHITECTURES["attention"]
    with pytest.raises(ExportError, match=f"looks at the whole window: it has no {form} form"):
        graph(weights_of(random_model(spec), spec))


def test_failed_export_is_one_line(rounded: Example, tmp_path: Path) -> None:
    """An export that fails in its own process comes back as one clear line."""
    broken = replace(rounded.weights, head_bias=rounded.weights.head_bias[:1])
    with pytest.raises(ExportError, match="could not be exported") as failure:
        export_all(broken, tmp_path)
    assert "\n" not in str(failure.value)
