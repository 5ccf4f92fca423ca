"""Laws of the SKAB protocol: pooled counts, changepoints on the scale of null and perfect, 400 rows of the source."""

import os
from pathlib import Path

import numpy as np
import pytest

from edge_agent.contract.errors import HistoryError
from tests.tiny_benchmarks import SKAB_FAULT, SKAB_GAP, SKAB_ROWS, labelled_case, said, write_skab
from trainer.benchmark.changepoints import PROFILES, changepoint_score, normalised, windows_after
from trainer.benchmark.floors import AllPositive
from trainer.benchmark.skab import TRAINING_ROWS, Skab

DATA = os.environ.get("FOREWARN_DATA")


def test_counts_are_pooled_over_files() -> None:
    """F1, FAR and MAR come from the summed counts, not from means over files."""
    suite = Skab()
    tallies = [
        suite.tally(labelled_case([0, 0, 1, 1]), said([0, 1, 1, 1])),
        suite.tally(labelled_case([0, 0, 0, 0, 1, 0]), said([0, 0, 0, 0, 0, 1])),
    ]
    figures = suite.figures(tallies)
    assert figures["f1"] == pytest.approx(2 / (2 + (2 + 1) / 2))
    assert figures["far"] == pytest.approx(2 / 7)
    assert figures["mar"] == pytest.approx(1 / 3)
    assert figures["far_before_event"] == pytest.approx(1 / 6)


def test_rankings_are_means_over_files_that_have_both_kinds_of_rows() -> None:
    """A file without a labelled row has no ROC-AUC and does not count for it."""
    suite = Skab()
    tallies = [
        suite.tally(labelled_case([0, 1]), said([0, 1])),
        suite.tally(labelled_case([0, 1]), said([1, 0])),
        suite.tally(labelled_case([0, 0]), said([1, 0])),
    ]
    assert suite.figures(tallies)["roc_auc"] == 0.5
    assert suite.case_figures(tallies[2])["roc_auc"] is None


@pytest.mark.parametrize("name", PROFILES)
def test_changepoints_are_scored_between_null_and_perfect(name: str) -> None:
    """No detection at all is 0, one at each changepoint 100, and one at a window's right edge costs a stray one."""
    profile, windows = PROFILES[name], windows_after([100.0, 300.0])
    scores = {
        key: normalised(changepoint_score(windows, np.array(times), profile), 2, profile)
        for key, times in {"null": [], "perfect": [100.0, 300.0], "late": [160.0, 360.0]}.items()
    }
    assert scores["null"] == 0.0
    assert scores["perfect"] == pytest.approx(100.0)
    expected = (-profile.stray + profile.missed) / (1.0 + profile.missed)
    assert scores["late"] == pytest.approx(100.0 * expected)


def test_stray_detections_cost_and_repeated_ones_do_not() -> None:
    """Each detection outside of every window costs .11; a second one inside a window costs and earns nothing."""
    profile = PROFILES["changepoint_nab"]
    windows = windows_after([100.0])
    assert changepoint_score(windows, np.array([100.0, 130.0]), profile) == pytest.approx(1.0)
    assert changepoint_score(windows, np.array([99.0, 100.0, 161.0]), profile) == pytest.approx(1.0 - 0.22)
    middle = changepoint_score(windows, np.array([130.0]), profile)
    assert middle == pytest.approx((1.0 - 0.11) / 2.0)


def test_a_window_that_overlaps_the_one_before_is_cut_on_its_left() -> None:
    """Of two changepoints four seconds apart the second keeps the four seconds after the first one's window."""
    assert windows_after([10.0, 14.0]) == [(10.0, 70.0), (70.0, 74.0)]


def test_both_edges_of_an_alarm_are_detections() -> None:
    """An alarm that covers the fault exactly finds the changepoints at its beginning and its end."""
    labels = [0] * 100 + [1] * 100 + [0] * 100
    suite = Skab()
    figures = suite.figures([suite.tally(labelled_case(labels, (100, 200)), said(labels))])
    assert [figures[name] for name in PROFILES] == [pytest.approx(100.0)] * 3


def test_a_file_is_cut_at_400_rows_of_the_source(tmp_path: Path) -> None:
    """The history is 400 rows whatever time they span; a gap has no rows, and later ticks keep their time."""
    write_skab(tmp_path)
    first, second = (plan.make(0) for plan in Skab().plans(tmp_path, quick=False))
    assert [first.name, second.name] == ["valve1/0", "other/1"]
    assert len(first.history_ticks) == TRAINING_ROWS == 400
    assert len(first.labels) == SKAB_ROWS - TRAINING_ROWS
    assert first.scored.all()
    assert np.flatnonzero(np.diff(first.test_ticks) != 1).tolist() == [SKAB_GAP - TRAINING_ROWS - 1]
    faulty = np.flatnonzero(first.labels) + TRAINING_ROWS
    assert (faulty[0], faulty[-1] + 1) == SKAB_FAULT
    start = first.history_ticks[0]
    assert [tick - start for tick in first.changepoints] == [row + 3 for row in SKAB_FAULT]


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    """Without its folder the set refuses with the path."""
    with pytest.raises(HistoryError, match="skab: no such folder"):
        Skab().plans(tmp_path, quick=False)


def test_flagging_every_row_scores_what_the_share_of_labels_says(tmp_path: Path) -> None:
    """All-positive has F1 = 2p / (1 + p) and a FAR of 1; on the public files that is .698."""
    if not DATA:
        write_skab(tmp_path)
    suite = Skab()
    cases = [plan.make(0) for plan in suite.plans(Path(DATA) if DATA else tmp_path, quick=False)]
    figures = suite.figures([suite.tally(case, AllPositive().judge(case, 0)) for case in cases])
    share = np.concatenate([case.labels for case in cases]).mean()
    assert figures["f1"] == pytest.approx(2 * share / (1 + share))
    assert figures["far"] == 1.0
    if DATA:
        assert figures["f1"] == pytest.approx(0.698, abs=5e-4)
        assert sum(len(case.labels) for case in cases) == 23_801
