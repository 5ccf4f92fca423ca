"""Laws of recalibration: a whole new bundle from new normal history, what it refuses, and alarms as the daemon's."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge_agent.contract.bundle import read_bundle, read_golden, write_bundle
from edge_agent.contract.threshold import LEAST_PERIOD
from edge_agent.contract.types import Float32, Samples
from edge_agent.detector import load_detector, open_detector
from tests.commands import Said, run
from tests.small_bundle import SENSORS, make_small_bundle, normal_values
from trainer.cleaning import Cleaned, Series
from trainer.cli import main
from trainer.progress import Progress
from trainer.recalibrate import Recalibration, Wishes, recalibrate
from trainer.release import next_version

START = 1_700_000_000
ROWS = 3000
LONG = 6000
"""Rows that have the clusters of a tail."""
WISHES = Wishes()
GRAPHS = ("step.onnx", "chunk.onnx", "window.onnx")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A small bundle, trained long before the histories of these tests."""
    return make_small_bundle(tmp_path / "bundle").directory


def _write(
    path: Path, values: Float32, start: int = START, step: int = 1, names: tuple[str, ...] = SENSORS
) -> Path:
    rows = [",".join(("time", *names))]
    rows += [
        f"{start + row * step}," + ",".join(f"{cell:.5f}" for cell in line) for row, line in enumerate(values)
    ]
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def history(tmp_path: Path) -> Path:
    """New normal history of the same machine."""
    return _write(tmp_path / "later.csv", normal_values(ROWS, 5))


def _recalibrated(capsys: pytest.CaptureFixture[str], *words: object) -> Said:
    return run(main, capsys, "recalibrate", "--json", *words)


def _contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_a_whole_new_bundle_is_written_and_the_source_stays(
    bundle: Path, history: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Graphs are copied, golden samples made anew, the version raised, the parent recorded and left as it was."""
    before = _contents(bundle)
    said = _recalibrated(capsys, "--bundle", bundle, "--history", history, "--out", tmp_path / "new")
    assert said.code == 0, said.err
    record, new, old = said.record(), load_detector(tmp_path / "new").bundle, read_bundle(bundle)
    assert _contents(bundle) == before
    assert all(new.manifest.files[name] == old.manifest.files[name] for name in GRAPHS)
    assert not np.array_equal(read_golden(new)["step_statistic"], read_golden(old)["step_statistic"])
    assert (old.manifest.version, new.manifest.version, record["version"]) == ("1", "2", "2")
    origin = new.manifest.trained["recalibrated"]
    assert origin["parent_sha256"] == old.sha256 == record["parent_sha256"]
    assert (origin["first_time"], origin["last_time"], origin["samples"]) == (START, START + ROWS - 1, ROWS)
    assert len(origin["data_sha256"]) == 64
    assert record["new"]["threshold"] == new.manifest.threshold.value
    assert record["sha256"] == new.sha256
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_scales_are_never_learnt_from_rows_that_judge_them(bundle: Path) -> None:
    """Other rows in the part that gives the threshold change the threshold and no scale, correlation or centre."""
    values = normal_values(ROWS, 5)
    other = values.copy()
    centre = other[2000:].mean(axis=0)
    other[2000:] = (1.3 * (other[2000:] - centre) + centre).astype(np.float32)
    first, second = (_found(bundle, table).bundle for table in (values, other))
    for name in ("level_scale", "level_correlation", "residual_scale", "residual_correlation", "centres"):
        np.testing.assert_array_equal(getattr(first.scoring, name), getattr(second.scoring, name))
    assert first.manifest.threshold.value != second.manifest.threshold.value


def _found(bundle: Path, values: Float32, wishes: Wishes = WISHES) -> Recalibration:
    series = Series("asset", START + np.arange(len(values)), values, None)
    cleaned = Cleaned(SENSORS, 1.0, 0.0, (series,), {}, (), (), len(values))
    return recalibrate(bundle, cleaned, "later.csv", wishes)


def test_a_machine_that_stands_elsewhere_is_normal_again(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """After an overhaul the old threshold is in alarm most of the time; the new bundle is quiet on later data."""
    moved = np.array([8.0, -1.2], np.float32)
    words = ("--bundle", bundle, "--out", tmp_path / "new", "--history")
    said = _recalibrated(capsys, *words, _write(tmp_path / "moved.csv", normal_values(ROWS, 5) + moved))
    record = said.record()
    assert record["scales"] == "renewed"
    assert record["old"]["time_in_alarm_ratio"] > 0.5 > 0.01 > record["new"]["time_in_alarm_ratio"]
    assert record["old"]["alarms_per_week"] > 0
    later = normal_values(1500, 6) + moved
    alarms = [
        load_detector(directory).process(_samples(later)).alarm.mean()
        for directory in (bundle, tmp_path / "new")
    ]
    assert alarms[0] > 0.5 > 0.01 > alarms[1]


def _samples(values: Float32) -> Samples:
    return Samples(np.zeros(len(values), np.int64), START + np.arange(len(values)), values)


@pytest.mark.parametrize("basis", ["margin", "tail"])
def test_alarms_counted_are_those_of_the_daemon(bundle: Path, basis: str) -> None:
    """At every threshold the engine over the statistic opens the alarms that the detector opens, guard included."""
    values = normal_values(ROWS, 5)
    values[1000:1200, 0] += 14.0
    values[2000:2050, 1] = 30.0
    source = read_bundle(bundle)
    if basis == "tail":
        found = _found(bundle, normal_values(LONG, 5), Wishes(scales="keep"))
        manifest = replace(source.manifest, threshold=found.anew(300.0))
        assert manifest.threshold.basis == "tail"
        source = write_bundle(replace(source, manifest=manifest), read_golden(source))
    found = _found(bundle, values, Wishes(scales="keep"))
    thresholds = [
        replace(source.manifest.threshold, value=value) for value in (0.1, 0.25, 0.6, 0.9, 1.5, 4.0)
    ]
    counted = found.runs(thresholds, False, Progress())
    for threshold, run_of_one in zip(thresholds, counted, strict=True):
        own = replace(source, manifest=replace(source.manifest, threshold=threshold))
        outcomes = open_detector(own).process(_samples(values))
        scored = np.isfinite(outcomes.score)
        assert run_of_one.alarms == sum(event.kind == "start" for event in outcomes.events)
        assert run_of_one.time_in_alarm_ratio == pytest.approx(outcomes.alarm[scored].mean())
    assert counted[0].time_in_alarm_ratio > counted[-1].time_in_alarm_ratio > 0
    assert len({one.alarms for one in counted}) > 1


def test_a_short_history_keeps_the_scales_and_says_so(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Too few rows for scales calibrate the threshold alone; `--scales renew` learns them all the same."""
    path = _write(tmp_path / "short.csv", normal_values(500, 5))
    words = ("--bundle", bundle, "--history", path, "--out", tmp_path / "new")
    said = _recalibrated(capsys, *words)
    assert (said.code, said.record()["scales"]) == (0, "kept")
    assert f"{path}: scales of residuals and levels stay as they were; the history is too short" in said.err
    old, new = read_bundle(bundle), read_bundle(tmp_path / "new")
    np.testing.assert_array_equal(old.scoring.level_scale, new.scoring.level_scale)
    assert new.manifest.threshold.value != old.manifest.threshold.value
    longer = _write(tmp_path / "longer.csv", normal_values(900, 5))
    said = _recalibrated(
        capsys, "--bundle", bundle, "--history", longer, "--out", tmp_path / "r", "--scales", "renew"
    )
    assert said.record()["scales"] == "renewed"


def test_labelled_rows_and_rows_of_the_training_do_not_count(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rows labelled as not normal, and rows of the time of training unless of another machine, are left out."""
    source = read_bundle(bundle)
    trained = {"first_time": START - 100.0, "last_time": START + 999.0}
    write_bundle(replace(source, manifest=replace(source.manifest, trained=trained)), read_golden(source))
    path = _write(tmp_path / "labelled.csv", normal_values(ROWS, 5))
    head, *rows = path.read_text(encoding="utf-8").splitlines()
    labelled = [f"{row},{int(2000 <= number < 2100)}" for number, row in enumerate(rows)]
    path.write_text("\n".join([f"{head},label", *labelled]) + "\n", encoding="utf-8")
    words = ("--bundle", bundle, "--history", path, "--label-column", "label")
    record = _recalibrated(capsys, *words, "--out", tmp_path / "a").record()
    assert record["left_out"] == {"labelled as not normal": 100, "seen in training": 1000}
    assert record["samples"] == ROWS - 1100
    record = _recalibrated(capsys, *words, "--out", tmp_path / "b", "--other-machine").record()
    assert record["left_out"] == {"labelled as not normal": 100}


def test_in_place_only_when_asked(bundle: Path, history: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The source bundle is replaced with `--in-place`, and never because `--out` names it."""
    before = _contents(bundle)
    said = _recalibrated(capsys, "--bundle", bundle, "--history", history, "--out", bundle)
    assert (said.code, "--in-place replaces it" in said.refusal()) == (2, True)
    assert _contents(bundle) == before
    said = _recalibrated(capsys, "--bundle", bundle, "--history", history, "--in-place")
    assert said.code == 0
    assert load_detector(bundle).bundle.manifest.version == "2"


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        ((), "--out: must be given, or --in-place, or --what-if"),
        (("--what-if", "--out", "x"), "--what-if: writes nothing"),
        (("--out", "x", "--in-place"), "--out: must be given, or --in-place"),
        (("--out", "x", "--alarms-per-week", "0"), "--alarms-per-week: is 0.0, at least 1e-06 is needed"),
    ],
)
def test_bad_usage_is_refused(
    words: tuple[str, ...], rule: str, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Options that do not go together are refused in one line with exit code 2."""
    said = _recalibrated(capsys, "--bundle", bundle, "--history", "none.csv", *words)
    assert said.code == 2
    assert rule in said.refusal()


@pytest.mark.parametrize("kind", ["sensor", "interval", "unit", "seen", "short", "one asset of many"])
def test_a_history_that_cannot_calibrate_is_refused(
    kind: str, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A missing sensor, another interval or unit, nothing unseen, too few rows: one line, code 1, nothing written."""
    values, path = normal_values(2000, 5), tmp_path / "bad.csv"
    rules = {
        "sensor": "sensor pressure of the bundle is missing",
        "interval": "sampled every 5 s, the bundle needs 1 s",
        "unit": "sensor pressure reads 87.",
        "seen": "no row may calibrate: 2000 lie in the time that the bundle was fitted on",
        "short": "history too short: 60 samples to calibrate on, at least",
        "one asset of many": "sensor flow of the bundle is missing",
    }
    if kind == "sensor":
        _write(path, values[:, :1], names=SENSORS[:1])
    elif kind == "one asset of many":
        _write(path, values, names=("other", "pressure"))
    elif kind == "unit":
        _write(path, np.asarray(values * np.array([1.0, 14.5038]), np.float32))
    else:
        _write(path, values[:60] if kind == "short" else values, step=5 if kind == "interval" else 1)
    if kind == "seen":
        source = read_bundle(bundle)
        trained = {"first_time": float(START), "last_time": START + 1e6}
        write_bundle(replace(source, manifest=replace(source.manifest, trained=trained)), read_golden(source))
    said = run(main, capsys, "recalibrate", "--bundle", bundle, "--history", path, "--out", tmp_path / "new")
    assert said.code == 1
    assert f"{path}: {rules[kind]}" in said.err.splitlines()[-1]
    assert "Traceback" not in said.err
    assert sorted(one.name for one in tmp_path.iterdir()) == ["bad.csv", "bundle"]


def test_what_if_needs_no_out_and_writes_nothing(
    bundle: Path, history: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A rarer budget has no lower threshold, more alarms or longer ones; what the history cannot show is marked."""
    before = sorted(tmp_path.rglob("*"))
    words = ("--bundle", bundle, "--history", history, "--alarms-per-week", "1000")
    record = _recalibrated(capsys, *words, "--what-if").record()
    assert sorted(tmp_path.rglob("*")) == before
    budgets = [row["budget"] for row in record["budgets"]]
    assert {0.1, 0.25, 0.5, 1, 2, 5, 10, 20, 1000} <= set(budgets)
    assert budgets == sorted(budgets)
    for row in record["budgets"]:
        assert row["budget"] >= LEAST_PERIOD * record["supported_alarms_per_week"] or not row["supported"]
        assert row["supported"] == (row["recalibrated"]["score_basis"] == "tail")
    shown = run(main, capsys, "recalibrate", *words, "--what-if", "--scales", "keep")
    assert shown.code == 0
    assert "too few separate excursions" in shown.out


def test_more_alarms_allowed_never_means_a_higher_threshold(bundle: Path) -> None:
    """Among budgets that the history supports, thresholds and times in alarm fall as the budget grows rarer."""
    found = _found(bundle, normal_values(LONG, 5), Wishes(scales="keep"))
    limits = [found.anew(budget) for budget in (2000.0, 1000.0, 500.0, 300.0)]
    assert {limit.basis for limit in limits} == {"tail"}
    assert [limit.value for limit in limits] == sorted(limit.value for limit in limits)
    times = [one.time_in_alarm_ratio for one in found.runs(limits, True, Progress())]
    assert times == sorted(times, reverse=True)


def test_recalibration_loads_no_training_library(bundle: Path, history: Path, tmp_path: Path) -> None:
    """The whole command, in a process of its own, imports neither TensorFlow nor Keras."""
    program = (
        "import json, sys; from trainer.cli import main; code = main(sys.argv[1:]);"
        "print(json.dumps([code, sorted({name.partition('.')[0] for name in sys.modules})]))"
    )
    words = ["recalibrate", "--bundle", bundle, "--history", history, "--out", tmp_path / "new"]
    command = [sys.executable, "-c", program, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    code, loaded = json.loads(done.stdout.splitlines()[-1])
    assert code == 0
    assert "onnxruntime" in loaded
    # Not pandas: scikit-learn imports it where it is installed, as SHAP needs it.
    assert [name for name in ("tensorflow", "keras", "tf2onnx", "matplotlib") if name in loaded] == []


@pytest.mark.parametrize(
    ("given", "wanted"), [("1", "2"), ("2026.9", "2026.10"), ("blue", "blue.1"), ("v09", "v10")]
)
def test_versions_are_raised(given: str, wanted: str) -> None:
    """The last number of a version goes up by one."""
    assert next_version(given) == wanted
