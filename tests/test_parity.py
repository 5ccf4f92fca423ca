"""Every architecture forecasts the same in the form in which it is trained and in every graph that it has."""

from pathlib import Path

import numpy as np
import pytest

from edge_agent.forecaster import OnnxGraph
from tests.architectures import ARCHITECTURES, SENSORS, Example, random_example
from trainer.export import (
    CHUNK_GRAPH,
    STEP_GRAPH,
    TFLITE_STEP,
    TFLITE_WINDOW,
    WINDOW_GRAPH,
    Job,
    export_graphs,
    graph_names,
)
from trainer.verify import TOLERANCE, prove_parity, run_graph

GRAPHS = (WINDOW_GRAPH, STEP_GRAPH, CHUNK_GRAPH, TFLITE_WINDOW, TFLITE_STEP)
CARRIED = (STEP_GRAPH, CHUNK_GRAPH, TFLITE_STEP)
DOCUMENT = Path(__file__).parent.parent / "docs" / "trainer.md"


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Example]:
    """All architectures with all their graphs, written by one start of TensorFlow."""
    root = tmp_path_factory.mktemp("graphs")
    made = {
        name: random_example(spec, root / str(number))
        for number, (name, spec) in enumerate(ARCHITECTURES.items())
    }
    export_graphs([Job(one.weights, one.directory, graph_names(one.weights.spec)) for one in made.values()])
    return made


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_graph_gives_what_the_trained_form_gives(
    name: str, graph: str, examples: dict[str, Example]
) -> None:
    """Window, T steps and a chunk of T from zero state, in ONNX and TFLite, agree to 1e-5; or have no graph."""
    example = examples[name]
    spec = example.weights.spec
    if graph not in graph_names(spec):
        assert spec.attention_heads
        assert graph in CARRIED
        assert not (example.directory / graph).exists()
        return
    found = run_graph(example.directory / graph, example.weights, example.windows)
    assert found.shape == example.forecast.shape == (5, spec.horizons, SENSORS, spec.parameters)
    assert np.std(example.forecast) > 0.05
    np.testing.assert_allclose(found, example.forecast, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("name", [name for name, spec in ARCHITECTURES.items() if spec.state_size == 1])
def test_what_has_no_step_form_is_proven_without(name: str, examples: dict[str, Example]) -> None:
    """With attention the figures of a bundle are those of its window graphs."""
    example = examples[name]
    proof = prove_parity(example.weights, example.directory, example.windows)
    assert set(proof.deviations) == set(proof.sizes) == {WINDOW_GRAPH, TFLITE_WINDOW}
    assert max(proof.deviations.values()) <= TOLERANCE


@pytest.mark.parametrize(
    "name", [name for name, spec in ARCHITECTURES.items() if spec.head.kind == "softmax"]
)
def test_the_probability_of_each_state_is_an_output(name: str, examples: dict[str, Example]) -> None:
    """Beside the forecast the graphs of a softmax head give the states' probabilities, which sum to 1."""
    example = examples[name]
    graph = OnnxGraph(example.directory / WINDOW_GRAPH)
    found = [graph.run({"window": example.windows})["state_probability"]]
    spec = example.weights.spec
    if spec.has_step_form:
        state = np.zeros((len(example.windows), spec.state_size), np.float32)
        chunk = OnnxGraph(example.directory / CHUNK_GRAPH).run({"input": example.windows, "state": state})
        found.append(chunk["state_probability"][:, -1])
    assert example.probability is not None
    for one in found:
        np.testing.assert_allclose(one, example.probability, rtol=0, atol=TOLERANCE)
        np.testing.assert_allclose(one.sum(axis=-1), 1.0, atol=1e-6)


def test_the_documents_say_which_graphs_there_are() -> None:
    """The table in docs/trainer.md has a row for each architecture of this test, and its marks are true."""
    text = DOCUMENT.read_text(encoding="utf-8")
    header = "| Architecture | " + " | ".join(f"`{graph}`" for graph in GRAPHS) + " |"
    table = text[text.index(header) :].partition("\n\n")[0].splitlines()[2:]
    rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in table]
    written = {name: marks for name, *marks in rows}
    expected = {
        name: ["yes" if graph in graph_names(spec) else "no: windows only" for graph in GRAPHS]
        for name, spec in ARCHITECTURES.items()
    }
    assert written == expected
