"""A small but whole bundle, made in a moment without TensorFlow: two sensors, a linear forecaster, real calibration."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edge_agent.contract.alarms import AlarmRules
from edge_agent.contract.bundle import Bundle, Manifest, SensorSpec, write_bundle
from edge_agent.contract.threshold import Threshold
from edge_agent.contract.types import Float32, Samples
from edge_agent.detector import golden_samples, open_detector
from trainer.calibrate import CalibrationHistory, calibrate, untouched_scoring

SENSORS = ("flow", "pressure")
WINDOW = 8
MEMORY = 0.9
CENTRES = np.array([50.0, 6.0])
SCALES = np.array([2.0, 0.3])
PERIOD = 25


def normal_values(rows: int, seed: int = 0) -> Float32:
    """Return (rows, 2) of a machine in order: m³/h and bar, each falling back slowly to its centre."""
    rng = np.random.default_rng(seed)
    scaled = np.zeros((rows, 2))
    noise = rng.normal(0.0, (1 - MEMORY**2) ** 0.5, (rows, 2))
    for row in range(1, rows):
        scaled[row] = MEMORY * scaled[row - 1] + noise[row]
    return np.asarray(CENTRES + scaled * SCALES, np.float32)


def cycling_values(rows: int, seed: int = 0) -> Float32:
    """Return the same, its flow going up and down by two of its deviations, always alike."""
    values = normal_values(rows, seed)
    turn = 2 * np.pi * np.arange(rows) / PERIOD
    values[:, 0] = CENTRES[0] + SCALES[0] * (
        2.0 * np.sin(turn) + 0.1 * (values[:, 0] - CENTRES[0]) / SCALES[0]
    )
    return values


def _constant(name: str, values: list[int]) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(values, np.int64), name)


def _save(directory: Path, name: str, nodes: list[onnx.NodeProto]) -> None:
    weights = np.zeros((4, 2), np.float32)
    weights[:2] = np.eye(2) * MEMORY
    batch: list[int | str] = ["B", "L"] if name == "chunk" else ["B"]
    tensors = [numpy_helper.from_array(weights, "W"), _constant("shape", [*[0] * len(batch), 1, 2, 1])]
    tensors += [_constant("last", [-1]), _constant("end", [WINDOW]), _constant("axis", [1])]
    nodes = [
        *nodes,
        helper.make_node("MatMul", ["row", "W"], ["flat"]),
        helper.make_node("Reshape", ["flat", "shape"], ["forecast"]),
    ]
    number = TensorProto.FLOAT
    outputs = [helper.make_tensor_value_info("forecast", number, [*batch, 1, 2, 1])]
    if name != "window":
        inputs = [
            helper.make_tensor_value_info("input", number, [*batch, 4]),
            helper.make_tensor_value_info("state", number, ["B", 1]),
        ]
        outputs.append(helper.make_tensor_value_info("next_state", number, ["B", 1]))
    else:
        inputs = [helper.make_tensor_value_info("window", number, ["B", WINDOW, 4])]
    graph = helper.make_graph(nodes, name, inputs, outputs, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, directory / f"{name}.onnx")


def _write_graphs(directory: Path) -> None:
    step = [
        helper.make_node("Identity", ["input"], ["row"]),
        helper.make_node("Identity", ["state"], ["next_state"]),
    ]
    window = [
        helper.make_node("Slice", ["window", "last", "end", "axis"], ["slice"]),
        helper.make_node("Squeeze", ["slice", "axis"], ["row"]),
    ]
    _save(directory, "step", step)
    _save(directory, "chunk", step)
    _save(directory, "window", window)


def _manifest() -> Manifest:
    sensors = tuple(
        SensorSpec(name, unit, centre - 6 * scale, centre + 6 * scale, centre, scale)
        for name, unit, centre, scale in zip(
            SENSORS, ("m³/h", "bar"), CENTRES.tolist(), SCALES.tolist(), strict=True
        )
    )
    return Manifest(
        name="small",
        version="1",
        asset_class="pump",
        sensors=sensors,
        sampling_interval_seconds=1.0,
        phase_seconds=0.0,
        window_length=WINDOW,
        horizons=(1,),
        inputs=(*(f"sensor:{name}" for name in SENSORS), *(f"missing:{name}" for name in SENSORS)),
        head="point",
        architecture={"kind": "linear"},
        state_size=1,
        inference="step",
        warmup_ticks=WINDOW,
        max_gap_ticks=30,
        threshold=Threshold("margin", 1.0, 1.0, 1.0),
        alarm_rules=AlarmRules(update_samples=20),
    )


def make_small_bundle(directory: Path, history: Float32 | None = None, adaptation: str = "frozen") -> Bundle:
    """Write the bundle into `directory`, which is made, and return it.

    Args:
        directory: that does not exist yet.
        history: (n, 2) that the first half teaches and the second calibrates; None takes `normal_values`.
        adaptation: one of `trailing.POLICIES`.
    """
    directory.mkdir(parents=True)
    _write_graphs(directory)
    values = normal_values(3000) if history is None else history
    manifest = replace(_manifest(), adaptation=adaptation)
    draft = Bundle(directory, manifest, untouched_scoring(len(SENSORS)))
    rows = len(values)
    samples = Samples(np.zeros(rows, np.int64), np.arange(rows), values)
    found = calibrate(draft, CalibrationHistory(samples, np.arange(rows) >= rows // 2), 1.0)
    bundle = replace(
        draft,
        scoring=found.scoring,
        manifest=replace(draft.manifest, threshold=found.threshold, drift=found.drift),
    )
    values = normal_values(64, seed=1) if history is None else history[-64:]
    golden: dict[str, Any] = {"values": values}
    for mode in ("step", "window"):
        outcomes = open_detector(bundle, mode).process(golden_samples(values))
        golden |= {f"{mode}_forecast": outcomes.forecast, f"{mode}_statistic": outcomes.statistic}
    return write_bundle(bundle, golden)
