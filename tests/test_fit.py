"""Laws of the whole way from history to bundle: what is recognised and kept, and that a bundle is never half there.

Where FOREWARN_DATA points at the public data, the water plant is BATADAL's; elsewhere a file of its shape is written.
"""

import hashlib
import io
import json
import os
import re
import shutil
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_agent.contract.bundle import read_bundle, read_golden
from edge_agent.contract.errors import ConfigurationError
from edge_agent.detector import golden_samples, load_detector, open_detector
from edge_agent.history import read_history
from tests.commands import column, run, table, text, two_assets
from tests.tiny_machine import START, TINY_BUNDLE, normal_values, samples_of
from trainer import fit as fitting
from trainer.cleaning import clean
from trainer.cli import main
from trainer.export import (
    CHUNK_GRAPH,
    STEP_GRAPH,
    TFLITE_STEP,
    TFLITE_WINDOW,
    WINDOW_GRAPH,
    export_all,
    export_recurrent,
)
from trainer.model import ForecasterWeights
from trainer.release import golden_values
from trainer.training import _KeepBest
from trainer.verify import TOLERANCE

DATA = os.environ.get("FOREWARN_DATA")
PLANTS = ["batadal"] if DATA else ["simulated"]
HOURS = 8761
ROWS = 300
CONSTANT, MISSING = "temperature", "level"
GRAPHS = (WINDOW_GRAPH, STEP_GRAPH, CHUNK_GRAPH, TFLITE_WINDOW, TFLITE_STEP)
Export = Callable[[ForecasterWeights, Path, str], None]


@dataclass(frozen=True)
class Fitted:
    """What one `trainer fit --json` left and said."""

    history: Path
    bundle: Path
    record: dict[str, Any]
    notes: str


def _fit(history: Path, bundle: Path, *words: str) -> Fitted:
    said, noted = io.StringIO(), io.StringIO()
    with redirect_stdout(said), redirect_stderr(noted):
        code = main(["fit", "--json", "--history", str(history), "--out", str(bundle), *words])
    assert code == 0, noted.getvalue()
    return Fitted(history, bundle, json.loads(said.getvalue()), noted.getvalue())


def _content(bundle: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in bundle.iterdir()}


def test_golden_samples_are_taken_while_the_machine_runs() -> None:
    """They prove the score only if there is one: a calibration block that begins with a stop gives later rows."""
    rows = 500
    samples = samples_of(normal_values(rows))
    manifest = load_detector(TINY_BUNDLE).bundle.manifest
    held_out = np.arange(rows) >= 100
    for running in (100, 300, 480):
        statistic = np.where(np.arange(rows) >= running, 1.0, np.nan)
        values = golden_values(samples, statistic, held_out, manifest.warmup_ticks)
        first = min(max(100, running - manifest.warmup_ticks), rows - len(values))
        np.testing.assert_array_equal(values[:-1], samples.values[first : first + len(values) - 1])
        assert len(values) == manifest.warmup_ticks + 32


# A year of a water plant, as it was downloaded.


def _write_water_plant(path: Path) -> None:
    """Write 43 sensors by the hour that follow the day, with blanks around their names and the day before the month."""
    begin = datetime(2014, 1, 6, tzinfo=UTC)
    rng = np.random.default_rng(0)
    turn = 2 * np.pi * (np.arange(HOURS)[:, None] / 24 + rng.random(43))
    values = np.sin(turn) * rng.uniform(1, 5, 43) + 0.1 * rng.normal(size=(HOURS, 43))
    values[:, ::6] = 1.0
    with path.open("w", encoding="utf-8") as file:
        file.write("DATETIME," + ",".join(f" L_T{number} " for number in range(43)) + ", ATT_FLAG\n")
        for hour, row in enumerate(values):
            cells = ",".join(f"{cell:.6g}" for cell in row)
            file.write(f"{begin + timedelta(hours=hour):%d/%m/%y %H},{cells},0\n")


@pytest.fixture(scope="module", params=PLANTS)
def plant(tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    """A year of a water plant, fitted with one epoch of a small model."""
    directory = tmp_path_factory.mktemp("plant")
    history = Path(DATA, "batadal", "dataset03.csv") if DATA else directory / "dataset03.csv"
    if not DATA:
        _write_water_plant(history)
    words = ("--ignore-column", "ATT_FLAG", "--units", "8", "--epochs", "1", "--window", "24")
    return _fit(history, directory / "bundle", *words)


def test_a_file_is_fitted_as_it_was_downloaded(plant: Fitted) -> None:
    """Names with blanks, hours and dates with the day first need no editing: 43 clean names, 3600 s, a whole year."""
    manifest = read_bundle(plant.bundle).manifest
    names = manifest.sensor_names
    assert (len(names), [name for name in names if name != name.strip() or name == "ATT_FLAG"]) == (43, [])
    assert (manifest.sampling_interval_seconds, manifest.phase_seconds) == (3600.0, 0.0)
    assert manifest.trained["first_time"] == datetime(2014, 1, 6, tzinfo=UTC).timestamp()
    assert manifest.trained["last_time"] == datetime(2015, 1, 6, tzinfo=UTC).timestamp()
    assert (plant.record["rows"], plant.record["repairs"]) == (HOURS, {})


def test_the_forecast_beats_persistence_and_all_graphs_give_it(plant: Fitted) -> None:
    """On later rows RMSE is below that of the last value, and every graph is within 1e-5 of the trained model."""
    assert plant.record["rmse"] < plant.record["persistence_rmse"]
    parity = plant.record["parity"]
    assert set(parity) == set(GRAPHS) == set(plant.record["sizes"])
    assert max(parity.values()) <= TOLERANCE == 1e-5


def test_the_record_is_of_all_values_in_order(plant: Fitted) -> None:
    """The manifest counts every sample that was read, and its fingerprint is that of all values, first to last."""
    cleaned = clean(read_history([plant.history]))
    kept = [name != "ATT_FLAG" for name in cleaned.sensors]
    values = cleaned.series[0].values[:, kept]
    trained = read_bundle(plant.bundle).manifest.trained
    assert trained["samples"] == len(values) == HOURS
    assert trained["data_sha256"] == hashlib.sha256(values.tobytes()).hexdigest()


# Two pumps in one file, with a sensor that stands still and one that never spoke.


@pytest.fixture(scope="module")
def pumps(tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    """Two assets of one file, fitted into one bundle."""
    directory = tmp_path_factory.mktemp("pumps")
    rows = table(ROWS)
    column(2, "60.0")(rows)
    for row in rows:
        row.append(MISSING if row[0] == "time" else "")
    two_assets(rows)
    history = directory / "pumps.csv"
    history.write_bytes(text(rows))
    (directory / "trainer.toml").write_text("[fit]\nwindows_per_epoch = 64\n", encoding="utf-8")
    return _fit(history, directory / "bundle", *_words(directory))


def _words(directory: Path, seed: int = 0) -> tuple[str, ...]:
    """Return the options with which the pumps are fitted."""
    config = str(directory / "trainer.toml")
    return ("--config", config, "--units", "4", "--epochs", "1", "--window", "8", "--seed", str(seed))


def test_a_constant_sensor_is_kept_and_a_missing_one_dropped(pumps: Fitted) -> None:
    """Both are named; the constant one stays in the bundle, and leaving its value alone raises the score over 1."""
    assert f"missing throughout and dropped: {MISSING}\n" in pumps.notes
    assert f"constant throughout, kept and only range-guarded: {CONSTANT}\n" in pumps.notes
    detector = load_detector(pumps.bundle)
    sensors = detector.bundle.manifest.sensors
    assert [(sensor.name, sensor.constant) for sensor in sensors] == [
        ("pressure", False),
        (CONSTANT, True),
        ("flow", False),
    ]
    values = normal_values(60, seed=5)
    values[:, 1] = 60.0
    quiet = detector.process(samples_of(values)).score
    values[40:, 1] = 90.0
    loud = load_detector(pumps.bundle).process(samples_of(values)).score
    np.testing.assert_array_equal(loud[:40], quiet[:40])
    assert np.nanmax(quiet) < 1.0 < np.nanmax(loud)


def test_what_a_sensor_that_never_moved_reads_changes_no_forecast(pumps: Fitted) -> None:
    """Once it leaves its value, the others are expected to read what they would have been."""
    values = normal_values(60, seed=5)
    values[:, 1] = 60.0
    still = load_detector(pumps.bundle).process(samples_of(values)).forecast
    values[20:, 1] = 90.0
    moved = load_detector(pumps.bundle).process(samples_of(values)).forecast
    np.testing.assert_allclose(moved[:, [0, 2]], still[:, [0, 2]], rtol=1e-6)


def test_two_assets_of_one_file_make_one_bundle(pumps: Fitted) -> None:
    """The rows of both are learnt from, time is that of one of them, and neither is an asset of the bundle."""
    trained = read_bundle(pumps.bundle).manifest.trained
    assert (trained["samples"], pumps.record["rows"]) == (2 * ROWS, 2 * ROWS)
    assert (trained["first_time"], trained["last_time"]) == (START, START + ROWS - 1)


def test_the_same_seed_gives_the_same_forecasts(pumps: Fitted, tmp_path: Path) -> None:
    """The same history fitted twice on a machine has the same forecasts, scores and threshold to the last bit."""
    again = _fit(pumps.history, tmp_path / "again", *_words(pumps.history.parent))
    first, second = read_bundle(pumps.bundle), read_bundle(again.bundle)
    expected, found = read_golden(first), read_golden(second)
    assert set(found) == set(expected)
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values)
    assert second.manifest.threshold == first.manifest.threshold
    assert {**again.record, "bundle": "", "sha256": ""} == {**pumps.record, "bundle": "", "sha256": ""}


# Other runtimes, precisions and heads.


def test_both_runtimes_score_alike(pumps: Fitted) -> None:
    """A float32 bundle runs with LiteRT in place of ONNX Runtime, in either mode: golden samples and scores hold."""
    values = normal_values(60, seed=5)
    values[40:, 2] += 3.0
    for mode in ("step", "window"):
        expected = load_detector(pumps.bundle, mode).process(samples_of(values))
        detector = load_detector(pumps.bundle, mode, runtime="litert")
        assert (detector.forecaster.runtime, detector.forecaster.inference) == ("litert", mode)
        found = detector.process(samples_of(values))
        np.testing.assert_allclose(found.forecast, expected.forecast, rtol=1e-4)
        np.testing.assert_allclose(found.score, expected.score, atol=1e-3)
        assert [event.kind for event in found.events] == [event.kind for event in expected.events]


def test_an_int8_bundle_is_calibrated_and_runs_as_it_was_fitted(pumps: Fitted, tmp_path: Path) -> None:
    """`--precision int8 --runtime litert`: eight graphs with figures, its own golden samples, and no other runtime."""
    words = ("--precision", "int8", "--runtime", "litert", "--units", "24", "--epochs", "0", "--window", "8")
    fitted = _fit(pumps.history, tmp_path / "int8", *words)
    manifest = read_bundle(fitted.bundle).manifest
    assert (manifest.runtime, manifest.precision, manifest.inference) == ("litert", "int8", "step")
    assert len(fitted.record["parity"]) == len(fitted.record["sizes"]) == 8
    assert set(fitted.record["sizes"]) < set(manifest.files)
    detector = load_detector(fitted.bundle)
    assert (detector.forecaster.runtime, detector.forecaster.provider) == ("litert", "cpu")
    with pytest.raises(
        ConfigurationError, match=r"bundle\.runtime: onnx: the thresholds of this int8 bundle"
    ):
        load_detector(fitted.bundle, runtime="onnx")
    # The graph that is run is the int8 one: none of the others need be there.
    (tmp_path / "alone").mkdir()
    shutil.copy(fitted.bundle / "step.int8.tflite", tmp_path / "alone")
    golden = read_golden(detector.bundle)
    alone = open_detector(replace(detector.bundle, directory=tmp_path / "alone"))
    found = alone.process(golden_samples(golden["values"]))
    np.testing.assert_allclose(found.forecast, golden["step_forecast"], rtol=1e-5)


def test_attention_and_a_state_make_a_bundle_of_windows(pumps: Fitted, tmp_path: Path) -> None:
    """Without a step form windows are chosen, and said; the manifest tells of architecture, head and states."""
    rows = table(ROWS)
    for number, row in enumerate(rows[1:]):
        row[2] = ("0", "2.5", "1")[number // 10 % 3]
    history = tmp_path / "states.csv"
    history.write_bytes(text(rows))
    words = ("--attention", "2", "--head", "softmax", "--state-sensor", CONSTANT, "--horizons", "2")
    fitted = _fit(history, tmp_path / "bundle", *words, *_words(pumps.history.parent))
    assert "attention has no step form: the bundle is calibrated for windows" in fitted.notes
    manifest = load_detector(fitted.bundle).bundle.manifest
    assert (manifest.inference, manifest.head, manifest.horizons) == ("window", "softmax", (1, 2))
    assert manifest.architecture["step_form"] is False
    assert manifest.architecture["kind"] == "lstm+attention+highway"
    assert manifest.architecture["state"] == {"sensor": CONSTANT, "values": [0.0, 1.0, 2.5]}
    assert set(fitted.record["parity"]) == {WINDOW_GRAPH, TFLITE_WINDOW}
    with pytest.raises(ConfigurationError, match=r"has no step\.onnx: its architecture runs on windows only"):
        load_detector(fitted.bundle, "step")


# A bundle is whole or not there.


def _graphs_of(bundle: Path) -> Export:
    """Return an export that is not of the model at hand: it leaves the graphs of a bundle."""

    def export(_weights: ForecasterWeights, directory: Path, _precision: str) -> None:
        for name in GRAPHS:
            shutil.copy(bundle / name, directory / name)

    return export


def _of_other_weights(_bundle: Path) -> Export:
    """Return an export of which every graph has other weights than the model."""

    def export(weights: ForecasterWeights, directory: Path, precision: str) -> None:
        export_all(replace(weights, head_bias=weights.head_bias + np.float32(1e-3)), directory, precision)

    return export


def _beside_the_weights(name: str) -> Callable[[Path], Export]:
    """Return an export of which one graph, and it alone, has other weights than the model."""

    def of_bundle(bundle: Path) -> Export:
        def export(weights: ForecasterWeights, directory: Path, precision: str) -> None:
            other = replace(weights, head_bias=weights.head_bias + np.float32(1e-3))
            export_recurrent(other, directory)
            wrong = (directory / name).read_bytes()
            _graphs_of(bundle)(weights, directory, precision)
            (directory / name).write_bytes(wrong)

        return export

    return of_bundle


@pytest.mark.parametrize(
    ("graph", "export", "seed", "old"),
    [
        (WINDOW_GRAPH, _of_other_weights, 0, False),
        (STEP_GRAPH, _beside_the_weights(STEP_GRAPH), 0, True),
        (CHUNK_GRAPH, _beside_the_weights(CHUNK_GRAPH), 0, True),
    ],
)
def test_a_graph_that_disagrees_leaves_nothing(
    graph: str,
    export: Callable[[Path], Export],
    seed: int,
    old: bool,
    pumps: Fitted,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A wrong graph ends `fit` with 1 and one line: graph, figure, limit; nothing is left, an old bundle stays."""
    out = tmp_path / "bundle"
    if old:
        shutil.copytree(pumps.bundle, out)
    before = _content(out) if old else {}
    monkeypatch.setattr(fitting, "export_all", export(pumps.bundle))
    words = _words(pumps.history.parent, seed)
    said = run(main, capsys, "fit", "--history", pumps.history, "--out", out, *words)
    refusal = [line for line in said.err.splitlines() if not line.startswith("note: ")]
    assert (said.code, said.out, len(refusal)) == (1, "", 1)
    found = re.search(
        rf"^trainer: .*{graph}: forecasts deviate from the trained model by (\S+), allowed is 1e-05$",
        refusal[0],
    )
    assert found is not None, refusal
    assert float(found.group(1)) > TOLERANCE
    assert [path.name for path in tmp_path.iterdir()] == (["bundle"] if old else [])
    assert (_content(out) if old else {}) == before


def _interrupted(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("moment", ["training", "proving", "replacing"])
def test_an_interrupted_fit_leaves_the_old_bundle(
    moment: str,
    pumps: Fitted,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Interrupted in an epoch, at the golden samples or while it takes its place, `fit` leaves the old bundle alone."""
    out = tmp_path / "bundle"
    shutil.copytree(pumps.bundle, out)
    before = _content(out)
    rename = Path.rename

    def once(source: Path, target: Path) -> Path:
        if target == out and not source.name.endswith(".old"):
            raise KeyboardInterrupt
        return rename(source, target)

    monkeypatch.setattr(fitting, "export_all", _graphs_of(pumps.bundle))
    if moment == "training":
        monkeypatch.setattr(_KeepBest, "on_epoch_end", _interrupted)
    elif moment == "proving":
        monkeypatch.setattr(fitting, "load_detector", _interrupted)
    else:
        monkeypatch.setattr(Path, "rename", once)
    words = _words(pumps.history.parent)
    said = run(main, capsys, "fit", "--history", pumps.history, "--out", out, *words)
    assert (said.code, said.out) == (1, "")
    assert said.err.endswith("trainer: interrupted; nothing was written\n")
    # What was learnt is kept beside it, for the same command to go on with.
    assert {path.name for path in tmp_path.iterdir()} == {"bundle", ".bundle.fitting"}
    assert not list(tmp_path.glob(".bundle.fitting/draft*"))
    assert _content(out) == before
