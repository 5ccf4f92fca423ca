"""Laws of labels in training: true faults are left out of everything, false alarms calibrate and are not fitted on."""

from pathlib import Path

import numpy as np
import pytest

from edge_agent.contract.errors import HistoryError
from edge_agent.contract.labels import LabelledInterval
from edge_agent.contract.types import Float32, Samples
from edge_agent.detector import Detector
from tests.small_bundle import SENSORS, normal_values
from trainer.blocks import make_plan
from trainer.cleaning import Cleaned, Series
from trainer.fit import fit_detector
from trainer.fit_options import FitOptions
from trainer.labels import apply_labels

FAULT, FALSE = "true_fault", "false_alarm"
RIDGE = FitOptions(units=(), window_length=16)


def _history(values: Float32, *assets: str) -> Cleaned:
    ticks = 1000 + np.arange(len(values))
    series = tuple(Series(asset, ticks, values, None) for asset in assets or ("asset",))
    return Cleaned(SENSORS, 1.0, 0.0, series, {}, (), (), len(values))


def _interval(first: int, last: int, label: str, asset: str = "asset") -> LabelledInterval:
    return LabelledInterval(asset, 1000.0 + first, 1000.0 + last, label)


def test_faults_are_left_out_and_false_alarms_kept() -> None:
    """Rows of a fault are gone, those of a false alarm are known, and a row in both is a fault."""
    marks = [_interval(10, 19, FAULT), _interval(15, 29, FALSE), _interval(500, 600, FALSE)]
    found = apply_labels(_history(normal_values(100)), marks, "labels.csv")
    (series,) = found.cleaned.series
    assert (found.true_fault_rows, found.false_alarm_rows) == (10, 10)
    assert not np.isin(np.arange(1010, 1020), series.ticks).any()
    assert series.false_alarms is not None
    assert series.ticks[series.false_alarms].tolist() == list(range(1020, 1030))
    assert found.notices == ("labels.csv: 1 of 3 labels are of no row of the history",)


def test_labels_are_of_their_asset() -> None:
    """With several assets a label is of its own; a history without assets takes those of one, and not of two."""
    two = apply_labels(_history(normal_values(50), "a", "b"), [_interval(0, 9, FAULT, "b")], "labels.csv")
    assert [len(series.ticks) for series in two.cleaned.series] == [50, 40]
    one = apply_labels(_history(normal_values(50)), [_interval(0, 9, FAULT, "pump-1")], "labels.csv")
    assert one.true_fault_rows == 10
    with pytest.raises(HistoryError, match=r"labels\.csv: asset: names a, b, but the history does not tell"):
        apply_labels(
            _history(normal_values(50)),
            [_interval(0, 9, FAULT, "a"), _interval(0, 9, FAULT, "b")],
            "labels.csv",
        )
    with pytest.raises(HistoryError, match="marks every row"):
        apply_labels(_history(normal_values(50)), [_interval(0, 99, FAULT)], "labels.csv")


def test_without_labels_nothing_changes() -> None:
    """No intervals: the same history."""
    history = _history(normal_values(50))
    (before,), (after,) = history.series, apply_labels(history, (), "").cleaned.series
    np.testing.assert_array_equal(after.values, before.values)
    assert after.false_alarms is None


def test_false_alarms_calibrate_and_are_not_fitted_on() -> None:
    """In a long history their rows are in no block that is fitted on, and in the one that calibrates, once."""
    values = normal_values(4000)
    values[1000:1050] += 100.0
    cleaned = apply_labels(_history(values), [_interval(1000, 1049, FALSE)], "labels.csv").cleaned
    plan = make_plan(cleaned, RIDGE)
    (cuts,) = plan.cuts
    assert cuts.shown == ((1000, 1050),)
    assert cuts.fitted(0, cuts.stop) == [(0, 1000), (1050, cuts.stop)]
    assert cuts.fitted(cuts.stop, cuts.held) == [(cuts.stop, cuts.held)]
    history = plan.calibration_history()
    chosen = history.samples.tick[history.held_out] - 1000
    assert chosen.tolist() == [*range(1000, 1050), *range(cuts.held, 4000)]
    assert np.abs(plan.scaling.centre - [50.0, 6.0]).max() < 2.0


def _alarms(detector: Detector, values: Float32) -> int:
    outcomes = detector.process(
        Samples(np.zeros(len(values), np.int64), 900_000 + np.arange(len(values)), values)
    )
    return int(outcomes.alarm.sum())


def test_what_was_marked_false_alarms_no_more(tmp_path: Path) -> None:
    """A habit that alarms is normal after training with its label; one that is marked as a fault alarms again."""
    values = normal_values(4000, 2)
    values[1000:1060, 1] += 3.0
    later = normal_values(400, 9)
    later[200:260, 1] += 3.0
    found = {}
    for label in (FALSE, FAULT):
        (tmp_path / label).mkdir()
        cleaned = apply_labels(_history(values), [_interval(1000, 1059, label)], "labels.csv").cleaned
        found[label] = _alarms(fit_detector(cleaned, RIDGE, tmp_path / label), later)
    assert found[FALSE] == 0
    assert found[FAULT] > 20
