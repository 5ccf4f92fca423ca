"""Laws of the cross-validation: same cells for all contenders, no look ahead, and a plain word on the LSTM."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge_agent.contract.types import Float32, Int64
from tests.commands import run, table, text
from tests.tiny_machine import START, normal_values
from trainer.cleaning import Cleaned, Series
from trainer.cli import main
from trainer.crossval import CrossvalOptions, cross_validate
from trainer.crossval_figures import CrossValidation, FoldFigures
from trainer.fit_options import FitOptions

OPTIONS = FitOptions(window_length=8, units=())
UNTRAINED = replace(OPTIONS, units=(4,), epochs=0)
SENSORS = ("pressure", "temperature", "flow")


def _cleaned(values: Float32, ticks: Int64 | None = None) -> Cleaned:
    ticks = np.arange(len(values)) if ticks is None else ticks
    return Cleaned(SENSORS, 1.0, 0.0, (Series("p1", ticks, values, None),), {}, (), (), len(values))


def test_an_lstm_that_was_not_trained_is_not_worth_it() -> None:
    """Before its first epoch the forecaster is the ridge regression: the gain is 0 in each fold, and it is said so."""
    found = cross_validate(_cleaned(normal_values(600)), UNTRAINED, CrossvalOptions(folds=3, horizons=2))
    assert found.gains == pytest.approx([0.0] * 3, abs=1e-4)
    assert not found.worth_it
    assert found.verdict().startswith("The LSTM is not worth it here: over 3 folds")
    assert [fold.cells.shape for fold in found.folds] == [(2, 3)] * 3


def test_persistence_is_what_a_person_would_compute() -> None:
    """MAE and RMSE by sensor and horizon are those of the readings' own differences over the judged block."""
    values = normal_values(600)
    found = cross_validate(_cleaned(values), OPTIONS, CrossvalOptions(folds=2, horizons=3, season=0))
    fold = found.folds[-1]
    first, count = int(fold.first_time), fold.judged
    assert (first, count) == (400, 198)
    for horizon in (1, 2, 3):
        origins = np.arange(first - 1, first - 1 + count)
        difference = values[origins + horizon].astype(np.float64) - values[origins]
        np.testing.assert_allclose(fold.square[2, horizon - 1], (difference**2).sum(axis=0), rtol=1e-4)
        np.testing.assert_allclose(fold.absolute[2, horizon - 1], np.abs(difference).sum(axis=0), rtol=1e-4)


def test_the_ridge_regression_beats_persistence_where_it_must() -> None:
    """On a process that falls back to its mean by a tenth a sample, the regression is nearer than the last sample."""
    found = cross_validate(_cleaned(normal_values(900)), OPTIONS, CrossvalOptions(folds=2)).record()
    ridge, last = found["contenders"]["ridge"]["rmse"], found["contenders"]["persistence"]["rmse"]
    assert ridge < last
    assert found["persistence_rmse"] == last


def test_what_comes_later_changes_no_earlier_fold() -> None:
    """The figures of a fold depend on nothing after its test block."""
    values = normal_values(600)
    spoilt = values.copy()
    spoilt[400:] += 100.0
    wanted = CrossvalOptions(folds=2, season=0)
    before, after = (cross_validate(_cleaned(one), OPTIONS, wanted).folds[0] for one in (values, spoilt))
    np.testing.assert_array_equal(before.square, after.square)


def test_no_forecast_reaches_over_a_gap() -> None:
    """After a long gap the first forecast is that of a whole window: so many fewer are judged."""
    ticks = np.r_[np.arange(500), 10_000 + np.arange(100)]
    found = cross_validate(
        _cleaned(normal_values(600), ticks), OPTIONS, CrossvalOptions(folds=2, season=0)
    ).folds[-1]
    assert found.judged == 100 + (100 - OPTIONS.window_length) if OPTIONS.window_length else None


def test_all_contenders_are_judged_on_the_same_cells() -> None:
    """Cells without a reading, or without one a season ago, count for nobody; too few take the season out."""
    values = normal_values(600)
    values[450:460, 1] = np.nan
    found = cross_validate(_cleaned(values), OPTIONS, CrossvalOptions(folds=2, season=200)).folds
    assert found[-1].cells.tolist() == [[200, 190, 200]]
    assert all(fold.rmse(3) is not None for fold in found)
    late = cross_validate(_cleaned(values), OPTIONS, CrossvalOptions(folds=2, season=399)).folds
    assert late[0].rmse(3) is None
    assert late[0].cells.tolist() == [[200, 200, 200]]


def _driven(count: int) -> Float32:
    """Return (count, 2): a valve that is moved at will, and a flow that follows it a sample later."""
    rng = np.random.default_rng(2)
    valve = rng.normal(size=count)
    flow = np.r_[0.0, valve[:-1]] + 0.1 * rng.normal(size=count)
    return np.stack([valve, flow], axis=1).astype(np.float32)


def test_a_command_is_read_and_not_judged() -> None:
    """What is forecast alone has figures, in its own scale; the command is what makes it known beforehand."""
    values = _driven(600)
    cleaned = Cleaned(
        ("valve", "flow"), 1.0, 0.0, (Series("p1", np.arange(600), values, None),), {}, (), (), 600
    )
    told = replace(UNTRAINED, exogenous=("valve",))
    found = cross_validate(cleaned, told, CrossvalOptions(folds=2, horizons=2, season=100))
    assert found.sensors == ("flow",)
    fold = found.folds[-1]
    origins = np.arange(399, 399 + fold.judged)
    for place, lag in ((2, 0), (3, 99)):
        difference = values[origins + 1, 1].astype(np.float64) - values[origins - lag, 1]
        np.testing.assert_allclose(fold.square[place, 0, 0], (difference**2).sum(), rtol=1e-4)
    assert fold.square[0, 0, 0] < 0.03 * fold.square[2, 0, 0]
    assert fold.square[0, 1, 0] > 0.3 * fold.square[2, 1, 0]
    alone = replace(cleaned, sensors=("flow",), series=(replace(cleaned.series[0], values=values[:, 1:]),))
    deaf = cross_validate(alone, UNTRAINED, CrossvalOptions(folds=2, season=0)).folds[-1]
    assert deaf.square[0, 0, 0] > 10 * fold.square[0, 0, 0]


def test_a_machine_that_is_off_is_not_judged() -> None:
    """Readings of a stop and of the settling after it count for no contender, whichever fold they are in."""
    values = normal_values(600)
    values[[*range(150, 160), *range(500, 520)], 2] = 0.0
    options = replace(OPTIONS, off_when="flow<20", settle_ticks=5)
    folds = cross_validate(_cleaned(values), options, CrossvalOptions(folds=2, season=0)).folds
    assert [fold.cells.tolist() for fold in folds] == [[[200] * 3], [[175] * 3]]
    assert folds[1].judged == 200


@pytest.mark.parametrize(
    ("ours", "worth_it"),
    [((0.90, 0.91, 0.89), True), ((0.995, 0.995, 0.995), False), ((0.6, 1.2, 0.9), False)],
)
def test_a_gain_must_be_large_and_sure(ours: tuple[float, ...], worth_it: bool) -> None:
    """The LSTM is worth it if it saves a hundredth of the RMSE, two standard errors above nothing."""
    folds = tuple(_fold(number, one) for number, one in enumerate(ours, 1))
    found = CrossValidation(("flow",), None, folds)
    assert found.worth_it is worth_it
    assert found.verdict().startswith("The LSTM is worth it" if worth_it else "The LSTM is not worth it")
    assert found.record()["lstm_gain"] == pytest.approx(1 - np.mean(ours))


def test_a_simpler_contender_that_is_better_is_named() -> None:
    """Where the last sample forecasts better than the forecaster, the verdict says so with both figures."""
    fold = _fold(1, 1.0)
    square = fold.square.copy()
    square[2] = 0.25
    found = CrossValidation(("flow",), None, (replace(fold, square=square),))
    assert "Better than its 1: persistence (0.5)." in found.verdict()


def _fold(number: int, ours: float) -> FoldFigures:
    square = np.array([ours**2, 1.0, 4.0, math.nan])[:, None, None]
    return FoldFigures(
        number, 10, 1, 0.0, 1.0, 1, np.ones((1, 1), np.int64), square, np.sqrt(square), np.ones(1)
    )


# The command.


def test_the_command_prints_one_object(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--json` prints the figures and the verdict, `--plots` draws them."""
    path = tmp_path / "pump.csv"
    path.write_bytes(text(table(300)))
    said = run(
        main, capsys, "crossval", "--history", path, "--folds", 2, "--window", 8, "--units", 4, "--epochs", 1,
        "--plots", tmp_path / "plots", "--json",
    )  # fmt: skip
    record = said.record()
    assert said.code == 0
    assert [fold["fold"] for fold in record["folds"]] == [1, 2]
    assert {cell["sensor"] for cell in record["folds"][0]["forecaster"]["sensors"]} == set(SENSORS)
    assert isinstance(record["lstm_worth_it"], bool)
    assert (tmp_path / "plots" / "crossval_rmse.png").stat().st_size > 5000


@pytest.mark.parametrize("by", ["flag", "file"])
def test_the_command_takes_commands_and_calendar(
    by: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--exogenous` and `--calendar`, or their keys, are read as `fit` reads them."""
    path, config = tmp_path / "pump.csv", tmp_path / "fit.toml"
    path.write_bytes(text(table(300)))
    config.write_text("[fit]\nexogenous = ['flow']\ncalendar = ['hour']\n")
    given = ("--exogenous", "flow", "--calendar", "hour") if by == "flag" else ("--config", config)
    words = ("crossval", "--history", path, "--folds", 2, "--window", 8, "--units", 4, "--epochs", 1, *given)
    cells = run(main, capsys, *words, "--json").record()["folds"][0]["forecaster"]["sensors"]
    assert [cell["sensor"] for cell in cells] == ["pressure", "temperature"]
    shown = run(main, capsys, *words).out
    assert "temperature" in shown
    assert "flow" not in shown.replace("forecaster", "")


def test_what_operators_marked_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Rows of true faults are in no fold, as in `fit`; a file of labels that is wrong is told in one line."""
    path, config, labels = tmp_path / "pump.csv", tmp_path / "fit.toml", tmp_path / "labels.csv"
    path.write_bytes(text(table(300)))
    config.write_text("[fit]\nlabels = 'labels.csv'\n")
    labels.write_text(f"asset,start,end,label\npump,{START + 200},{START + 219},true_fault\n")
    words = (
        "crossval", "--history", path, "--folds", 2, "--window", 8, "--units", 4, "--epochs", 1, "--json",
    )  # fmt: skip

    def judged(*given: object) -> int:
        folds = run(main, capsys, *words, *given).record()["folds"]
        return sum(fold["forecaster"]["sensors"][0]["samples"] for fold in folds)

    # The folds are those of 280 rows.
    assert judged("--config", config) < judged()
    labels.write_text("asset,start,end,label\npump,1,2,mood\n")
    refused = run(main, capsys, *words, "--config", config)
    assert refused.code == 1
    assert "labels.csv: line 2: label" in refused.refusal()


@pytest.mark.parametrize(
    ("words", "code", "rule"),
    [
        (("--exogenous", "valve"), 1, "exogenous: names 'valve', which is no sensor"),
        (("--folds", "1"), 2, "--folds: is 1, must be from 2"),
        (("--season", "-1"), 2, "--season: is -1"),
        (("--horizons", "0"), 2, "--horizons: is 0"),
        (("--epochs", "-1"), 2, "--epochs: is -1"),
        (("--folds", "30"), 1, "history too short"),
    ],
)
def test_the_command_refuses_in_one_line(
    words: tuple[str, ...], code: int, rule: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An option out of range, or a history too short for it, is one line."""
    path = tmp_path / "pump.csv"
    path.write_bytes(text(table(300)))
    said = run(main, capsys, "crossval", "--history", path, *words)
    assert said.code == code
    assert rule in said.refusal()
