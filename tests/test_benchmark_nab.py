"""Laws of the scores of the Numenta Anomaly Benchmark and of its files."""

from pathlib import Path

import numpy as np
import pytest

from edge_agent.contract.errors import HistoryError
from tests.tiny_benchmarks import NAB_ROWS, NAB_WINDOW, labelled_case, said, write_nab
from trainer.benchmark.cases import Verdict, Window
from trainer.benchmark.nab import Nab
from trainer.benchmark.nab_scoring import (
    PROFILES,
    QUIET_ROWS,
    best_scores,
    corpus_score,
    join_weights,
    onsets,
    places_of,
    row_weights,
    sigmoid_weight,
)

NOTHING = np.empty(0, np.int64)


def test_the_sigmoid_falls_from_the_left_edge_to_the_right_and_below() -> None:
    """The weight is .987 at the left edge, .848 in the middle, 0 at the right edge, and -1 three widths behind it."""
    weights = sigmoid_weight(np.array([-1.0, -0.5, 0.0, 1.0, 3.0]))
    assert weights == pytest.approx([0.98661, 0.84828, 0.0, -0.98661, -1.0], abs=1e-4)


def test_rows_outside_cost_more_the_farther_they_are_behind_a_window() -> None:
    """Before the first window a row weighs -1; behind one, it falls from nearly 0 to -1."""
    weights = row_weights(300, [(100, 119)])
    assert (weights.value[:100] == -1.0).all()
    assert weights.value[100] == pytest.approx(1.0)
    assert (np.diff(weights.value[100:]) <= 0.0).all()
    assert -0.15 < weights.value[120] < 0.0
    assert weights.value[-1] == -1.0


@pytest.mark.parametrize("name", PROFILES)
def test_no_detection_is_0_and_the_earliest_everywhere_100(name: str) -> None:
    """A corpus without a detection scores 0; one with a detection at each left edge and no other scores 100."""
    weights = join_weights([row_weights(200, [(50, 69), (120, 139)]), row_weights(100, [])])
    assert corpus_score(weights, NOTHING, PROFILES[name]) == 0.0
    assert corpus_score(weights, np.array([50, 120]), PROFILES[name]) == pytest.approx(100.0)


def test_only_the_earliest_detection_in_a_window_counts_and_each_stray_one_costs() -> None:
    """A later detection in a window changes nothing; one before all windows costs .11, or .22 with low FP."""
    weights = row_weights(200, [(50, 69)])
    alone, twice, stray = np.array([50]), np.array([50, 60]), np.array([10, 50])
    standard, low_fp = PROFILES["standard"], PROFILES["low_fp"]
    assert corpus_score(weights, twice, standard) == corpus_score(weights, alone, standard)
    assert corpus_score(weights, stray, standard) == pytest.approx(100.0 * (2.0 - 0.11) / 2.0)
    assert corpus_score(weights, stray, low_fp) == pytest.approx(100.0 * (2.0 - 0.22) / 2.0)


def test_a_corpus_without_windows_has_no_score() -> None:
    """Where there is nothing to find, no score is defined."""
    assert corpus_score(row_weights(10, []), NOTHING, PROFILES["standard"]) is None


def test_a_detection_is_the_first_row_after_a_quiet_while() -> None:
    """Rows over the threshold that follow one within the quiet while are no further detections; files do not mix."""
    over = np.zeros(500, np.bool_)
    over[[10, 11, 60, 60 + QUIET_ROWS + 1]] = True
    place = places_of([500])
    assert onsets(over, place).tolist() == [10, 161]
    assert onsets(over, place, quiet=0).tolist() == [10, 11, 60, 161]
    assert onsets(np.array([True, True]), places_of([1, 1])).tolist() == [0, 1]


def test_the_best_threshold_is_one_for_the_whole_corpus() -> None:
    """Where one file's normal scores exceed the other's event, no single threshold finds both without cost."""
    weights = join_weights([row_weights(300, [(200, 219)]), row_weights(300, [(200, 219)])])
    ranks = np.zeros(600)
    ranks[200], ranks[500] = 1.0, 1.0
    assert best_scores(ranks, weights, places_of([300, 300]), QUIET_ROWS)["standard"] == pytest.approx(100.0)
    ranks[10] = 2.0
    found = best_scores(ranks, weights, places_of([300, 300]), QUIET_ROWS)["standard"]
    assert found == pytest.approx(100.0 * (4.0 - 0.11) / 4.0)


def test_rows_that_were_not_judged_are_never_detected() -> None:
    """A verdict without a single score is worth as much as silence."""
    suite = Nab()
    case = labelled_case([0] * 50 + [1] * 10 + [0] * 40, windows=(Window(50, 59),))
    silent = Verdict(np.full(100, np.nan), np.zeros(100, np.bool_), NOTHING)
    figures = suite.figures([suite.tally(case, silent)])
    assert figures["standard"] == figures["standard_at_budget"] == 0.0
    assert figures["alarms_per_week"] == 0.0


def test_the_contenders_own_threshold_counts_its_alarms() -> None:
    """`standard_at_budget` scores the beginnings of alarms, and a case tells which windows they found."""
    suite = Nab()
    labels = [0] * 50 + [1] * 10 + [0] * 40
    tally = suite.tally(labelled_case(labels, windows=(Window(50, 59),)), said(labels))
    assert suite.figures([tally])["standard_at_budget"] == pytest.approx(100.0)
    one = suite.case_figures(tally)
    assert (one["windows"], one["windows_found"], one["stray_alarms"]) == (1.0, 1.0, 0.0)


def test_files_are_cut_after_the_probation(tmp_path: Path) -> None:
    """15 % of the rows are history; windows keep their rows; a time that comes twice still has a tick for each row."""
    write_nab(tmp_path)
    faulty, sound = (plan.make(0) for plan in Nab().plans(tmp_path, quick=False))
    probation = int(0.15 * NAB_ROWS)
    assert len(faulty.history_ticks) == probation
    assert [(one.first + probation, one.last + probation) for one in faulty.windows] == [NAB_WINDOW]
    assert faulty.interval == 300.0
    assert sound.windows == ()
    assert (np.diff(sound.test_ticks) >= 1).all()
    assert len(sound.test_ticks) == NAB_ROWS - probation


def test_a_window_beside_all_rows_is_named(tmp_path: Path) -> None:
    """A window whose edge stands at no row is refused with the file and the time."""
    write_nab(tmp_path)
    labels = tmp_path / "nab" / "labels" / "combined_windows.json"
    labels.write_text(
        '{"real/faulty.csv": [["2020-03-01 00:00:01", "2020-03-01 00:05:00"]]}', encoding="utf-8"
    )
    with pytest.raises(HistoryError, match="has no row at 2020-03-01 00:00:01"):
        Nab().plans(tmp_path, quick=False)[0].make(0)
