"""A wrong graph is refused, each kind of it with its reason and the name of the file."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from edge_agent.contract.errors import ExportError
from tests.architectures import ARCHITECTURES, Example, random_model
from trainer.export import Job, export_graphs, graph_names
from trainer.model import ForecasterWeights
from trainer.network import build_window_model, weights_of
from trainer.quantize import quantize
from trainer.verify import INT8_TOLERANCE, TOLERANCE, prove_parity

Damage = Callable[[Path, ForecasterWeights], None]


@pytest.fixture
def copied(rounded: Example, tmp_path: Path) -> Path:
    """All graphs of the example, to be damaged."""
    for name in graph_names(rounded.weights.spec, "int8"):
        shutil.copy(rounded.directory / name, tmp_path / name)
    return tmp_path


def test_right_graphs_pass_with_figures_of_each(rounded: Example) -> None:
    """Float32 graphs are within 1e-5; int8 graphs deviate by more, are let through, and are the smaller files."""
    proof = prove_parity(rounded.weights, rounded.directory, rounded.windows, "int8")
    assert set(proof.deviations) == set(proof.sizes) == set(graph_names(rounded.weights.spec, "int8"))
    for name, deviation in proof.deviations.items():
        if ".int8." in name:
            assert deviation > TOLERANCE
            assert proof.sizes[name] < 0.9 * proof.sizes[name.replace(".int8", "")]
        else:
            assert deviation <= TOLERANCE
        assert proof.sizes[name] == (rounded.directory / name).stat().st_size


def _write_step(weights: ForecasterWeights, directory: Path) -> None:
    export_graphs([Job(weights, directory, ("step.onnx",))])


def _biased(by: float) -> Damage:
    def damage(directory: Path, weights: ForecasterWeights) -> None:
        _write_step(replace(weights, head_bias=weights.head_bias + np.float32(by)), directory)

    return damage


def _with_a_loop(directory: Path, _weights: ForecasterWeights) -> None:
    """Add a loop beside what the graph does; of its result nothing is used."""
    model = onnx.load(str(directory / "window.onnx"))
    info, bits = onnx.helper.make_tensor_value_info, onnx.TensorProto.BOOL
    node = onnx.helper.make_node("Identity", ["going"], ["goes_on"])
    body = onnx.helper.make_graph(
        [node],
        "body",
        [info("turn", onnx.TensorProto.INT64, []), info("going", bits, [])],
        [info("goes_on", bits, [])],
    )
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(3), "turns"))
    model.graph.node.append(onnx.helper.make_node("Loop", ["turns", ""], [], body=body))
    onnx.save(model, directory / "window.onnx")


def _unfused(directory: Path, _weights: ForecasterWeights) -> None:
    shutil.copy(directory / "step.onnx", directory / "window.onnx")


def _without_weights(directory: Path, _weights: ForecasterWeights) -> None:
    (directory / "step.tflite").write_bytes((directory / "step.tflite").read_bytes()[:2000])


def _torn(directory: Path, _weights: ForecasterWeights) -> None:
    content = (directory / "step.tflite").read_bytes()
    (directory / "step.tflite").write_bytes(b"\0" * len(content))


def _missing(directory: Path, _weights: ForecasterWeights) -> None:
    (directory / "window.tflite").unlink()


def _of_another_shape(directory: Path, weights: ForecasterWeights) -> None:
    half = weights.spec.outputs // 2
    spec = replace(weights.spec, horizons=1)
    _write_step(
        replace(
            weights,
            spec=spec,
            head_kernel=weights.head_kernel[:, :half],
            head_bias=weights.head_bias[:half],
            highway=weights.highway[:, :half],
        ),
        directory,
    )


def _roughly_rounded(directory: Path, weights: ForecasterWeights) -> None:
    other = directory / "other"
    other.mkdir()
    _write_step(replace(weights, head_bias=weights.head_bias + np.float32(0.5)), other)
    quantize(other / "step.onnx", directory / "step.int8.onnx")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (_biased(1e-3), r"step\.onnx: forecasts deviate from the trained model by 0\.001, allowed is 1e-05"),
        (_biased(np.nan), r"step\.onnx: forecasts deviate from the trained model by nan"),
        (_with_a_loop, r"window\.onnx: has Loop nodes"),
        (_unfused, r"window\.onnx: 2 LSTM layers became 0 LSTM nodes"),
        (_without_weights, r"step\.tflite: 2000 bytes cannot hold \d+ bytes of weights"),
        (_torn, r"step\.tflite: not a graph LiteRT can load"),
        (_missing, r"window\.tflite: was not exported"),
        (_of_another_shape, r"step\.onnx: forecast has shape \(5, 1, 3, 1\), the model \(5, 2, 3, 1\)"),
        (_roughly_rounded, rf"step\.int8\.onnx: .* by 0\.5.*, allowed is {INT8_TOLERANCE}"),
    ],
)
def test_a_wrong_graph_is_refused(damage: Damage, reason: str, rounded: Example, copied: Path) -> None:
    """Each kind of wrong graph is one line: file, what is wrong, and the limit where there is one."""
    damage(copied, rounded.weights)
    with pytest.raises(ExportError, match=reason) as refusal:
        prove_parity(rounded.weights, copied, rounded.windows, "int8")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", ["convolution", "norm_1", "attention"])
def test_missing_weights_are_refused(name: str) -> None:
    """A layer whose weights were not brought along would be random: it is named."""
    (spec,) = (spec for spec in ARCHITECTURES.values() if spec.convolution and spec.attention_heads)
    weights = weights_of(random_model(spec), spec)
    others = {other: arrays for other, arrays in weights.others.items() if other != name}
    with pytest.raises(ExportError, match=f"the weights of {name} are missing"):
        build_window_model(replace(weights, others=others))
