"""Laws of the bundle: what is written is read, and nothing damaged is accepted."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge_agent.contract.bundle import CHUNK, GOLDEN, MANIFEST, Bundle, read_bundle, read_golden, write_bundle
from edge_agent.contract.contradiction import ContradictionModel
from edge_agent.contract.errors import BundleError
from edge_agent.contract.minimum_deviation import DeviationRule
from edge_agent.contract.off_condition import OffCondition
from edge_agent.detector import load_detector
from tests.tiny_machine import SENSORS, TINY_BUNDLE, normal_values, samples_of

FILES = sorted(path.name for path in TINY_BUNDLE.iterdir())


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Return a copy of the bundle that may be damaged."""
    return Path(shutil.copytree(TINY_BUNDLE, tmp_path / "bundle"))


def _changed(directory: Path, **fields: object) -> None:
    path = directory / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | fields), encoding="utf-8")


@pytest.mark.parametrize("inference", [None, "step", "window"])
def test_the_bundle_of_these_tests_reproduces_its_golden_samples(inference: str | None) -> None:
    """The committed bundle is whole, small, and gives in both modes what its golden samples say."""
    detector = load_detector(TINY_BUNDLE, inference)
    assert detector.bundle.manifest.sensor_names == SENSORS
    assert detector.forecaster.inference == (inference or "step")
    assert sum(path.stat().st_size for path in TINY_BUNDLE.iterdir()) < 60_000


def test_what_is_written_is_read(copy: Path) -> None:
    """Writing a bundle and reading it back gives the same record, scoring model and golden samples."""
    before, golden = read_bundle(copy), read_golden(read_bundle(copy))
    changed = replace(before.manifest, version="2", metrics={"rmse": 0.5})
    after = write_bundle(Bundle(copy, changed, before.scoring), golden)
    assert after.manifest == replace(changed, files=after.manifest.files)
    assert after.sha256 != before.sha256
    for name in ("residual_correlation", "level_scale", "centres", "judged", "normalisers"):
        np.testing.assert_array_equal(getattr(after.scoring, name), getattr(before.scoring, name))
    assert after.scoring.spans == before.scoring.spans
    for name, array in read_golden(after).items():
        np.testing.assert_array_equal(array, golden[name])


def test_a_contradiction_is_written_and_read(copy: Path) -> None:
    """What is usual of contradictions, and their balance, come back as they were; one that fits nothing is refused."""
    before = read_bundle(copy)
    assert not before.scoring.contradiction
    usual = np.array([1.0, 2.0, 3.0])
    judged = replace(before.scoring, contradiction=ContradictionModel(usual, 0.7))
    after = write_bundle(Bundle(copy, before.manifest, judged), read_golden(before))
    np.testing.assert_array_equal(after.scoring.contradiction.usual, usual)
    assert after.scoring.contradiction.balance == 0.7
    broken = replace(judged, contradiction=ContradictionModel(usual[:2], 0.7))
    with pytest.raises(BundleError, match="contradiction: must hold"):
        write_bundle(Bundle(copy, before.manifest, broken), read_golden(before))


@pytest.mark.parametrize("place", [0.0, 0.5, 0.99])
@pytest.mark.parametrize("name", [name for name in FILES if name != MANIFEST])
def test_one_flipped_byte_is_found(copy: Path, name: str, place: float) -> None:
    """A single changed byte of any file is refused by the file's name."""
    content = bytearray((copy / name).read_bytes())
    content[int(place * len(content))] ^= 0x01
    (copy / name).write_bytes(bytes(content))
    with pytest.raises(BundleError, match=f"{name}: SHA-256 differs"):
        read_bundle(copy)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(copy: Path, name: str) -> None:
    """A bundle that lacks a file is refused by the file's name."""
    (copy / name).unlink()
    with pytest.raises(BundleError, match=name):
        read_bundle(copy)


def test_steps_run_without_chunks_but_no_chunk_without_its_hash(copy: Path) -> None:
    """Without a chunk graph the scores are the same, step by step; one that lies there unlisted is refused."""
    files = read_bundle(copy).manifest.files
    _changed(copy, files={name: value for name, value in files.items() if name != CHUNK})
    with pytest.raises(BundleError, match=rf"files: {CHUNK} must be listed"):
        read_bundle(copy)
    (copy / CHUNK).unlink()
    samples = samples_of(normal_values(60, seed=5))
    found, expected = (load_detector(place).process(samples) for place in (copy, TINY_BUNDLE))
    np.testing.assert_allclose(found.forecast, expected.forecast, rtol=1e-4)
    np.testing.assert_allclose(found.score, expected.score, atol=1e-3)


@pytest.mark.parametrize("kept", [0, 1, 100, 1000, 3000])
def test_a_truncated_manifest_is_refused(copy: Path, kept: int) -> None:
    """A manifest that was cut anywhere is no manifest."""
    path = copy / MANIFEST
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(BundleError, match=MANIFEST) as failure:
        read_bundle(copy)
    assert "\n" not in str(failure.value)


@pytest.mark.parametrize("version", [0, 1, "2", None])
def test_another_contract_version_is_refused(copy: Path, version: object) -> None:
    """A bundle of another contract version is refused, naming both versions."""
    _changed(copy, contract_version=version)
    with pytest.raises(BundleError, match=f"contract_version: is {version}, this program reads 2"):
        read_bundle(copy)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("surprise", 1),
        ("sensors", [{"name": "pressure"}]),
        ("sensors", None),
        ("threshold", {"value": 1.0}),
        ("threshold", []),
        ("alarm_rules", {"open_count": 1, "mood": "good"}),
        ("off_condition", {"sensor": "pressure", "comparison": "<", "value": 1.0, "mood": 3}),
        ("off_condition", {"sensor": "torque", "comparison": "<", "value": 1.0}),
        ("off_condition", {"sensor": "pressure", "comparison": "=<", "value": 1.0}),
        ("off_condition", {"sensor": "pressure", "comparison": "<", "value": "low"}),
        ("off_condition", {"sensor": "pressure", "comparison": "<", "value": 1.0, "settle_ticks": -1}),
        ("off_condition", 3),
        ("files", {}),
        ("files", []),
        ("files", {"../manifest.json": "0"}),
        ("inference", "guess"),
    ],
)
def test_a_record_that_breaks_the_contract_is_refused(copy: Path, field: str, value: object) -> None:
    """Unknown keys, missing keys and wrong types of the manifest are refused in one line."""
    _changed(copy, **{field: value})
    with pytest.raises(BundleError, match=r"bundle") as failure:
        read_bundle(copy)
    assert "\n" not in str(failure.value)


@pytest.mark.parametrize(
    ("part", "field", "value", "rule"),
    [
        ("alarm_rules", "open_count", "3", "open_count: must be a whole number"),
        ("alarm_rules", "open_count", 0, "open_count: must be above 0"),
        ("alarm_rules", "open_window", 64, "open_window: must be at least open_count and at most 63"),
        ("alarm_rules", "immediate_score", True, "immediate_score: must be a number"),
        ("threshold", "value", float("nan"), "value: must be finite"),
        ("threshold", "alarms_per_week", -1.0, "alarms_per_week: must be above 0"),
        (None, "window_length", 8.0, "window_length: must be a whole number"),
        (None, "sampling_interval_seconds", 0, "sampling_interval_seconds: must be above 0"),
        (None, "max_gap_ticks", None, "max_gap_ticks: must be a whole number"),
        (None, "name", 7, "name: must be text"),
        (None, "sensors", [], "sensors: must be above 0"),
    ],
)
def test_an_edited_record_that_cannot_work_is_refused(
    copy: Path, part: str | None, field: str, value: object, rule: str
) -> None:
    """A value of the wrong type or out of range is refused by the name of its field, before it is worked with."""
    record = json.loads((copy / MANIFEST).read_text("utf-8"))
    _changed(copy, **({field: value} if part is None else {part: record[part] | {field: value}}))
    with pytest.raises(BundleError, match=rule):
        read_bundle(copy)


def test_alarm_rules_may_be_edited(copy: Path) -> None:
    """Other sensible alarm rules in the manifest are taken, whole numbers for seconds and scores included."""
    rules = {"open_count": 5, "open_window": 9, "immediate_score": 6}
    _changed(copy, alarm_rules=rules)
    assert load_detector(copy).bundle.manifest.alarm_rules.open_count == 5


def test_rules_for_sensors_and_an_off_condition_are_read_back(copy: Path) -> None:
    """What the manifest says of each sensor's least deviation and of being off is what the detector goes by."""
    rules = {"sensors": {"flow": {"min_absolute": 2.0, "min_relative": 0.0, "direction": "above"}}}
    off = {"sensor": "pressure", "comparison": "<", "value": 1, "settle_ticks": 3}
    _changed(copy, alarm_rules=rules, off_condition=off)
    manifest = load_detector(copy).bundle.manifest
    assert manifest.alarm_rules.sensors == {"flow": DeviationRule(2.0, 0.0, "above")}
    assert manifest.off_condition == OffCondition("pressure", "<", 1, 3)


@pytest.mark.parametrize("text", ["[]", "null", "3", '"text"', "\x00\xff"])
def test_json_of_another_kind_is_refused(copy: Path, text: str) -> None:
    """A manifest that is not an object is refused in one line."""
    (copy / MANIFEST).write_text(text, encoding="latin-1")
    with pytest.raises(BundleError, match="not a manifest"):
        read_bundle(copy)


def test_an_empty_directory_is_no_bundle(tmp_path: Path) -> None:
    """A directory without a manifest and a directory that does not exist are no bundles."""
    for directory in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(BundleError, match="no bundle there"):
            read_bundle(directory)


@pytest.mark.parametrize("array", ["step_forecast", "step_statistic"])
def test_golden_samples_that_are_not_reproduced_are_refused(copy: Path, array: str) -> None:
    """A bundle whose hashes are right but whose graphs give something else does not start."""
    bundle = read_bundle(copy)
    golden = read_golden(bundle)
    golden[array] = golden[array] * np.float32(1.01)
    write_bundle(bundle, golden)
    with pytest.raises(BundleError, match=f"{GOLDEN}: {array.replace('_', ' ')} is not reproduced"):
        load_detector(copy)


def test_a_scoring_model_that_is_not_finite_is_refused(copy: Path) -> None:
    """Not-a-number in the scoring model is refused although its hash is right."""
    bundle = read_bundle(copy)
    broken = replace(bundle.scoring, level_scale=bundle.scoring.level_scale * np.nan)
    with pytest.raises(BundleError, match=r"scoring\.npz: must hold finite arrays"):
        write_bundle(replace(bundle, scoring=broken), read_golden(bundle))
