"""Laws of the SMAP and MSL protocol: sequences match when they overlap, and an endless alarm wins only on paper."""

from pathlib import Path

import numpy as np
import pytest

from edge_agent.contract.errors import HistoryError
from tests.tiny_benchmarks import SMAP_ROWS, labelled_case, said, write_smap
from trainer.benchmark.cases import Window
from trainer.benchmark.smap import DAY_TICKS, Smap

LABELS = [0, 0, 1, 1, 0, 0, 1, 1, 0, 0]
WINDOWS = (Window(2, 3), Window(6, 7))


def _figures(alarm: list[int]) -> dict[str, float | None]:
    suite = Smap()
    return suite.figures([suite.tally(labelled_case(LABELS, windows=WINDOWS), said(alarm))])


def test_sequences_match_by_overlap() -> None:
    """One row in a sequence finds it once, two alarms in it find it once, and an alarm beside all is a false one."""
    figures = _figures([1, 0, 1, 0, 0, 1, 0, 0, 0, 0])
    assert figures["sequence_precision"] == pytest.approx(1 / 3)
    assert figures["sequence_recall"] == pytest.approx(1 / 2)
    assert figures["sequence_f1"] == pytest.approx(2 / (2 + 2 + 1))
    assert figures["normal_in_alarm_ratio"] == pytest.approx(2 / 6)
    assert figures["false_alarms_per_week"] == pytest.approx(2 / (6 / (7 * 24 * 60)))


def test_an_endless_alarm_is_perfect_only_by_sequences() -> None:
    """An alarm that covers everything has a sequence F1 of 1 and every normal row in alarm."""
    figures = _figures([1] * 10)
    assert figures["sequence_f1"] == 1.0
    assert figures["normal_in_alarm_ratio"] == 1.0


def test_silence_has_no_precision() -> None:
    """Without an alarm precision is not defined, recall is 0."""
    figures = _figures([0] * 10)
    assert figures["sequence_precision"] is None
    assert figures["sequence_recall"] == 0.0


def test_channels_are_read_with_the_sequences_of_all_their_lines(tmp_path: Path) -> None:
    """A channel named twice is one case with both sequences; only the telemetry is read, its test part a day later."""
    write_smap(tmp_path)
    first, second = (plan.make(0) for plan in Smap().plans(tmp_path, quick=False))
    assert first.history_values.shape == (SMAP_ROWS[0], 1)
    assert first.test_values.shape == (SMAP_ROWS[1], 1)
    assert first.test_ticks[0] == first.history_ticks[-1] + 1 + DAY_TICKS
    assert [(one.first, one.last) for one in second.windows] == [(200, 229), (205, 235)]
    assert np.flatnonzero(second.labels).tolist() == list(range(200, 236))


def test_a_broken_list_of_labels_is_named(tmp_path: Path) -> None:
    """A list without the column of sequences is refused with its path."""
    write_smap(tmp_path)
    path = tmp_path / "smap_msl" / "labeled_anomalies.csv"
    path.write_text("chan_id\nA-1\n", encoding="utf-8")
    with pytest.raises(HistoryError, match=r"labeled_anomalies\.csv"):
        Smap().plans(tmp_path, quick=False)
