"""Laws of `trainer` and `trainer evaluate`: bad input is one clear line and an exit code, `--json` one object."""

import csv
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.commands import SPOILT, UNMEASURED, UNUSABLE, cells, column, edited, run, table, text, two_assets
from tests.tiny_machine import START, TINY_BUNDLE
from trainer.cli import main

FIGURES = (
    *("rmse", "mae", "persistence_rmse", "precision", "recall", "f1", "far", "mar", "average_precision"),
    *("roc_auc", "vus_pr", "event_recall", "event_precision", "alarms_per_week", "false_alarms_per_week"),
    *("median_delay_seconds", "time_in_alarm_ratio", "all_positive_f1"),
)


@pytest.fixture
def history(tmp_path: Path) -> Path:
    """A good file."""
    path = tmp_path / "pump.csv"
    path.write_bytes(text(table()))
    return path


# The console entry itself.


def _installed(*words: object) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).parent / "trainer"), *(str(word) for word in words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_the_installed_command_answers_help_and_errors(tmp_path: Path) -> None:
    """The console script itself gives 0 for help, 1 for a bad file, 2 for bad usage and 78 for a bad configuration."""
    path = tmp_path / "empty.csv"
    path.touch()
    shown = _installed("--help")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "examples:" in shown.stdout
    fit = ("fit", "--history", path, "--out", tmp_path / "out")
    for code, words in (
        (1, fit),
        (2, (*fit, "--nonsense")),
        (78, (*fit, "--config", tmp_path / "none.toml")),
    ):
        done = _installed(*words)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (code, "", 1), done.stderr
        assert done.stderr.startswith("trainer")


@pytest.mark.parametrize("command", ["fit", "evaluate", "recalibrate", "simulate"])
def test_help_of_every_command_has_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`--help` ends with 0 and shows a line that could be typed."""
    said = run(main, capsys, command, "--help")
    assert (said.code, said.err) == (0, "")
    assert f"example:\n  trainer {command} --" in said.out


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        ((), "COMMAND"),
        (("train",), "invalid choice: 'train'"),
        (("fit",), "--history, --out"),
        (("evaluate", "--history", "a.csv"), "--bundle"),
        (("fit", "--history", "a.csv", "--out", "b", "--epochs", "many"), "--epochs: invalid int value"),
        (("fit", "--history", "a.csv", "--out", "b", "--layout", "tall"), "--layout: invalid choice"),
        (("simulate", "--out", "a.csv", "--hours", "long"), "--hours: invalid float value"),
    ],
)
def test_bad_usage_is_one_line_and_exit_code_2(
    words: tuple[str, ...], rule: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A command line that cannot be read is refused in one line that names the option."""
    said = run(main, capsys, *words)
    assert said.code == 2
    assert rule in said.refusal()


# Files that cannot be used, for both commands that read them.

REFUSED = UNUSABLE | {
    "nothing measured": (UNMEASURED, "is missing"),
    "too short": (text(table(10)), "too short, it has 10 samples and needs 20"),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("command", ["fit", "evaluate"])
def test_an_unusable_file_is_refused_by_its_name(
    command: str, case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Empty, header only, no text, wrong encoding, nothing measured, no times, too short: one line, exit code 1."""
    content, rule = REFUSED[case]
    path = tmp_path / "pump.csv"
    path.write_bytes(content)
    other = ("--out", tmp_path / "out") if command == "fit" else ("--bundle", TINY_BUNDLE)
    said = run(main, capsys, command, "--json", "--history", path, *other)
    assert said.code == 1
    assert str(path) in said.refusal()
    assert rule in said.refusal()
    assert not (tmp_path / "out").exists()


def test_an_absent_file_and_an_empty_folder_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A path that does not exist, and a folder without histories, are each named."""
    for path, rule in ((tmp_path / "none.csv", "no such file"), (tmp_path, "holds no CSV or Parquet")):
        said = run(main, capsys, "evaluate", "--bundle", TINY_BUNDLE, "--history", path)
        assert (said.code, said.refusal()) == (1, f"trainer: {path}: {said.refusal().split(': ', 2)[2]}")
        assert rule in said.refusal()


@pytest.mark.parametrize("role", ["time", "asset", "label", "sensor", "value", "ignore"])
def test_an_unknown_column_is_refused_by_name(
    role: str, history: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A column that an option names and the file lacks is said, with the columns that are there."""
    said = run(
        main, capsys, "evaluate", "--bundle", TINY_BUNDLE, "--history", history, f"--{role}-column", "nope"
    )
    assert said.code == 1
    assert "column nope is not in the file, which has time, pressure, temperature, flow" in said.refusal()
    assert history.name in said.refusal()


def test_a_format_that_does_not_fit_is_refused(history: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong separator, time pattern or layout is one line; a word that means nothing is a matter of usage."""
    for code, words, rule in (
        (1, ("--separator", ";"), "no time column"),
        (1, ("--time-format", "%Y-%m-%d"), "cannot be read as '%Y-%m-%d'"),
        (1, ("--layout", "long"), "needs a sensor column"),
        (2, ("--separator", "ab"), "separator: is 'ab', must be one"),
        (2, ("--time-format", "iso8601"), "time_format: is 'iso8601', known are"),
    ):
        said = run(main, capsys, "evaluate", "--bundle", TINY_BUNDLE, "--history", history, *words)
        assert (said.code, rule in said.refusal()) == (code, True), said.err


# Files that are used, with what was wrong said.

USED = SPOILT | {
    "constant sensor": (edited(column(1, "5.0")), "kept and only range-guarded: pressure", {}),
    "missing sensor": (edited(column(1, "")), "missing throughout and dropped: pressure", {}),
    "NaN": (edited(cells((41, 1, "nan"), (42, 2, "NaN"))), "2 × missing value", {}),
}


@pytest.mark.parametrize("case", USED)
def test_evaluate_says_what_it_made_of_bad_cells(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Constant, missing and unknown sensors, text, NaN, infinity, huge integers: used, noted and counted, finite."""
    content, notice, repairs = USED[case]
    path = tmp_path / "pump.csv"
    path.write_bytes(content)
    said = run(main, capsys, "evaluate", "--json", "--bundle", TINY_BUNDLE, "--history", path)
    assert said.code == 0
    assert any(line.startswith("note: ") and notice in line for line in said.err.splitlines()), said.err
    record = said.record()
    # A cell that is not used is missing afterwards, and counted as that too.
    assert {kind: count for kind, count in record["repairs"].items() if kind != "missing value"} == repairs
    assert record["scored"] > 0


def test_two_assets_in_one_file_are_scored_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each asset of a file warms up on its own rows, and the scores name it."""
    path, scores = tmp_path / "pump.csv", tmp_path / "scores.csv"
    path.write_bytes(edited(two_assets))
    words = ("--bundle", TINY_BUNDLE, "--history", path, "--scores", scores)
    assert run(main, capsys, "evaluate", *words).code == 0
    rows = list(csv.DictReader(scores.open(encoding="utf-8")))
    assert {row["asset"] for row in rows} == {"a", "b"}
    for asset in "ab":
        own = [row for row in rows if row["asset"] == asset]
        assert [row["score"] == "" for row in own[:9]] == [True] * 8 + [False]


def test_a_history_of_no_sensor_of_the_bundle_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where no column is a sensor of the bundle there is nothing to score, and both lists are said."""
    path = tmp_path / "pump.csv"
    path.write_bytes(text(table()).replace(b"pressure,temperature,flow", b"p,q,r"))
    said = run(main, capsys, "evaluate", "--bundle", TINY_BUNDLE, "--history", path)
    assert said.code == 1
    assert "none of the bundle's sensors (pressure, temperature, flow" in said.err.splitlines()[-1]


# What `evaluate` prints and writes.


def _labelled(path: Path, fault: tuple[int, int]) -> Path:
    rows = table(300, fault)
    for number, row in enumerate(rows):
        row.append("label" if number == 0 else str(int(fault[0] <= number - 1 < fault[1])))
    path.write_bytes(text(rows))
    return path


@pytest.mark.parametrize("labelled", [True, False])
def test_evaluate_json_has_every_figure_or_null(
    labelled: bool, tmp_path: Path, history: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each promised figure is a finite number or null; without labels those that need them are null."""
    path = _labelled(tmp_path / "labelled.csv", (150, 200)) if labelled else history
    record = run(main, capsys, "evaluate", "--json", "--bundle", TINY_BUNDLE, "--history", path).record()
    assert set(FIGURES) <= set(record)
    for key in FIGURES:
        assert record[key] is None or math.isfinite(record[key]), key
    assert all(
        (record[key] is None) != labelled for key in ("precision", "recall", "f1", "average_precision")
    )
    if labelled:
        assert record["recall"] > 0
        assert record["event_recall"] == 1.0


def test_evaluate_of_one_class_of_labels_is_null_where_undefined(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With no labelled fault there is no recall and no area under a curve: null, while the rates are numbers."""
    path = _labelled(tmp_path / "quiet.csv", (0, 0))
    record = run(main, capsys, "evaluate", "--json", "--bundle", TINY_BUNDLE, "--history", path).record()
    assert record["recall"] is None
    assert record["roc_auc"] is None
    assert record["false_alarms_per_week"] == 0.0


def test_scores_are_one_row_a_sample(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--scores` writes time, asset, score and alarm of every sample in order; warming up has no score."""
    path, scores = _labelled(tmp_path / "pump.csv", (150, 200)), tmp_path / "scores.csv"
    said = run(
        main, capsys, "evaluate", "--json", "--bundle", TINY_BUNDLE, "--history", path, "--scores", scores
    )  # fmt: skip
    rows = list(csv.reader(scores.open(encoding="utf-8")))
    assert rows[0] == ["time", "asset", "score", "alarm"]
    assert len(rows) - 1 == said.record()["samples"] == 300
    np.testing.assert_array_equal([float(row[0]) for row in rows[1:]], START + np.arange(300))
    assert [row[2] == "" for row in rows[1:]] == [True] * 8 + [False] * 292
    assert {row[3] for row in rows[1:]} == {"0", "1"}


def test_scores_that_cannot_be_written_are_one_line(
    history: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder that does not exist, or a folder itself, as `--scores` fails with its path and exit code 1."""
    for path in (tmp_path / "none" / "scores.csv", tmp_path):
        said = run(
            main, capsys, "evaluate", "--bundle", TINY_BUNDLE, "--history", history, "--scores", path, "--json"
        )  # fmt: skip
        assert said.code == 1
        assert said.refusal().startswith(f"trainer: {path}: ")


def test_figures_for_a_person_are_never_nan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A person reads the figures as a table, undefined ones as a dash; nothing is NaN."""
    path = _labelled(tmp_path / "pump.csv", (0, 0))
    said = run(
        main, capsys, "evaluate", "--bundle", TINY_BUNDLE, "--history", path, "--label-column", "label"
    )
    shown = dict(line.split()[:2] for line in said.out.splitlines())
    assert (said.code, shown["recall"], shown["false_alarms_per_week"]) == (0, "-", "0")
    assert "nan" not in said.out.lower()


@pytest.mark.parametrize("broken", ["absent", "damaged", "no manifest"])
def test_a_bad_bundle_is_a_matter_of_configuration(
    broken: str, history: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A bundle that is not there or not whole is one line that names the file, with exit code 78."""
    bundle = tmp_path / "bundle"
    if broken != "absent":
        bundle.mkdir()
        for file in TINY_BUNDLE.iterdir():
            (bundle / file.name).write_bytes(file.read_bytes())
    if broken == "damaged":
        (bundle / "step.onnx").write_bytes(b"damaged")
    if broken == "no manifest":
        (bundle / "manifest.json").unlink()
    said = run(main, capsys, "evaluate", "--json", "--bundle", bundle, "--history", history)
    assert said.code == 78
    assert str(bundle / ("step.onnx" if broken == "damaged" else "manifest.json")) in said.refusal()


def test_an_evaluation_keeps_to_the_grid_of_the_bundle(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Readings that stand beside the bundle's ticks are put on them, as the daemon does."""
    rows = table()
    for row in rows[1:]:
        row[0] = f"{int(row[0])}.3"
    path = tmp_path / "pump.csv"
    path.write_bytes(text(rows))
    scores = tmp_path / "scores.csv"
    said = run(main, capsys, "evaluate", "--bundle", TINY_BUNDLE, "--history", path, "--scores", scores)
    assert said.code == 0
    times = [float(row["time"]) for row in csv.DictReader(scores.open(encoding="utf-8"))]
    assert times == [float(row[0][:-2]) for row in rows[1:]]
