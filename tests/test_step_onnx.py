"""Laws of the step graph in ONNX, beside those of parity."""

from collections import Counter
from pathlib import Path

import onnx
import onnxruntime

from tests.benchmarks.default_bundle import DEFAULT, random_weights
from trainer.step_onnx import step_graph


def test_activations_of_gates_run_within_their_products(tmp_path: Path) -> None:
    """ONNX Runtime fuses each gate's activation with its product, so only the cells' own are left."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    graph = step_graph(random_weights()).SerializeToString()
    onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    kinds = Counter(node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node)
    layers = len(DEFAULT.units)
    assert kinds["FusedGemm"] == 4 * layers
    assert kinds["Sigmoid"] == 0
    assert kinds["Tanh"] == layers
