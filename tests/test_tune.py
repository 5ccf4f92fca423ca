"""Laws of the search: what a trial is judged by, what it never sees, and that the command can be killed."""

import json
import os
import signal
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge_agent.contract.fusion import Fusion
from edge_agent.contract.types import Float32
from edge_agent.detector import Detector
from tests.commands import run, text
from tests.postgres import PASSWORD, running_server
from tests.tiny_machine import SENSORS, START, normal_values
from trainer.blocks import make_plan
from trainer.cleaning import Cleaned, Series
from trainer.cli import main
from trainer.fit import fit_detector
from trainer.fit_options import FitOptions
from trainer.tune import Exam, judge_detector, judge_trial, make_exam
from trainer.tune_space import Dimension, Space

ROWS = 4000
RIDGE = FitOptions(window_length=8, units=())
SPACE: Space = {"window_length": Dimension(choices=(8, 12))}


def _cleaned(values: Float32) -> Cleaned:
    return Cleaned(
        SENSORS, 1.0, 0.0, (Series("p1", np.arange(len(values)), values, None),), {}, (), (), len(values)
    )


@pytest.fixture(scope="module")
def exam() -> Exam:
    """On normal life."""
    return make_exam(_cleaned(normal_values(ROWS, 3)), RIDGE, SPACE)


@pytest.fixture(scope="module")
def fitted(exam: Exam, tmp_path_factory: pytest.TempPathFactory) -> Detector:
    """One fitted on what an exam allows."""
    return fit_detector(exam.past, RIDGE, tmp_path_factory.mktemp("graph"))


@pytest.fixture
def detector(fitted: Detector) -> Detector:
    """The same, with no sample seen."""
    return Detector(fitted.bundle, fitted.forecaster)


def test_the_rows_that_fit_calibrates_on_are_never_seen(exam: Exam) -> None:
    """Past, then block, are together all rows before the calibration block of `fit`."""
    held = make_plan(_cleaned(normal_values(ROWS, 3)), RIDGE).cuts[0].held
    (past,), (block,) = exam.past.series, exam.block.series
    assert np.concatenate([past.ticks, block.ticks]).tolist() == list(range(held))
    assert 0.25 < len(block.ticks) / held < 0.35
    assert all(past.ticks[-1] < fault.ticks[0] and fault.ticks[-1] < held for fault in exam.faults)


def test_a_working_detector_finds_what_is_large(exam: Exam, detector: Detector) -> None:
    """The cost is that of its parts, most injected faults are found, and the faults of each kind are counted."""
    judged = judge_detector(detector, exam)
    facts = judged.facts
    assert judged.cost == pytest.approx(1.0 - facts["detection"] + 0.1 * facts["rmse_over_persistence"])
    excess = max(0.0, facts["false_alarms"] - facts["allowed_false_alarms"])
    assert facts["detection"] == pytest.approx(facts["recall"] - excess / facts["faults"])
    assert facts["recall"] > 0.5
    assert facts["faults"] == len(exam.faults) == 24
    assert np.mean(list(facts["recall_by_kind"].values())) == pytest.approx(facts["recall"])


@pytest.mark.parametrize("value", [1e-6, 1e9])
def test_an_alarm_that_is_always_or_never_on_is_worth_nothing(
    value: float, exam: Exam, detector: Detector
) -> None:
    """A threshold so low that the alarm stands from the first row finds nothing, like one that is out of reach."""
    bundle = detector.bundle
    threshold = replace(bundle.manifest.threshold, value=value, basis="margin", tail=None)
    bundle = replace(
        bundle,
        manifest=replace(bundle.manifest, threshold=threshold),
        scoring=replace(bundle.scoring, fusion=Fusion(range_guard=False)),
    )
    judged = judge_detector(Detector(bundle, detector.forecaster, adaptive=False), exam)
    # Of the other kinds some are matters of data quality, which no threshold decides.
    by_kind = judged.facts["recall_by_kind"]
    assert [by_kind[kind] for kind in ("offset", "drift", "correlation")] == [0.0] * 3


def test_labelled_events_count_as_faults(exam: Exam, detector: Detector) -> None:
    """A labelled event of the block is found if an alarm starts in it, which then is no false alarm."""
    (series,) = exam.block.series
    values, labels = series.values.copy(), np.zeros(len(series.ticks), np.int8)
    values[400:460, 0] += 3.0
    labels[395:470] = 1
    labels[700:720] = 1
    block = replace(exam.block, series=(replace(series, values=values, labels=labels),))
    before = judge_detector(detector, exam).facts
    after = judge_detector(Detector(detector.bundle, detector.forecaster), replace(exam, block=block)).facts
    assert (after["labelled_events"], after["faults"]) == (2, before["faults"] + 2)
    assert after["recall"] * after["faults"] == pytest.approx(before["recall"] * before["faults"] + 1)
    assert after["false_alarms"] <= before["false_alarms"]


def test_each_epoch_is_reported(exam: Exam) -> None:
    """A trial tells the loss of each of its epochs, by which it may be ended."""
    told: list[int] = []
    options = replace(RIDGE, units=(4,), epochs=2, windows_per_epoch=64)
    judged = judge_trial(
        replace(exam, options=options), {"window_length": 12}, lambda epoch, loss: told.append(epoch)
    )
    assert told == [1, 2]
    assert 0.0 < judged.cost < 2.2


def test_a_command_is_read_and_not_judged() -> None:
    """A trial reads the command, no fault is injected into it, and its forecast is not what the trial is judged by."""
    valve = np.random.default_rng(5).normal(size=(ROWS, 1)).astype(np.float32)
    values = np.hstack([valve, normal_values(ROWS, 3)])
    values[1:, 3] += 20 * valve[:-1, 0]
    series = Series("p1", np.arange(ROWS), values, None)
    cleaned = Cleaned(("valve", *SENSORS), 1.0, 0.0, (series,), {}, (), (), ROWS)
    exams = {
        told: make_exam(cleaned, replace(RIDGE, exogenous=("valve",) if told else ()), SPACE)
        for told in (True, False)
    }
    assert {fault.sensor for fault in exams[True].faults} == {1, 2, 3}
    assert {fault.sensor for fault in exams[False].faults} == {0, 1, 2, 3}
    judged = judge_trial(exams[True], {"window_length": 8}, lambda epoch, loss: None).facts
    assert judged["recall"] > 0.5
    assert judged["faults"] == 24
    # White noise has no better forecast than its mean, whose RMSE is 0.71 of that of persistence: it would show.
    as_sensor = judge_trial(exams[False], {"window_length": 8}, lambda epoch, loss: None).facts
    assert judged["rmse_over_persistence"] < 0.8 * as_sensor["rmse_over_persistence"]


# The command.


def _files(folder: Path) -> tuple[Path, Path]:
    history, config = folder / "pump.csv", folder / "tune.toml"
    rows = [["time", *SENSORS]]
    rows += [
        [str(START + row), *(f"{cell:.4f}" for cell in line)]
        for row, line in enumerate(normal_values(ROWS, 3))
    ]
    history.write_bytes(text(rows))
    config.write_text(
        "[fit]\nepochs = 0\nname = 'pump'\n[fit.alarms]\nopen_count = 4\n[tune.space]\nunits = [[4], [3]]\n"
        "window_length = {low = 8, high = 16}\n"
    )
    return history, config


def test_the_command_goes_on_after_kill_9(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Killed after its first trial, the same command keeps it, ends with as many as asked for, and writes the best."""
    history, config = _files(tmp_path)
    out = tmp_path / "best.toml"
    words = ["tune", "--history", history, "--config", config, "--trials", "3", "--out", out]
    with subprocess.Popen(
        [sys.executable, "-m", "trainer.cli", *map(str, words)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ,
    ) as process:
        assert process.stdout is not None
        said = process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    assert said.startswith("trial 0: complete, ")
    assert not out.exists()
    found = run(main, capsys, *words, "--json").record()
    assert found["finished"] == 3
    assert f"{found['trials'][0]['cost']:.4f}" == said.split()[-1]
    costs = [one["cost"] for one in found["trials"] if one["cost"] is not None]
    assert found["best"]["cost"] == min(costs)
    written = tomllib.loads(out.read_text(encoding="utf-8"))
    best = found["best"]["parameters"]
    assert written == {"fit": {"epochs": 0, "name": "pump", "alarms": {"open_count": 4}, **best}}
    again = run(main, capsys, *words, "--json").record()
    assert again["trials"] == found["trials"]


def test_two_commands_share_a_study_on_postgresql(tmp_path: Path) -> None:
    """Begun at once on an empty server, two commands run the trials together and write the best that they know."""
    history, config = _files(tmp_path)
    with running_server() as server:
        url = server.url()
        words = (
            "tune",
            "--history",
            history,
            "--config",
            config,
            "--trials",
            "4",
            "--storage",
            url,
            "--json",
        )
        commands = [
            subprocess.Popen(
                [sys.executable, "-m", "trainer.cli", *map(str, words), "--out", str(tmp_path / f"{name}.toml")],
                stdout=subprocess.PIPE, text=True, env=os.environ | {"PGPASSWORD": PASSWORD},
            )
            for name in "ab"
        ]  # fmt: skip
        found = [json.loads(command.communicate()[0]) for command in commands]
    assert [command.returncode for command in commands] == [0, 0]
    assert all(one["finished"] in (4, 5) for one in found)
    assert all(one["storage"] == url for one in found)
    last = max(found, key=lambda one: one["finished"])
    for one, name in zip(found, "ab", strict=True):
        written = tomllib.loads((tmp_path / f"{name}.toml").read_text(encoding="utf-8"))["fit"]
        best = last["trials"][one["best"]["number"]]
        assert written.items() >= best["parameters"].items()
        assert one["best"]["cost"] == best["cost"]
        assert best["cost"] <= min(trial["cost"] for trial in one["trials"] if trial["cost"] is not None)


def test_the_command_takes_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--exogenous` and the labels are read as by `fit`, and the former stands in what it writes for `fit`."""
    history, config = _files(tmp_path)
    out = tmp_path / "best.toml"
    words = ("tune", "--history", history, "--config", config, "--out", out, "--trials", "1")
    found = run(main, capsys, *words, "--exogenous", "flow", "--scaling", "robust", "--json").record()
    assert found["trials"][0]["facts"]["recall"] > 0.0
    written = tomllib.loads(out.read_text(encoding="utf-8"))["fit"]
    assert (written["exogenous"], written["scaling"]) == (["flow"], "robust")
    (tmp_path / "labels.csv").write_text(f"asset,start,end,label\npump,{START},{START + ROWS},true_fault\n")
    (tmp_path / "marked.toml").write_text(
        config.read_text().replace("name =", "labels = 'labels.csv'\nname =")
    )
    marked = run(main, capsys, *words, "--study", "marked", "--config", tmp_path / "marked.toml")
    assert "marks every row of the history as a true fault" in marked.refusal()
    refused = run(main, capsys, *words, "--study", "other", "--exogenous", "valve")
    assert refused.code == 1
    assert "exogenous: names 'valve', which is no sensor" in refused.refusal()


@pytest.mark.parametrize(
    ("words", "code", "rule"),
    [
        (("--trials", "0"), 2, "--trials: is 0, must be from 1"),
        (("--out", "{folder}/none/best.toml"), 2, "must be a file in a directory that exists"),
        (("--storage", "mood://x"), 2, "--storage mood://x: "),
        (("--alarms-per-week", "0"), 2, "--alarms-per-week: is 0.0"),
        (("--config", "{folder}/odd.toml"), 78, "tune.space.mood: cannot be searched"),
    ],
)
def test_the_command_refuses_in_one_line(
    words: tuple[str, ...], code: int, rule: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is out of range or cannot be written is told in one line."""
    history, _ = _files(tmp_path)
    (tmp_path / "odd.toml").write_text("[tune.space]\nmood = [1]\n")
    words = tuple(word.format(folder=tmp_path) for word in words)
    said = run(main, capsys, "tune", "--history", history, "--out", tmp_path / "best.toml", *words)
    assert said.code == code
    assert rule in said.refusal()
