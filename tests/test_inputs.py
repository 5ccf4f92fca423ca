"""Laws of what the forecaster reads: trainer, calibration, replay and daemon lay out the same inputs."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.contract.bundle import MANIFEST, Bundle, Manifest, SensorSpec, read_bundle
from edge_agent.contract.errors import BundleError
from edge_agent.contract.grid import Axis
from edge_agent.contract.inputs import InputLayout
from edge_agent.contract.scaling import Scaling, fit_scaling
from edge_agent.contract.sensor_gate import QualityRules
from edge_agent.contract.threshold import Threshold
from edge_agent.contract.types import Float32, Samples
from edge_agent.detector import Detector, open_detector
from edge_agent.forecaster import Forecaster
from tests.tiny_machine import TINY_BUNDLE
from trainer.calibrate import CalibrationHistory, calibrate, untouched_scoring
from trainer.dataset import SubSequences, build_segments
from trainer.export import export_recurrent
from trainer.fit_options import FitOptions
from trainer.highway import fit_highway
from trainer.learning import learn
from trainer.model import ModelSpec

SENSORS = ("flow", "valve", "pressure")
CALENDAR = ("hour_sin", "hour_cos")
AXIS = Axis(60.0)
WINDOW = 8
FIRST = 29_000_000
"""A tick of 2025: the calendar is that of real days."""


def _layout(exogenous: tuple[str, ...] = ("valve",), calendar: tuple[str, ...] = CALENDAR) -> InputLayout:
    return InputLayout(SENSORS, exogenous, calendar, AXIS, "Europe/Berlin")


def _plant(rows: int, seed: int = 0) -> Float32:
    """Return (rows, 3): flow and pressure follow the valve one sample later; the valve is told of when it is set."""
    rng = np.random.default_rng(seed)
    valve = np.repeat(rng.integers(0, 4, rows // 20 + 1), 20)[:rows].astype(float)
    flow = 10 + 2 * np.r_[0.0, valve[:-1]] + 0.1 * rng.normal(size=rows)
    pressure = 5 - np.r_[0.0, valve[:-1]] + 0.1 * rng.normal(size=rows)
    told = np.where(np.r_[True, np.diff(valve) != 0], valve, np.nan)
    return np.stack([flow, told, pressure], axis=1).astype(np.float32)


def _samples(values: Float32) -> Samples:
    return Samples(np.zeros(len(values), np.int64), FIRST + np.arange(len(values)), values)


def _manifest(scaling: Scaling, layout: InputLayout, state_size: int) -> Manifest:
    ranges = zip(scaling.minimum, scaling.maximum, scaling.centre, scaling.scale, strict=True)
    sensors = tuple(
        SensorSpec(name, "", float(low), float(high), float(centre), float(scale))
        for name, (low, high, centre, scale) in zip(SENSORS, ranges, strict=True)
    )
    return Manifest(
        name="valve", version="1", asset_class="valve", sensors=sensors, sampling_interval_seconds=60.0,
        phase_seconds=0.0, window_length=WINDOW, horizons=(1,), inputs=layout.names, head="point", architecture={},
        state_size=state_size, inference="step", warmup_ticks=WINDOW, max_gap_ticks=10,
        threshold=Threshold("margin", 1e30, 1.0, 0.0), time_zone="Europe/Berlin",
    )  # fmt: skip


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A calibrated bundle in memory whose ridge forecaster reads a valve and the time of day."""
    directory = tmp_path_factory.mktemp("valve")
    values, layout = _plant(3000), _layout()
    scaling = fit_scaling(values[:2000])
    spec = ModelSpec(len(layout.forecast), WINDOW, (), context=layout.context_width)
    ticks = FIRST + np.arange(3000)
    fitted, later = (
        build_segments(ticks[part], values[part], scaling.centre, scaling.scale, 10, layout)
        for part in (slice(0, 1600), slice(1600, 2000))
    )
    learnt = learn(spec, fitted, later, FitOptions(), lambda *_: None)
    export_recurrent(learnt.weights, directory)
    draft = Bundle(directory, _manifest(scaling, layout, spec.state_size), untouched_scoring(3))
    history = CalibrationHistory(_samples(values), np.arange(3000) >= 2000)
    found = calibrate(draft, history, 1.0)
    manifest = replace(draft.manifest, threshold=found.threshold, drift=found.drift)
    return replace(draft, manifest=manifest, scoring=found.scoring)


class _Reading(Forecaster):
    """A forecaster that keeps what it reads."""

    def __init__(self, bundle: Bundle) -> None:
        super().__init__(bundle.directory, "step", bundle.manifest.state_size)
        self.read: list[Float32] = []

    def advance(self, inputs: Float32, state: Float32) -> Float32:
        """Keep the inputs, and go on as ever."""
        self.read.append(inputs[0].copy())
        return super().advance(inputs, state)


def test_the_daemon_reads_what_the_trainer_showed(bundle: Bundle) -> None:
    """Row for row the inputs of the running detector are those of a training sub-sequence of the same samples."""
    values, manifest = _plant(200, seed=3), bundle.manifest
    forecaster = _Reading(bundle)
    Detector(bundle, forecaster).process(_samples(values))
    scaling, ticks = manifest.scaling, FIRST + np.arange(200)
    segments = build_segments(ticks, values, scaling.centre, scaling.scale, 10, manifest.layout)
    shown = SubSequences(segments, 199, 1).inputs(np.array([0]))[0]
    np.testing.assert_allclose(np.concatenate(forecaster.read)[:199], shown, atol=1e-6)


def test_what_is_commanded_is_foreseen(bundle: Bundle) -> None:
    """With the valve as an input its steps are in the forecasts; they are not told from the sensors alone."""
    values = _plant(2000, seed=5)
    forecast, _ = open_detector(bundle).measure(_samples(values))
    steps = np.flatnonzero(np.isfinite(values[:-1, 1]))[1:] + 1
    steps = steps[steps > WINDOW + 1]
    error = np.abs(forecast[steps, 0] - values[steps, 0]).mean()
    assert error < 0.3 < np.abs(values[steps, 0] - values[steps - 1, 0]).mean()


def test_an_exogenous_quantity_is_never_scored(bundle: Bundle) -> None:
    """A command far beyond any before raises no statistic, no data-quality event, and is blamed for nothing."""
    values = _plant(600, seed=7)
    detector = open_detector(bundle)
    quiet = detector.measure(_samples(values))[1]
    wild = values.copy()
    wild[-1, 1] = 1e4
    loud = open_detector(bundle).measure(_samples(wild))[1]
    np.testing.assert_array_equal(loud[-1], quiet[-1])
    outcomes = open_detector(bundle).process(_samples(wild))
    assert outcomes.quality == []
    assert not any(share.name == "valve" for event in outcomes.events for share in event.sensors)


def test_a_command_may_stay_away(bundle: Bundle) -> None:
    """A command that is never repeated is held for as long as it stands, and its silence is no fault."""
    values = _plant(600, seed=9)
    values[1:, 1] = np.nan
    values[:, [0, 2]] = values[-1, [0, 2]] + 0.01 * np.random.default_rng(0).normal(size=(600, 2))
    forecaster = _Reading(bundle)
    outcomes = Detector(bundle, forecaster).process(_samples(values))
    assert outcomes.quality == []
    held = np.concatenate(forecaster.read)[:, 4]
    np.testing.assert_array_equal(held, held[0])


def test_batches_single_samples_and_lanes_agree(bundle: Bundle) -> None:
    """Fed at once, sample by sample, or as one asset of several, the same scores come out."""
    values = _plant(150, seed=11)
    whole = open_detector(bundle).process(_samples(values)).statistic
    single = open_detector(bundle)
    one_by_one = [
        single.process(
            Samples(np.zeros(1, np.int64), np.array([FIRST + row]), values[row : row + 1])
        ).statistic
        for row in range(len(values))
    ]
    np.testing.assert_allclose(np.concatenate(one_by_one), whole, atol=1e-6)


@given(
    exogenous=st.sets(st.sampled_from(SENSORS), max_size=2),
    calendar=st.permutations(CALENDAR),
    data=st.data(),
)
@settings(max_examples=30, deadline=None)
def test_a_manifest_says_the_whole_layout(
    exogenous: set[str], calendar: list[str], data: st.DataObject
) -> None:
    """What `names` says is read back as the same layout, and every input has the place that its name says."""
    layout = InputLayout(SENSORS, exogenous, calendar, AXIS)
    again = InputLayout.read(layout.names, SENSORS, AXIS, "UTC")
    rows = data.draw(st.integers(1, 4))
    rng = np.random.default_rng(rows)
    filled, present = rng.normal(size=(rows, 3)).astype(np.float32), rng.random((rows, 3)) < 0.5
    tick = FIRST + np.arange(rows)
    inputs = again.rows(filled, present, tick)
    assert inputs.shape == (rows, len(layout.names))
    np.testing.assert_array_equal(inputs, layout.rows(filled, present, tick))
    for place, name in enumerate(layout.names):
        kind, _, what = name.partition(":")
        if kind != "calendar":
            column = SENSORS.index(what)
            expected = ~present[:, column] if kind == "missing" else filled[:, column]
            np.testing.assert_array_equal(inputs[:, place], expected)


@pytest.mark.parametrize(
    ("field", "value", "rule"),
    [
        ("inputs", ["sensor:pressure"], "inputs: must be sensor:pressure, sensor:temperature"),
        ("inputs", ["odd:pressure"], "inputs: must be"),
        ("inputs", ["exogenous:speed"], "inputs: names 'speed', which is no sensor"),
        ("inputs", ["calendar:moon_sin"], "inputs: names calendar inputs moon_sin, known are"),
        ("time_zone", "Mars/Olympus", "inputs: is 'Mars/Olympus', no time zone"),
    ],
)
def test_a_manifest_with_other_inputs_is_refused(
    field: str, value: object, rule: str, tmp_path: Path
) -> None:
    """Inputs that this program does not lay out, or a zone that this machine does not know, refuse the bundle."""
    copy = Path(shutil.copytree(TINY_BUNDLE, tmp_path / "bundle"))
    record = json.loads((copy / MANIFEST).read_text("utf-8"))
    (copy / MANIFEST).write_text(json.dumps(record | {field: value}), encoding="utf-8")
    with pytest.raises(BundleError, match=rule):
        read_bundle(copy)


def test_something_has_to_be_forecast() -> None:
    """Not every quantity can be a command."""
    with pytest.raises(ValueError, match="leaves no sensor to forecast"):
        InputLayout(SENSORS, SENSORS, (), AXIS)


def test_a_configured_range_binds_a_command_too(bundle: Bundle) -> None:
    """Where a person says what a command can be, what is beyond is masked."""
    detector = Detector(bundle, _Reading(bundle), QualityRules(ranges={"valve": (0.0, 5.0)}))
    values = _plant(20)
    values[10, 1] = 99.0
    passed = detector.gated(_samples(values))
    assert np.isnan(passed.values[10, 1])


def test_the_highway_reads_the_context() -> None:
    """A ridge regression on a command finds the weight by which it moves the sensor one sample later."""
    values = _plant(2000, seed=1)
    segments = build_segments(
        FIRST + np.arange(2000), values, np.zeros(3), np.ones(3), 10, _layout(calendar=())
    )
    weights = fit_highway(segments, ridge=1e-6)
    assert weights.shape == (2 * 3 + 1 + 1, 2)
    np.testing.assert_allclose(weights[-2], [2.0, -1.0], atol=0.2)


def test_weights_without_context_are_as_before() -> None:
    """A specification says its inputs: two a sensor, and the context beside them."""
    spec = ModelSpec(3, 8, (4,), context=3)
    assert (spec.inputs, spec.regressors, spec.state_size) == (9, 13, 14)
