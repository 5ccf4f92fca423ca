"""Write `tests/tiny_bundle`: a real bundle of a few kilobytes, so that the daemon's tests need no TensorFlow.

Run it again after a change of the contract: `python -m tests.make_tiny_bundle`. The machine is a made-up pump with
three sensors that move together; the forecaster is a damped persistence beside a small LSTM with random weights.
"""

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from edge_agent.contract.bundle import Bundle, Manifest, SensorSpec, write_bundle
from edge_agent.contract.scaling import Scaling, fit_scaling
from edge_agent.contract.threshold import Threshold
from edge_agent.contract.types import Float32, Samples
from edge_agent.detector import golden_samples, load_detector, open_detector
from tests.tiny_machine import INTERVAL, PHASE, SENSORS, TINY_BUNDLE, UNITS, WINDOW, normal_samples
from trainer.calibrate import CalibrationHistory, calibrate, untouched_scoring
from trainer.export import STEP_GRAPH, WINDOW_GRAPH, export_recurrent
from trainer.model import ForecasterWeights, ModelSpec

ROWS = 16_000
HELD_OUT = 10_000
ALARMS_PER_WEEK = 100.0
KEPT_PER_WEEK = 3.7 / 3.0
DAMPING = 0.9


def make(directory: Path) -> Bundle:
    """Write the bundle into a directory that does not exist yet."""
    directory.mkdir(parents=True)
    spec = ModelSpec(len(SENSORS), WINDOW, units=(4,))
    export_recurrent(_weights(spec), directory)
    (directory / WINDOW_GRAPH).write_bytes(_window_graph(directory / STEP_GRAPH, spec.state_size))
    samples = normal_samples(ROWS, seed=1)
    bundle = Bundle(
        directory, _manifest(spec, fit_scaling(samples.values[:-HELD_OUT])), untouched_scoring(spec.sensors)
    )
    return _calibrated(bundle, samples)


def _weights(spec: ModelSpec) -> ForecasterWeights:
    rng = np.random.default_rng(0)
    width, units = spec.inputs, spec.units[0]

    def small(*shape: int) -> Float32:
        return rng.normal(0.0, 0.2, shape).astype(np.float32)

    layer = (small(width, 4 * units), small(units, 4 * units), small(4 * units))
    highway = np.zeros(((1 + len(spec.spans)) * spec.sensors + 1, spec.outputs), np.float32)
    highway[: spec.sensors] = DAMPING * np.eye(spec.sensors, dtype=np.float32)
    head = small(units, spec.outputs) * np.float32(0.1)
    return ForecasterWeights(spec, (layer,), head, np.zeros(spec.outputs, np.float32), highway)


def _window_graph(step_path: Path, state_size: int) -> bytes:
    """Return the window graph as a scan of the step graph from a zero state, which is what it must equal."""
    step = onnx.load(str(step_path))
    # Names inside a scan must not shadow those outside.
    body = onnx.compose.add_prefix_graph(step.graph, "step_")
    body.input.reverse()
    body.output.reverse()
    spec = {value.name: value for value in (*step.graph.input, *step.graph.output)}
    inputs = spec["input"].type.tensor_type.shape.dim[1].dim_value
    floats, info, node = onnx.TensorProto.FLOAT, onnx.helper.make_tensor_value_info, onnx.helper.make_node
    nodes = [
        node("Shape", ["window"], ["batch"], start=0, end=1),
        node("Concat", ["batch", "state_size"], ["state_shape"], axis=0),
        node("ConstantOfShape", ["state_shape"], ["nothing"]),
        node(
            "Scan", ["nothing", "window"], ["after", "forecasts"], body=body,
            num_scan_inputs=1, scan_input_axes=[1],
        ),
        node("Gather", ["forecasts", "last"], ["forecast"], axis=0),
    ]  # fmt: skip
    constants = [
        onnx.numpy_helper.from_array(np.array([state_size], np.int64), "state_size"),
        onnx.numpy_helper.from_array(np.array(-1, np.int64), "last"),
    ]
    result = info("forecast", floats, ["batch", 1, len(SENSORS), 1])
    window = info("window", floats, ["batch", WINDOW, inputs])
    graph = onnx.helper.make_graph(nodes, "window", [window], [result], constants)
    model = onnx.helper.make_model(graph, opset_imports=step.opset_import, ir_version=step.ir_version)
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content


def _manifest(spec: ModelSpec, scaling: Scaling) -> Manifest:
    sensors = tuple(
        SensorSpec(
            name, UNITS[i], float(scaling.minimum[i]), float(scaling.maximum[i]), float(scaling.centre[i]),
            float(scaling.scale[i]),
        )
        for i, name in enumerate(SENSORS)
    )  # fmt: skip
    return Manifest(
        name="tiny",
        version="1",
        asset_class="pump",
        sensors=sensors,
        sampling_interval_seconds=INTERVAL,
        phase_seconds=PHASE,
        window_length=WINDOW,
        horizons=(1,),
        inputs=tuple(f"{kind}:{name}" for kind in ("sensor", "missing") for name in SENSORS),
        head="point",
        architecture={"kind": "lstm+highway", "units": list(spec.units), "highway_spans": list(spec.spans)},
        state_size=spec.state_size,
        inference="step",
        warmup_ticks=WINDOW,
        max_gap_ticks=10,
        threshold=Threshold("margin", 1e30, ALARMS_PER_WEEK, 0.0),
    )


def _calibrated(bundle: Bundle, samples: Samples) -> Bundle:
    held_out = np.arange(ROWS) >= ROWS - HELD_OUT
    found = calibrate(bundle, CalibrationHistory(samples, held_out), ALARMS_PER_WEEK)
    assert found.threshold.tail is not None
    # Rarer than the few minutes of history support, so that normal samples stay clear of it in every test.
    value = found.threshold.tail.value_at(KEPT_PER_WEEK)
    threshold = replace(found.threshold, alarms_per_week=KEPT_PER_WEEK, value=value)
    manifest = replace(bundle.manifest, threshold=threshold, trained={"samples": ROWS})
    complete = Bundle(bundle.directory, manifest, found.scoring)
    values = samples.values[-HELD_OUT : -HELD_OUT + WINDOW + 16].copy()
    values[-1, 0] = np.nan
    golden: dict[str, Any] = {"values": values}
    for mode in ("step", "window"):
        outcomes = open_detector(complete, mode).process(golden_samples(values))
        golden |= {f"{mode}_forecast": outcomes.forecast, f"{mode}_statistic": outcomes.statistic}
    return write_bundle(complete, golden)


def main() -> None:
    """Write the bundle beside this file, in place of the old one."""
    with tempfile.TemporaryDirectory() as scratch:
        draft = Path(scratch) / TINY_BUNDLE.name
        bundle = make(draft)
        shutil.rmtree(TINY_BUNDLE, ignore_errors=True)
        shutil.copytree(draft, TINY_BUNDLE)
    load_detector(TINY_BUNDLE)
    size = sum(path.stat().st_size for path in TINY_BUNDLE.iterdir())
    limits = bundle.manifest.threshold
    print(f"{TINY_BUNDLE.name}: {size} bytes, threshold {limits.value:.3f} ({limits.basis})")


if __name__ == "__main__":
    main()
