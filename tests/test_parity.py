"""Every architecture forecasts the same in the form in which it is trained and in every graph that it has."""

from pathlib import Path

import numpy as np
import pytest

from edge_agent.forecaster import OnnxGraph
from tests.architectures import (
    ARCHITECTURES,
    SENSORS,
    Example,
    forecast_of,
    random_example,
    random_windows,
)
from trainer.export import (
    STEP_GRAPH,
    TFLITE_STEP,
    TFLITE_WINDOW,
    WINDOW_GRAPH,
    export_graphs,
    graph_names,
)
from trainer.verify import TOLERANCE, prove_parity, run_graph

GRAPHS = (WINDOW_GRAPH, STEP_GRAPH, TFLITE_WINDOW, TFLITE_STEP)
MISSING = "windows only: attention looks at all of them"
DOCUMENT = Path(__file__).parent.parent / "docs" / "trainer.md"


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Example]:
    """All architectures with all their graphs, written by two starts of TensorFlow."""
    root = tmp_path_factory.mktemp("graphs")
    made = {
        name: random_example(spec, root / str(number))
        for number, (name, spec) in enumerate(ARCHITECTURES.items())
    }
    for step_form in (True, False):
        alike = [one for one in made.values() if one.weights.spec.has_step_form == step_form]
        export_graphs([(one.weights, one.directory) for one in alike], graph_names(alike[0].weights.spec))
    return made


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_graph_gives_what_the_trained_form_gives(
    name: str, graph: str, examples: dict[str, Example]
) -> None:
    """Window and T steps from zero state, in ONNX and TFLite, agree to 1e-5; a graph is there or is named as missing."""
    example = examples[name]
    spec = example.weights.spec
    if graph not in graph_names(spec):
        assert not spec.has_step_form and graph in (STEP_GRAPH, TFLITE_STEP)
        assert not (example.directory / graph).exists()
        return
    windows = random_windows(spec, 5)
    expected, _ = forecast_of(example, windows)
    found = run_graph(example.directory / graph, example.weights, windows)
    assert found.shape == expected.shape == (5, spec.horizons, SENSORS, spec.parameters)
    assert np.std(expected) > 0.05
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_each_is_proven_as_it_would_be_released(name: str, examples: dict[str, Example]) -> None:
    """No architecture becomes a graph that `fit` would refuse, and figures of each graph are kept."""
    example = examples[name]
    spec = example.weights.spec
    proof = prove_parity(example.weights, example.directory, random_windows(spec, 3))
    assert set(proof.deviations) == set(proof.sizes) == set(graph_names(spec))
    assert max(proof.deviations.values()) <= TOLERANCE


@pytest.mark.parametrize(
    "name", [name for name, spec in ARCHITECTURES.items() if spec.head.kind == "softmax"]
)
def test_the_probability_of_each_state_is_an_output(name: str, examples: dict[str, Example]) -> None:
    """Beside the forecast the graphs of a softmax head give the states' probabilities, which sum to 1."""
    example = examples[name]
    windows = random_windows(example.weights.spec, 5)
    _, expected = forecast_of(example, windows)
    assert expected is not None
    found = OnnxGraph(example.directory / WINDOW_GRAPH).run({"window": windows})["state_probability"]
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(found.sum(axis=-1), 1.0, atol=1e-6)
