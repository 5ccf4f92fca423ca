"""Laws of the pictures: what they keep of a long history, which files there are, and what cannot be drawn into."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from matplotlib.image import imread

from edge_agent.contract.types import Bool, Float64
from edge_agent.detector import load_detector
from edge_agent.history import read_history
from tests.commands import run, table, text
from tests.tiny_machine import TINY_BUNDLE
from trainer.cleaning import clean
from trainer.cli import main
from trainer.evaluate import Evaluation, evaluate
from trainer.plot_data import (
    LONG_GAP,
    MOST_POINTS,
    STRETCH,
    liveliest_row,
    spans,
    stretch_around,
    thinned,
    with_gaps,
    worst_sensors,
)
from trainer.plots import MOST_ASSETS, plot_evaluation, plot_fit

EVALUATION = ("evaluate_score.png", "evaluate_forecast.png", "evaluate_residuals.png")
scores = arrays(np.float64, st.integers(1, 300), elements=st.floats(0, 9) | st.just(float("nan")))


@pytest.fixture
def found(tmp_path: Path) -> Evaluation:
    """What the tiny bundle makes of a history with a fault."""
    path = tmp_path / "pump.csv"
    path.write_bytes(text(table(300, (100, 160))))
    return evaluate(load_detector(TINY_BUNDLE), clean(read_history([path])), str(path))


def _manifest() -> Any:
    manifest = load_detector(TINY_BUNDLE).bundle.manifest
    record = {"losses": [0.5, 0.4], "stop_losses": [0.6, 0.45, 0.41], "best_epoch": 2, "epochs": 2}
    return replace(manifest, trained={"training": record})


def _drawn(path: Path) -> int:
    """Return how many colours a picture has: a blank one has one."""
    pixels = imread(path)
    assert pixels.shape[0] > 300
    assert pixels.shape[1] > 1000
    return len(np.unique((pixels[..., :3] * 255).astype(np.uint32) @ np.array([65536, 256, 1], np.uint32)))


# What is shown of a long history.


@given(scores)
def test_a_thinned_line_keeps_its_highest_point(score: Float64) -> None:
    """However few points are left, the highest score is one of them, and missing stays missing."""
    long = np.repeat(score, 40)
    time, kept = thinned(np.arange(len(long), dtype=np.float64), long)
    assert len(time) == len(kept) <= max(MOST_POINTS, 1)
    assert np.nanmax(np.append(kept, -1)) == np.nanmax(np.append(score, -1))


@given(arrays(np.bool_, st.integers(1, 60)))
def test_spans_cover_exactly_the_true_rows(flag: Bool) -> None:
    """The shaded stretches hold every true row, no false one, and never touch each other."""
    time = np.arange(len(flag), dtype=np.float64)
    covered = np.zeros(len(flag), np.bool_)
    runs = spans(time, flag, 1.0) if flag.any() else []
    for start, length in runs:
        covered |= (time >= start) & (time < start + length)
    assert np.array_equal(covered, flag)
    assert len(runs) == int((np.diff(flag.astype(int), prepend=0) == 1).sum())


def test_no_line_is_drawn_across_a_gap() -> None:
    """A missing point stands between two samples that do not follow each other."""
    time, values = with_gaps(np.array([0.0, 1.0, 5.0, 6.0]), np.array([1.0, 2.0, 3.0, 4.0]), 1.0)
    assert time.tolist() == [0.0, 1.0, 4.5, 5.0, 6.0]
    assert np.isnan(values).tolist() == [False, False, True, False, False]


def test_a_stretch_never_leaves_its_asset_nor_crosses_a_long_gap(found: Evaluation) -> None:
    """The rows shown about any row are of its asset and hold that row."""
    time = found.time.copy()
    time[150:] += (LONG_GAP + 10) * found.interval
    two = replace(found, asset=(np.arange(300) >= 220).astype(np.int64), time=time)
    for row in range(0, 300, 7):
        rows = stretch_around(two, row)
        assert row in rows
        assert len(rows) <= STRETCH
        assert len(set(two.asset[rows])) == 1
        assert np.diff(time[rows]).max(initial=0) < LONG_GAP * found.interval
    assert 0 <= liveliest_row(two, _manifest()) < 300


def test_of_many_sensors_the_worst_are_shown(found: Evaluation) -> None:
    """With more sensors than a page takes, those of the largest residuals come first, and a dead one does not fail."""
    manifest = _manifest()
    many = replace(
        manifest, sensors=tuple(replace(manifest.sensors[0], name=f"s{number}") for number in range(20))
    )
    values = np.tile(np.arange(20, dtype=np.float32), (300, 1))
    values[:, 19] = np.nan
    wide = replace(found, values=values, forecast=np.zeros_like(values))
    assert worst_sensors(wide, many) == list(range(18, 6, -1))


# The files.


def test_evaluate_draws_score_forecast_and_residuals(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--plots` leaves pictures that are not blank, and names them; with `--json` nothing else is printed."""
    path = tmp_path / "pump.csv"
    path.write_bytes(text(table(300, (100, 160))))
    words = ("evaluate", "--bundle", TINY_BUNDLE, "--history", path, "--plots", tmp_path / "plots" / "deep")
    said = run(main, capsys, *words)
    assert said.code == 0
    assert ", ".join(EVALUATION) in said.out
    for name in EVALUATION:
        assert _drawn(tmp_path / "plots" / "deep" / name) > 10
    assert run(main, capsys, *words, "--json").record()["samples"] == 300


def test_fit_draws_its_learning_too(found: Evaluation, tmp_path: Path) -> None:
    """The pictures of a fit begin with the losses by epoch, also when no epoch was worth keeping."""
    manifest = _manifest()
    first = plot_fit(tmp_path, found, manifest)
    assert first[0].name == "fit_learning.png"
    ridge = replace(
        manifest,
        trained={"training": {"losses": [], "stop_losses": [0.5], "best_epoch": 0, "epochs": 0}},
    )
    for path in (*first, *plot_fit(tmp_path, found, ridge)):
        assert _drawn(path) > 10


def test_nothing_scored_and_nothing_there_is_drawn_all_the_same(found: Evaluation, tmp_path: Path) -> None:
    """Histories without a score, without a forecast, of many assets and of long names give pictures, not failures."""
    manifest = _manifest()
    blank = np.full(300, np.nan)
    unscored = replace(found, score=blank, forecast=np.full_like(found.forecast, np.nan))
    crowd = MOST_ASSETS + 3
    crowded = replace(
        found,
        assets=tuple("pump $\\no$ " + "ä" * number for number in range(crowd)),
        asset=np.arange(300) * crowd // 300,
        labels=(np.arange(300) % 90 > 70).astype(np.int8),
    )
    for number, case in enumerate((unscored, crowded)):
        target = tmp_path / str(number)
        target.mkdir()
        for path in plot_evaluation(target, case, manifest):
            assert _drawn(path) > 3


@pytest.mark.parametrize("command", ["evaluate", "fit"])
def test_a_directory_that_cannot_be_one_is_refused_first(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file in place of the directory is a usage error in one line, before anything is read."""
    (tmp_path / "plots").write_text("", encoding="utf-8")
    words = {"evaluate": ("--bundle", tmp_path), "fit": ("--out", tmp_path / "out")}[command]
    said = run(
        main, capsys, command, "--history", tmp_path / "none.csv", *words, "--plots", tmp_path / "plots"
    )
    assert said.code == 2
    assert said.refusal().startswith(f"trainer: --plots {tmp_path / 'plots'}: is no directory")
