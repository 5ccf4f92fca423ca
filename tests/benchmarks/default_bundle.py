"""Bundles of the default model (LSTM 128→64→32, 8 sensors) or another shape, with random weights: real in speed."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edge_agent.contract.bundle import Bundle, Manifest, SensorSpec, write_bundle
from edge_agent.contract.threshold import Threshold
from edge_agent.contract.types import Float32, Samples
from edge_agent.detector import golden_samples, open_detector
from trainer.calibrate import CalibrationHistory, calibrate, untouched_scoring
from trainer.export import export_all, export_recurrent
from trainer.model import ForecasterWeights, ModelSpec


@dataclass(frozen=True)
class Shape:
    """How wide a model is: sensors, samples in its window, units of its LSTM layers."""

    sensors: int = 8
    window: int = 60
    units: tuple[int, ...] = (128, 64, 32)

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of its sensors."""
        return tuple(f"sensor_{number}" for number in range(1, self.sensors + 1))

    @property
    def spec(self) -> ModelSpec:
        """Return the model's."""
        return ModelSpec(self.sensors, self.window, self.units)


DEFAULT = Shape()
SENSORS = DEFAULT.names
WINDOW = DEFAULT.window
_CENTRE, _SCALE = 50.0, 2.0
_CALIBRATION_ROWS = 2500
_GOLDEN_SCORED = 32


def random_weights(spec: ModelSpec = DEFAULT.spec, seed: int = 0) -> ForecasterWeights:
    """Return small random weights."""
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> Float32:
        return rng.normal(0.0, 0.05, shape).astype(np.float32)

    inputs = (spec.inputs, *spec.units[:-1])
    layers = tuple(
        (normal(below, 4 * units), normal(units, 4 * units), normal(4 * units))
        for below, units in zip(inputs, spec.units, strict=True)
    )
    highway = normal((1 + len(spec.spans)) * spec.sensors + 1, spec.outputs)
    return ForecasterWeights(
        spec, layers, normal(spec.units[-1], spec.outputs), normal(spec.outputs), highway
    )


def normal_values(rows: int, seed: int = 0, sensors: int = DEFAULT.sensors) -> Float32:
    """Return (rows, F) readings of a machine in order: slow waves that the sensors share, and noise."""
    rng = np.random.default_rng(seed)
    waves = np.sin(np.arange(rows)[:, None] / np.array([7.0, 23.0, 61.0]))
    mixed = waves @ rng.normal(size=(3, sensors)) + 0.3 * rng.normal(size=(rows, sensors))
    return np.asarray(_CENTRE + _SCALE * mixed, np.float32)


def make_default_bundle(directory: Path, window_graph: bool = False, shape: Shape = DEFAULT) -> Bundle:
    """Write a proven bundle into `directory`, which is made, and return it.

    Args:
        directory: of the bundle.
        window_graph: also export the graphs that need TensorFlow, which takes half a minute.
        shape: of the model.
    """
    directory.mkdir(parents=True)
    weights = random_weights(shape.spec)
    if window_graph:
        export_all(weights, directory)
    else:
        export_recurrent(weights, directory)
    draft = Bundle(directory, _manifest(weights.spec, shape.names), untouched_scoring(shape.sensors))
    rows = np.arange(_CALIBRATION_ROWS)
    samples = Samples(np.zeros(len(rows), np.int64), rows, normal_values(len(rows), 0, shape.sensors))
    found = calibrate(draft, CalibrationHistory(samples, rows >= len(rows) // 2), 1.0)
    bundle = replace(
        draft, scoring=found.scoring, manifest=replace(draft.manifest, threshold=found.threshold)
    )
    values = normal_values(shape.window + _GOLDEN_SCORED, 1, shape.sensors)
    golden: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.floating]]] = {"values": values}
    for mode in ("step", "window") if window_graph else ("step",):
        outcomes = open_detector(bundle, mode).process(golden_samples(values))
        golden |= {f"{mode}_forecast": outcomes.forecast, f"{mode}_statistic": outcomes.statistic}
    return write_bundle(bundle, golden)


def _manifest(spec: ModelSpec, names: tuple[str, ...]) -> Manifest:
    return Manifest(
        name="default-width",
        version="1",
        asset_class="benchmark",
        sensors=tuple(SensorSpec(name, "", 0.0, 100.0, _CENTRE, _SCALE) for name in names),
        sampling_interval_seconds=1.0,
        phase_seconds=0.0,
        window_length=spec.window_length,
        horizons=(1,),
        inputs=tuple(f"{kind}:{name}" for kind in ("sensor", "missing") for name in names),
        head="point",
        architecture={"kind": "lstm+highway", "units": list(spec.units), "highway_spans": list(spec.spans)},
        state_size=spec.state_size,
        inference="step",
        warmup_ticks=spec.window_length,
        max_gap_ticks=10,
        threshold=Threshold("margin", 1e30, 1.0, 0.0),
    )
