"""Laws of the command `edge-agent`: bad input is one clear line and an exit code, `--json` is one object."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_agent import check
from edge_agent.cli import main
from tests.commands import SPOILT, UNMEASURED, UNUSABLE, edited, run, table, text, two_assets
from tests.tiny_machine import TINY_BUNDLE

REPLAY = ("replay", "--bundle", TINY_BUNDLE, "--history")


def _written(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.fixture
def history(tmp_path: Path) -> Path:
    """A file with a fault in its middle."""
    return _written(tmp_path / "pump.csv", text(table(300, (100, 160))))


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle that a test may damage."""
    return Path(shutil.copytree(TINY_BUNDLE, tmp_path / "bundle"))


# The console entry, its help and its usage.


def test_the_installed_command_answers_help_and_errors(tmp_path: Path) -> None:
    """The console script itself gives 0 for help, 2 for bad usage and 78 for a bad configuration, in one line."""
    script = str(Path(sys.executable).parent / "edge-agent")
    absent = str(tmp_path / "none.toml")
    for code, words in ((0, ["--help"]), (2, ["run"]), (78, ["run", "--config", absent])):
        done = subprocess.run([script, *words], capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == code
        assert done.stderr.count("\n") == (1 if code else 0), done.stderr
        assert ("examples:" in done.stdout) == (code == 0)


@pytest.mark.parametrize("command", ["run", "check", "replay"])
def test_help_of_every_command_has_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`--help` ends with 0 and shows a line that could be typed."""
    said = run(main, capsys, command, "--help")
    assert (said.code, said.err) == (0, "")
    assert f"example:\n  edge-agent {command} --" in said.out


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        ((), "COMMAND"),
        (("start",), "invalid choice: 'start'"),
        (("run",), "--config"),
        (("replay", "--history", "a.csv"), "--bundle"),
        (
            ("replay", "--bundle", "b", "--history", "a.csv", "--provider", "tpu"),
            "--provider: invalid choice",
        ),
        (
            ("replay", "--bundle", "b", "--history", "a.csv", "--lateness-ticks", "x"),
            "--lateness-ticks: invalid",
        ),
        (
            ("replay", "--bundle", "b", "--history", "a.csv", "--lateness-ticks", "-1"),
            "--lateness-ticks: is -1",
        ),
    ],
)
def test_bad_usage_is_one_line_and_exit_code_2(
    words: tuple[str, ...], rule: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A command line that cannot be read is refused in one line that names the option."""
    said = run(main, capsys, *words)
    assert said.code == 2
    assert rule in said.refusal()


# Configuration and bundle of `run` and `check`.


@pytest.mark.parametrize("command", ["run", "check"])
@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (b"[bundle]\npath = 'b'\nspeed = 1", "bundle.speed: is not a known key"),
        (b"[bundle]\npath = 'b'\n[mqt]\nhost = 'a'", "mqt: is not a known key"),
        (b"[mqtt]\nhost = 'a'", "bundle: must be given"),
        (b"[bundle]\npath = 3", "bundle.path: "),
        (b"[bundle]\npath = 'b'\n[mqtt]\nport = 'high'", "mqtt.port: "),
        (b"[bundle]\npath = 'b'\n[mqtt]\nport = 99999", "mqtt.port: "),
        (b"[bundle]\npath = 'b'\n[metrics]\nport = nan", "metrics.port: "),
        (b"[bundle]\npath = 'b'\n[quality]\nmax_future_seconds = nan", "quality.max_future_seconds: "),
        (b"[bundle]\npath = 'b'\n[quality]\nmax_future_seconds = -1", "quality.max_future_seconds: "),
        (b"[bundle]\npath = 'b'\nprovider = 'tpu'", "bundle.provider: "),
        (b"[bundle]\npath = 'b'\n[[mqtt.inputs]]\ntopic = 'a/#/b'", "mqtt.inputs.0.topic: "),
        (b"bundle = 3", "bundle: "),
        (b"[bundle", "TOML: "),
        (b"[bundle]\npath = '\xff'", "file: must be UTF-8 text"),
        (b"", "bundle: must be given"),
    ],
)
def test_a_bad_configuration_is_one_line(
    command: str, content: bytes, rule: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each unknown key, wrong type, wrong value and broken file is one line with file and field, exit code 78."""
    path = _written(tmp_path / "edge-agent.toml", content)
    said = run(main, capsys, command, "--config", path)
    assert said.code == 78
    assert said.refusal().startswith(f"edge-agent: {path}: {rule}")


@pytest.mark.parametrize("command", ["run", "check"])
def test_a_configuration_that_is_not_there_is_one_line(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An absent file, or a folder in its place, is refused by its path with exit code 78."""
    for path in (tmp_path / "none.toml", tmp_path):
        said = run(main, capsys, command, "--config", path)
        assert (said.code, said.refusal().startswith(f"edge-agent: {path}: file: ")) == (78, True)


def test_a_wrong_environment_variable_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bad value from the environment is refused by the variable's name, not by the file's, and without the value."""
    path = _written(tmp_path / "edge-agent.toml", "[bundle]\npath = 'b'")
    monkeypatch.setenv("FOREWARN_MQTT__PORT", "hunter2")
    said = run(main, capsys, "check", "--config", path)
    assert said.code == 78
    assert "environment variable FOREWARN_MQTT__PORT: mqtt.port: " in said.refusal()
    assert "hunter2" not in said.err


def _no_file(name: str) -> Callable[[Path], None]:
    return lambda bundle: (bundle / name).unlink()


def _damage(name: str) -> Callable[[Path], None]:
    def edit(bundle: Path) -> None:
        (bundle / name).write_bytes((bundle / name).read_bytes()[:-1] + b"?")

    return edit


def _replace(name: str, old: str, new: str) -> Callable[[Path], None]:
    def edit(bundle: Path) -> None:
        content = (bundle / name).read_text(encoding="utf-8")
        assert old in content
        (bundle / name).write_text(content.replace(old, new, 1), encoding="utf-8")

    return edit


BAD_BUNDLES: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "absent": (shutil.rmtree, "manifest.json", "no bundle there"),
    "empty": (_no_file("manifest.json"), "manifest.json", "no bundle there"),
    "no graph": (_no_file("step.onnx"), "step.onnx", "the manifest names this file, and it is missing"),
    "damaged graph": (_damage("step.onnx"), "step.onnx", "SHA-256 differs"),
    "damaged scoring": (_damage("scoring.npz"), "scoring.npz", "SHA-256 differs"),
    "damaged golden samples": (_damage("golden.npz"), "golden.npz", "SHA-256 differs"),
    "no JSON": (_damage("manifest.json"), "manifest.json", "not a manifest"),
    "other version": (
        _replace("manifest.json", '"contract_version": 2', '"contract_version": 99'),
        "manifest.json",
        "contract_version: is 99, this program reads 2",
    ),
    "wrong type": (
        _replace("manifest.json", '"window_length": 8', '"window_length": "8"'),
        "manifest.json",
        "window_length: must be a whole number",
    ),
}


@pytest.mark.parametrize("case", BAD_BUNDLES)
@pytest.mark.parametrize("command", ["run", "replay"])
def test_a_bad_bundle_stops_the_start_in_one_line(
    command: str, case: str, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A bundle that is absent, incomplete, damaged or of another version is refused by file and rule, code 78."""
    spoil, file, rule = BAD_BUNDLES[case]
    spoil(bundle)
    config = _written(tmp_path / "edge-agent.toml", '[bundle]\npath = "bundle"\n[metrics]\nport = 0\n')
    history = _written(tmp_path / "pump.csv", text(table()))
    words = ("--config", config) if command == "run" else ("--bundle", bundle, "--history", history)
    said = run(main, capsys, command, *words)
    assert said.code == 78
    assert f"{bundle / file}: " in said.refusal()
    assert rule in said.refusal()


@pytest.mark.parametrize("case", BAD_BUNDLES)
def test_check_finds_a_bad_bundle(
    case: str, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`check` gives a bad bundle a line of its own and ends with 78, before a broker is even needed."""
    spoil, file, rule = BAD_BUNDLES[case]
    spoil(bundle)
    content = '[bundle]\npath = "bundle"\n[metrics]\nport = 0\n[mqtt]\nport = 1\n'
    said = run(main, capsys, "check", "--config", _written(tmp_path / "edge-agent.toml", content))
    failed = [line for line in said.out.splitlines() if line.startswith("failed")]
    assert (said.code, said.err) == (78, "")
    assert len([line for line in failed if f"bundle: {bundle / file}: " in line and rule in line]) == 1


def test_check_finds_both_runtimes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With onnxruntime and onnxruntime-gpu in one environment `check` says which to remove and ends with 78."""
    versions = {"onnxruntime": "1.31.0", "onnxruntime-gpu": "1.32.0"}
    monkeypatch.setattr(check, "_installed", lambda: versions)
    content = f'[bundle]\npath = "{TINY_BUNDLE}"\n[metrics]\nport = 0\n[mqtt]\nport = 1\n'
    said = run(main, capsys, "check", "--config", _written(tmp_path / "edge-agent.toml", content))
    assert said.code == 78
    found = next(line for line in said.out.splitlines() if " packages: " in line)
    assert found.startswith("failed")
    assert "onnxruntime and onnxruntime-gpu are both installed" in found


# Files that `replay` reads.


@pytest.mark.parametrize("case", UNUSABLE)
def test_an_unusable_file_is_refused_by_its_name(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Empty, header only, no text, wrong encoding, no times, text throughout: one line, exit code 1."""
    content, rule = UNUSABLE[case]
    path = _written(tmp_path / "pump.csv", content)
    said = run(main, capsys, *REPLAY, path, "--json")
    assert said.code == 1
    assert said.refusal().startswith(f"edge-agent: {path}: ")
    assert rule in said.refusal()


def test_files_that_are_not_there_or_of_another_machine_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An absent file and a file with none of the bundle's sensors are each one line with exit code 1."""
    said = run(main, capsys, *REPLAY, tmp_path / "none.csv")
    assert (said.code, "no such file" in said.refusal()) == (1, True)
    other = text(table()).replace(b"pressure,temperature,flow", b"p,q,r")
    said = run(main, capsys, *REPLAY, _written(tmp_path / "other.csv", other))
    assert said.code == 1
    assert "none of the bundle's sensors (pressure, temperature, flow" in said.err.splitlines()[-1]


@pytest.mark.parametrize("case", SPOILT)
def test_replay_says_what_it_made_of_bad_cells(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lacking and unknown sensors, text, infinity, huge integers: replayed, noted and counted."""
    content, notice, counted = SPOILT[case]
    path = _written(tmp_path / "pump.csv", content)
    said = run(main, capsys, *REPLAY, path, "--json")
    record = said.record()
    assert said.code == 0
    assert {reason: count for reason, count in record["rejected"].items() if count} == counted
    assert record["scored"] > 0
    spoken = run(main, capsys, *REPLAY, path)
    assert any(line.startswith("note: ") and notice in line for line in spoken.err.splitlines()), spoken.err
    assert " alarms in " in spoken.out


def test_a_replay_of_nothing_says_that_nothing_was_scored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file without a measured value, and one shorter than the warm-up, end with 0 and say what is missing."""
    for content in (UNMEASURED, text(table(5))):
        said = run(main, capsys, *REPLAY, _written(tmp_path / "pump.csv", content))
        assert said.code == 0
        assert "no sample was scored, a score needs 8 samples before it" in said.err
        assert "0 of them scored" in said.out


def test_missing_cells_cost_nothing_but_themselves(
    history: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """NaN in a cell, as the word or as nothing, neither ends the replay nor hides the fault."""
    whole = run(main, capsys, *REPLAY, history, "--json").record()
    rows = table(300, (100, 160))
    for row in range(20, 300, 37):
        rows[row][2], rows[row + 1][3] = "NaN", ""
    holed = run(main, capsys, *REPLAY, _written(tmp_path / "holed.csv", text(rows)), "--json").record()
    assert holed["scored"] == whole["scored"]
    assert [event["sensors"][0]["name"] for event in holed["events"]] == ["pressure"] * len(whole["events"])


# What `replay` prints.


def test_replay_json_is_one_object_with_the_alarms(history: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`events` has start, end, peak score, severity and sensors of each alarm; nothing else is said."""
    said = run(main, capsys, *REPLAY, history, "--json")
    record = said.record()
    assert (said.code, said.err) == (0, "")
    assert len(record["events"]) >= 1
    event = record["events"][0]
    assert {"start", "end", "peak_score", "severity", "sensors"} <= set(event)
    assert event["start"] < event["end"]
    assert event["peak_score"] > 1
    assert sum(sensor["share"] for sensor in event["sensors"]) <= 1 + 1e-6
    assert event["sensors"][0]["name"] == "pressure"


def test_replay_tells_bad_data_from_alarms(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A sensor that sends nonsense is a line and a record of its own, with reason and times, and no alarm."""
    rows = table(200)
    for row in range(51, 71):
        rows[row][2] = "-9999"
    path = _written(tmp_path / "wild.csv", text(rows))
    record = run(main, capsys, *REPLAY, path, "--json").record()
    (bad,) = record["data_quality"]
    assert record["events"] == []
    assert [(one["name"], one["reason"]) for one in bad["sensors"]] == [("temperature", "out_of_range")]
    assert bad["start"] < bad["end"]
    assert record["data_quality_counts"]["out_of_range"] == 1
    said = run(main, capsys, *REPLAY, path)
    assert any("data quality: temperature out_of_range since" in line for line in said.out.splitlines())


def test_replay_speaks_to_a_person_in_units(history: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without `--json` each alarm is a line with its times, its severity and readings in their units."""
    said = run(main, capsys, *REPLAY, history)
    *alarms, total = said.out.splitlines()
    assert len(alarms) == len(run(main, capsys, *REPLAY, history, "--json").record()["events"])
    assert all(" to " in line and " bar, expected " in line for line in alarms)
    assert total.endswith(f"{len(alarms)} alarms in 300 samples, 292 of them scored")


def test_the_mode_of_inference_changes_no_alarm(history: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Step and window, whatever was calibrated, raise the same alarms on the same file."""
    events = [
        run(main, capsys, *REPLAY, history, "--json", "--inference", mode).record()["events"]
        for mode in ("step", "window")
    ]
    assert [event["start"] for event in events[0]] == [event["start"] for event in events[1]]


def test_replay_goes_by_the_alarm_rules_of_the_bundle(
    history: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the manifest's least deviations hold back is no alarm, and is counted and said."""
    path = bundle / "manifest.json"
    record = json.loads(path.read_text("utf-8"))
    sensors = {sensor["name"]: {"min_absolute": 1e6} for sensor in record["sensors"]}
    record["alarm_rules"] |= {"sensors": sensors}
    path.write_text(json.dumps(record), encoding="utf-8")
    words = ("replay", "--bundle", bundle, "--history", history)
    found = run(main, capsys, *words, "--json").record()
    held = found["alarms_held_back"]["minimum_deviation"]
    assert (found["events"], held > 0) == ([], True)
    assert f"held back: {held} × minimum_deviation" in run(main, capsys, *words).out


def test_two_assets_in_one_file_are_replayed_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each asset of a file warms up on its own rows."""
    record = run(main, capsys, *REPLAY, _written(tmp_path / "two.csv", edited(two_assets)), "--json").record()
    assert (record["samples"], record["scored"]) == (160, 144)


def test_replay_reads_any_format_that_the_trainer_reads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Separator, decimal mark, time format, epoch unit, layout and columns, once given, lead to the same replay."""
    rows = table(60)
    plain = run(main, capsys, *REPLAY, _written(tmp_path / "plain.csv", text(rows)), "--json").record()
    semicolons = "".join(";".join(row).replace(".", ",") + "\n" for row in rows)
    long = "when;unit;tag;reading;note\n" + "".join(
        f"{row[0]}000;p1;{name};{cell.replace('.', ',')};7\n"
        for row in rows[1:]
        for name, cell in zip(rows[0][1:], row[1:], strict=True)
    )
    for content, words in (
        (semicolons, "--separator ; --decimal , --time-format epoch --epoch-unit s --layout wide"),
        (
            long,
            "--separator ; --decimal , --epoch-unit ms --layout long --time-column when --asset-column unit "
            "--sensor-column tag --value-column reading --ignore-column note",
        ),
    ):
        path = _written(tmp_path / "other.csv", content)
        assert run(main, capsys, *REPLAY, path, "--json", *words.split()).record() == plain
    said = run(main, capsys, *REPLAY, path, "--separator", "ab")
    assert (said.code, "separator: is 'ab'" in said.refusal()) == (2, True)


def test_replay_takes_no_label_for_a_sensor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A column of labels that is named is no sensor, and no unknown one either."""
    rows = table(60)
    for row in rows:
        row.append("state" if row[0] == "time" else "0")
    path = _written(tmp_path / "pump.csv", text(rows))
    assert "does not know, not used: state" in run(main, capsys, *REPLAY, path).err
    assert run(main, capsys, *REPLAY, path, "--label-column", "state").err == ""


def test_cuda_that_is_not_there_is_a_matter_of_configuration(
    history: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where the session runs on the CPU all the same, `--provider cuda` is refused and `auto` says `cpu`."""
    said = run(main, capsys, *REPLAY, history, "--provider", "auto", "--json")
    provider = said.record()["provider"]
    strict = run(main, capsys, *REPLAY, history, "--provider", "cuda", "--json")
    assert json.loads(strict.out)["provider"] == "cuda" if provider == "cuda" else strict.code == 78
