"""Laws of the figures that `trainer evaluate` prints, on cases small enough to count by hand."""

import json

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from edge_agent.contract.errors import HistoryError
from trainer.affiliation import affiliation_figures
from trainer.detection_metrics import (
    LABEL_FREE_KEYS,
    LABEL_KEYS,
    SECONDS_PER_WEEK,
    detection_metrics,
    forecast_skill,
)
from trainer.scored_rows import asset_breaks, scored_rows
from trainer.volume_metrics import volume_figures

SEQUENCE_KEYS = [
    key for key in LABEL_KEYS if key.startswith(("range_", "affiliation_", "vus_", "corrected_"))
]

#        rows: 0  1  2  3  4  5  6  7  8  9
LABEL = np.array([0, 0, 0, 1, 1, 1, 0, 0, 1, 0], np.int8)
ALARM = np.array([0, 1, 0, 0, 1, 1, 1, 0, 0, 0], np.bool_)
SCORE = np.array([0.1, 1.2, 0.3, 0.5, 1.5, 2.0, 1.1, 0.2, 0.4, 0.0])
TIME = 1000.0 + 60.0 * np.arange(10, dtype=np.float64)


def test_row_figures_count_each_row_for_itself() -> None:
    """Precision, recall, F1, FAR and MAR are plain counts of rows, without point adjustment."""
    figures = detection_metrics(TIME, SCORE, ALARM, LABEL, 60.0)
    assert figures["precision"] == pytest.approx(2 / 4)
    assert figures["recall"] == pytest.approx(2 / 4)
    assert figures["f1"] == pytest.approx(0.5)
    assert figures["far"] == pytest.approx(2 / 6)
    assert figures["mar"] == pytest.approx(2 / 4)
    assert figures["all_positive_f1"] == pytest.approx(2 * 0.4 / 1.4)


def test_event_figures_count_runs() -> None:
    """A run of labels is found by any alarm row in it, and an alarm that meets no label is false."""
    figures = detection_metrics(TIME, SCORE, ALARM, LABEL, 60.0)
    weeks = 600.0 / SECONDS_PER_WEEK
    assert figures["event_recall"] == pytest.approx(1 / 2)
    assert figures["event_precision"] == pytest.approx(1 / 2)
    assert figures["alarms_per_week"] == pytest.approx(2 / weeks)
    assert figures["false_alarms_per_week"] == pytest.approx(1 / (360.0 / SECONDS_PER_WEEK))
    assert figures["median_delay_seconds"] == pytest.approx(60.0)
    assert figures["time_in_alarm_ratio"] == pytest.approx(4 / 10)


def test_ranking_figures_are_those_counted_by_hand() -> None:
    """ROC AUC is the share of (faulty, normal) pairs in the right order; average precision sums the steps."""
    figures = detection_metrics(TIME, SCORE, ALARM, LABEL, 60.0)
    # Faulty .5 1.5 2.0 .4 against normal .1 1.2 .3 1.1 .2 .0: 4 + 6 + 6 + 4 pairs of 24.
    assert figures["roc_auc"] == pytest.approx(20 / 24)
    # Ranked: 2.0+ 1.5+ 1.2 1.1 .5+ .4+
    assert figures["average_precision"] == pytest.approx((1 / 1 + 2 / 2 + 3 / 5 + 4 / 6) / 4)


def test_figures_of_sequences_are_those_of_their_own_files() -> None:
    """Ranges, zones, corrected events and volumes are measured on the same rows, counted by hand where they are few."""
    figures = detection_metrics(TIME, SCORE, ALARM, LABEL, 60.0)
    assert figures["range_recall"] == pytest.approx((2 / 3 + 0) / 2)
    assert figures["range_precision"] == pytest.approx((0 + 2 / 3) / 2)
    assert figures["range_f1"] == pytest.approx(1 / 3)
    assert figures["corrected_event_f05"] == pytest.approx(1.25 * (1 / 3 * 1 / 2) / (0.25 * 1 / 3 + 1 / 2))
    rows = scored_rows(SCORE, ALARM, LABEL > 0, asset_breaks(None, 10))
    assert {key: figures[key] for key in affiliation_figures(rows)} == affiliation_figures(rows)
    assert {key: figures[key] for key in volume_figures(rows)} == volume_figures(rows, longest=2)


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([np.nan, -1.0, 0.0, 0.5, 1.5, 2.0]), st.integers(0, 1)),
        min_size=2,
        max_size=30,
    )
)
def test_ranking_figures_are_those_of_scikit_learn(rows: list[tuple[float, int]]) -> None:
    """Average precision and ROC AUC are scikit-learn's over the scored rows, whatever ties there are."""
    score, label = np.array([row[0] for row in rows]), np.array([row[1] for row in rows], np.int8)
    known = ~np.isnan(score)
    assume(len(set(label[known].tolist())) == 2)
    figures = detection_metrics(np.arange(len(rows), dtype=np.float64), score, score > 1, label, 60.0)
    assert figures["average_precision"] == pytest.approx(average_precision_score(label[known], score[known]))
    assert figures["roc_auc"] == pytest.approx(roc_auc_score(label[known], score[known]))


def test_an_infinite_score_ranks_first() -> None:
    """A score without bound is larger than any other, and the ranking figures stay defined."""
    score = np.where(SCORE == 2.0, np.inf, SCORE)
    assert detection_metrics(TIME, score, ALARM, LABEL, 60.0) == detection_metrics(
        TIME, SCORE, ALARM, LABEL, 60.0
    )


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([0.0, 0.5, 1.5]), st.booleans(), st.integers(0, 1)), min_size=1, max_size=20
    ),
    st.integers(0, 5),
)
def test_sequences_do_not_depend_on_when_they_begin(
    rows: list[tuple[float, bool, int]], warming_up: int
) -> None:
    """Later by a day, or after more rows without a score, the figures of sequences are the same."""
    found = []
    for unscored, start in ((0, 1000.0), (warming_up, 87400.0)):
        score = np.array([np.nan] * unscored + [row[0] for row in rows])
        alarm = np.array([False] * unscored + [row[1] for row in rows])
        label = np.array([1] * unscored + [row[2] for row in rows], np.int8)
        time = start + 60.0 * np.arange(len(score), dtype=np.float64)
        figures = detection_metrics(time, score, alarm, label, 60.0)
        found.append({key: figures[key] for key in SEQUENCE_KEYS})
    assert found[0] == pytest.approx(found[1])


def test_an_unscored_fault_is_missed_and_unscored_time_is_no_quiet_time() -> None:
    """Rows without a score leave the false-alarm rates and the ranking, but a fault in them stays a miss."""
    score = SCORE.copy()
    score[[0, 2, 8]] = np.nan
    figures = detection_metrics(TIME, score, ALARM, LABEL, 60.0)
    assert figures["far"] == pytest.approx(2 / 4)
    assert figures["mar"] == pytest.approx(2 / 4)
    assert figures["alarms_per_week"] == pytest.approx(2 / (420.0 / SECONDS_PER_WEEK))
    assert figures["roc_auc"] == pytest.approx((2 + 4 + 4) / 12)


def test_an_alarm_that_stood_before_the_fault_has_no_delay() -> None:
    """The delay is counted from the first faulty row and is never negative."""
    alarm = np.array([0, 1, 1, 1], np.bool_)
    label = np.array([0, 0, 1, 1], np.int8)
    figures = detection_metrics(TIME[:4], SCORE[:4], alarm, label, 60.0)
    assert figures["median_delay_seconds"] == 0.0
    assert figures["event_precision"] == 1.0


def test_events_do_not_reach_from_one_asset_into_the_next() -> None:
    """Where another asset begins, runs end, and rates stay per asset."""
    alarm = np.array([0, 1, 1, 0], np.bool_)
    label = np.array([0, 1, 0, 0], np.int8)
    asset = np.array([0, 0, 1, 1])
    time = np.array([0.0, 60.0, 0.0, 60.0])
    figures = detection_metrics(time, SCORE[:4], alarm, label, 60.0, asset)
    assert figures["alarms_per_week"] == pytest.approx(2 / (240.0 / SECONDS_PER_WEEK))
    assert figures["event_precision"] == pytest.approx(1 / 2)


def test_without_labels_only_the_alarm_figures_are_defined() -> None:
    """Figures that need labels are `None` when there are none."""
    figures = detection_metrics(TIME, SCORE, ALARM, None, 60.0)
    assert {key for key, value in figures.items() if value is not None} == set(LABEL_FREE_KEYS)
    assert set(figures) == {*LABEL_FREE_KEYS, *LABEL_KEYS}


def test_no_alarm_at_all_gives_no_precision_but_no_recall_either() -> None:
    """Silence has an undefined precision, a recall of 0 and an F1 of 0."""
    figures = detection_metrics(TIME, SCORE, np.zeros(10, np.bool_), LABEL, 60.0)
    assert figures["precision"] is None
    assert figures["event_precision"] is None
    assert figures["median_delay_seconds"] is None
    assert (figures["recall"], figures["f1"], figures["event_recall"]) == (0.0, 0.0, 0.0)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([np.nan, np.inf, 0.0, 0.5, 1.5]), st.booleans(), st.integers(0, 1)),
        max_size=8,
    )
)
def test_no_figure_is_ever_nan_or_infinite(rows: list[tuple[float, bool, int]]) -> None:
    """Whatever the rows, every figure is finite or `None` and goes into strict JSON."""
    score, alarm, label = (np.array([row[column] for row in rows]) for column in range(3))
    figures = detection_metrics(
        np.arange(len(rows), dtype=np.float64),
        score.astype(np.float64),
        alarm.astype(bool),
        label.astype(np.int8),
        60.0,
    )
    json.dumps(figures, allow_nan=False)


def test_columns_of_different_lengths_are_refused() -> None:
    """A column that lacks rows is an error that says so."""
    with pytest.raises(HistoryError, match="different lengths"):
        detection_metrics(TIME[:3], SCORE, ALARM, LABEL, 60.0)


def test_an_interval_must_be_positive() -> None:
    """No week can be counted with an interval of zero."""
    with pytest.raises(HistoryError, match="interval"):
        detection_metrics(TIME, SCORE, ALARM, LABEL, 0.0)


def test_forecast_skill_is_in_units_of_the_scale_and_per_sensor_in_engineering_units() -> None:
    """Each sensor's error is divided by its scale before all cells are put together."""
    actual = np.array([[1.0, 10.0], [2.0, 20.0]], np.float32)
    forecast = np.array([[2.0, 10.0], [2.0, 30.0]], np.float32)
    previous = np.array([[0.0, 0.0], [1.0, 10.0]], np.float32)
    mask = np.ones((2, 2), np.bool_)
    skill = forecast_skill(actual, forecast, previous, mask, np.array([1.0, 10.0]), ("flow", "pressure"))
    assert skill["rmse"] == pytest.approx(np.sqrt((1 + 0 + 0 + 1) / 4))
    assert skill["mae"] == pytest.approx(2 / 4)
    assert skill["persistence_rmse"] == pytest.approx(1.0)
    pressure = skill["sensors"][1]
    assert (pressure["name"], pressure["samples"]) == ("pressure", 2)
    assert pressure["rmse"] == pytest.approx(np.sqrt(50.0))
    assert pressure["persistence_rmse"] == pytest.approx(10.0)


def test_forecast_and_persistence_are_judged_on_the_same_cells() -> None:
    """A cell that is masked, or that any of the three lacks, counts for neither."""
    actual = np.array([[1.0], [2.0], [3.0], [4.0]], np.float32)
    forecast = np.array([[1.5], [np.nan], [9.0], [4.5]], np.float32)
    previous = np.array([[0.0], [1.0], [2.0], [np.nan]], np.float32)
    mask = np.array([[True], [True], [False], [True]])
    skill = forecast_skill(actual, forecast, previous, mask)
    assert skill["sensors"][0]["samples"] == 1
    assert skill["rmse"] == pytest.approx(0.5)
    assert skill["persistence_rmse"] == pytest.approx(1.0)


def test_forecast_skill_of_no_cells_is_none() -> None:
    """Without a single usable cell no figure is defined."""
    empty = np.empty((0, 2), np.float32)
    skill = forecast_skill(empty, empty, empty, np.empty((0, 2), np.bool_))
    assert (skill["rmse"], skill["mae"], skill["persistence_rmse"]) == (None, None, None)


def test_forecast_skill_refuses_other_shapes() -> None:
    """Arrays that do not fit together are an error, not a broadcast."""
    ones = np.ones((3, 2), np.float32)
    with pytest.raises(HistoryError, match="one shape"):
        forecast_skill(ones, ones[:2], ones, np.ones((3, 2), np.bool_))
