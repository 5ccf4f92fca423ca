"""Laws of `trainer fit` and `trainer simulate` on the command line: what they refuse, and how they say it."""

import csv
from pathlib import Path

import pytest

from tests.commands import run, table, text
from trainer.cli import main


@pytest.fixture
def history(tmp_path: Path) -> Path:
    """A good file."""
    path = tmp_path / "pump.csv"
    path.write_bytes(text(table()))
    return path


# What `fit` refuses before it trains.


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        (("--epochs", "-1"), "--epochs: is -1, at least 0 is needed"),
        (("--window", "1"), "--window: is 1, at least 2 is needed"),
        (("--units", "a,b"), "--units: is 'a,b', must be whole numbers"),
        (("--units", "8,0"), "--units: a layer is 0, at least 1 is needed"),
        (("--seed", "-1"), "--seed: is -1, at least 0 is needed"),
        (("--seed", "99999999999999999999"), "--seed: is 99999999999999999999, at most"),
        (("--alarms-per-week", "0"), "--alarms-per-week: is 0.0, at least 1e-06 is needed"),
        (("--alarms-per-week", "nan"), "--alarms-per-week: is nan"),
        (("--alarms-per-week", "inf"), "--alarms-per-week: is inf"),
        (("--name", ""), "--name: must be text"),
        (("--fill-limit", "0"), "--fill-limit: is 0, at least 1 is needed"),
        (
            ("--time-zone", "Mars/Olympus"),
            "--time-zone: is 'Mars/Olympus', no time zone that this machine knows",
        ),
        (("--exogenous", ""), "--exogenous: must be a list of names"),
    ],
)
def test_fit_refuses_an_option_out_of_range(
    words: tuple[str, ...], rule: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A number out of its range is refused by option, value and rule before any file is read."""
    said = run(main, capsys, "fit", "--history", tmp_path / "none.csv", "--out", tmp_path / "out", *words)
    assert said.code == 2
    assert rule in said.refusal()


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        ("[fit]\nepoch = 3", "fit.epoch: unknown key; known are"),
        ("[train]\nepochs = 3", "train: unknown section"),
        ("fit = 3", "fit: must be a table"),
        ("[fit]\nepochs = 'x'", "fit.epochs: is 'x', must be a whole number"),
        ("[fit]\nepochs = 1.5", "fit.epochs: is 1.5, must be a whole number"),
        ("[fit]\nepochs = true", "fit.epochs: is True, must be a whole number"),
        ("[fit]\nwindow_length = 'x'", "fit.window_length: is 'x'"),
        ("[fit]\nunits = 3", "fit.units: must be a list"),
        ("[fit]\nunits = ['a']", "fit.units: a layer is 'a'"),
        ("[fit]\nname = 3", "fit.name: must be text"),
        ("[fit]\ninference = 'fast'", "fit.inference: is 'fast', known are step and window"),
        ("[fit]\nbatch_size = 0", "fit.batch_size: is 0, at least 1 is needed"),
        ("[fit]\nlearning_rate = -1.0", "fit.learning_rate: is -1.0"),
        ("[fit]\noff_when = 'speed'", "fit.off_when: is 'speed', must be a sensor, one of < <= > >= == !="),
        ("[fit]\nscaling = 'max'", "fit.scaling: is 'max', known are standard and robust and minmax"),
        (
            "[fit]\nmissing = 'drop'",
            "fit.missing: is 'drop', known are mask and forward-fill and interpolate",
        ),
        ("[fit]\ncalendar = ['moon']", "fit.calendar: is 'moon', known are hour and weekday"),
        ("[fit]\nexogenous = 'valve'", "fit.exogenous: must be a list of names"),
        ("[fit]\ntime_zone = 'CET/Nowhere'", "fit.time_zone: is 'CET/Nowhere', no time zone"),
        ("[fit]\nsettle_ticks = -1", "fit.settle_ticks: is -1, at least 0 is needed"),
        ("[fit]\nalarms = 3", "fit.alarms: must be a table"),
        ("[fit.alarms]\nmood = 3", "fit.alarms: broken by mood: is not a known key"),
        ("[fit.alarms]\nopen_count = 0", "fit.alarms: broken by open_count: must be above 0"),
        ("[fit]\nunits_of_sensors = 3", "fit.units_of_sensors: must be a table"),
        ("[fit", "not readable as TOML"),
        ("name = '\udcff'", "not readable as TOML"),
    ],
)
def test_fit_refuses_a_bad_configuration(
    content: str, rule: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each wrong key, type or value in the file is one line with file, field and rule, and exit code 78."""
    path = tmp_path / "trainer.toml"
    path.write_bytes(content.encode(errors="surrogateescape"))
    said = run(
        main, capsys, "fit", "--history", tmp_path / "none.csv", "--out", tmp_path / "out", "--config", path
    )  # fmt: skip
    assert said.code == 78
    assert f"{path}: {rule}" in said.refusal()


def test_fit_refuses_an_absent_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A configuration that is not there, or a folder, is refused by its path with exit code 78."""
    for path in (tmp_path / "none.toml", tmp_path):
        said = run(main, capsys, "fit", "--history", "a.csv", "--out", "b", "--config", path)
        assert (said.code, f"trainer: {path}: file: " in said.refusal()) == (78, True)


@pytest.mark.parametrize(
    ("interval", "rule"), [("0", "must be above 0"), ("nan", "must be above 0"), ("1e9", "short")]
)
def test_fit_refuses_an_interval_that_leaves_nothing(
    interval: str, rule: str, history: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An interval of nothing, or one that merges the whole history into a tick, is refused by file and rule."""
    said = run(main, capsys, "fit", "--history", history, "--out", tmp_path / "out", "--interval", interval)
    assert said.code == 1
    assert str(history) in said.refusal()
    assert rule in said.refusal()


def test_fit_never_overwrites_what_is_no_bundle(
    history: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file or a folder of other things as `--out` is refused and stays; a folder that cannot be made is named."""
    file, folder = tmp_path / "file", tmp_path / "folder"
    file.write_text("mine", encoding="utf-8")
    folder.mkdir()
    (folder / "letter.txt").write_text("mine", encoding="utf-8")
    for out, code, rule in (
        (file, 2, f"--out {file}: exists and is no bundle"),
        (folder, 2, f"--out {folder}: exists and is no bundle"),
        (file / "below", 1, f"{file}: File exists"),
    ):
        said = run(main, capsys, "fit", "--json", "--history", history, "--out", out)
        assert said.code == code
        assert rule in said.refusal()
    assert file.read_text(encoding="utf-8") == (folder / "letter.txt").read_text(encoding="utf-8") == "mine"


def test_fit_names_file_and_least_length_of_a_short_history(
    history: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A history too short for its window is refused with what is needed, and nothing is left on the disk."""
    said = run(main, capsys, "fit", "--history", history, "--out", tmp_path / "out", "--window", "60")
    assert said.code == 1
    assert (
        f"{history}: history too short: 80 samples of an asset, a window of 60 needs at least"
        in said.refusal()
    )
    assert [path.name for path in tmp_path.iterdir()] == [history.name]


def test_fit_names_a_sensor_that_begins_too_late(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A sensor without a value in the rows that the model learns from is warned of, then refused by its name."""
    rows = table(200)
    for row in rows[1:190]:
        row[3] = ""
    path = tmp_path / "pump.csv"
    path.write_bytes(text(rows))
    said = run(main, capsys, "fit", "--history", path, "--out", tmp_path / "out", "--window", "8")
    assert said.code == 1
    *notes, refusal = said.err.splitlines()
    assert "note: flow: missing in 94% of the samples" in notes
    assert f"{path}: sensor flow has no value in the part that the model is fitted on" in refusal
    assert said.out == ""


def test_fit_names_a_sensor_that_there_is_not(
    history: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An off-condition or an alarm rule of a sensor that the history lacks is refused before anything is learnt."""
    config = tmp_path / "trainer.toml"
    config.write_text("[fit.alarms.sensors.torque]\nmin_absolute = 1.0", encoding="utf-8")
    for words, rule in (
        (("--off-when", "torque<1"), f"{history}: no sensor torque, by which the machine would be off"),
        (("--config", config), f"{history}: alarms.sensors.torque: is not a sensor, known are "),
    ):
        said = run(main, capsys, "fit", "--history", history, "--out", tmp_path / "out", *words)
        assert said.code == 1
        assert rule in said.refusal()


# What `simulate` writes and refuses.


def test_simulate_writes_a_file_that_evaluate_could_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`simulate --json` prints where, how many rows and which sensors, and the file has exactly those."""
    path = tmp_path / "simulated.csv"
    faults = ("--faults", "spikes@60+30", "--asset", "p1")
    said = run(main, capsys, "simulate", "--json", "--out", path, "--hours", "0.05", *faults)
    rows = list(csv.DictReader(path.open(encoding="utf-8")))
    record = said.record()
    assert (said.code, record["out"], record["rows"], record["faults"]) == (0, str(path), 180, 1)
    assert len(rows) == 180
    assert set(rows[0]) == {"time", "asset", *record["sensors"], "label", "fault"}
    assert record["labelled_rows"] == sum(int(row["label"]) for row in rows) == 30


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        (("--hours", "0"), "hours must be a number greater than 0"),
        (("--hours", "nan"), "hours must be a number greater than 0"),
        (("--hours", "1e12"), "more than 32000000 rows"),
        (("--interval", "0"), "interval must be"),
        (("--seed", "-1"), "seed must be 0 or greater"),
        (("--start", "inf"), "start must be seconds since 1970"),
        (("--start", "1e300"), "start must be seconds since 1970"),
        (("--faults", "rust@1+2"), "rust"),
        (("--faults", "spikes"), "expected kind[/sensor]@start+duration"),
        (("--faults", "spikes/none@1+2"), "unknown sensor 'none', known are"),
        (("--faults", "spikes@99999+1"), "begins at 99999 s, after the end"),
        (("--asset", ""), "--asset: is ''"),
        (("--asset", "a,b"), "--asset: is 'a,b'"),
    ],
)
def test_simulate_refuses_what_it_cannot_simulate(
    words: tuple[str, ...], rule: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each option out of its range is one line with the rule and exit code 2, and no file is left."""
    path = tmp_path / "simulated.csv"
    said = run(main, capsys, "simulate", "--json", "--out", path, "--hours", "0.01", *words)
    assert said.code == 2
    assert rule in said.refusal()
    assert not path.exists()


def test_simulate_names_a_path_that_cannot_be_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder that does not exist fails with the path and exit code 1; another ending is a matter of usage."""
    absent, other = tmp_path / "none" / "a.csv", tmp_path / "a.xlsx"
    for path, code in ((absent, 1), (other, 2)):
        said = run(main, capsys, "simulate", "--out", path, "--hours", "0.01")
        assert (said.code, said.refusal().startswith(f"trainer: {path}: ")) == (code, True)


# Labels.


@pytest.mark.parametrize("by_file", [False, True], ids=["option", "configuration"])
def test_a_bad_file_of_labels_is_one_line(
    by_file: bool, history: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is wrong with the labels is told with file, line and field, before anything is trained."""
    labels, config = tmp_path / "labels.csv", tmp_path / "trainer.toml"
    labels.write_text("asset,start,end,label\np1,1,2,odd\n")
    config.write_text("[fit]\nlabels = 'labels.csv'\n")
    words = ("--config", config) if by_file else ("--labels", labels)
    said = run(main, capsys, "fit", "--history", history, "--out", tmp_path / "out", *words)
    assert said.code == 1
    assert said.refusal().startswith(f"trainer: {labels}: line 2: label: is 'odd', known are")
    assert not (tmp_path / "out").exists()
