"""Laws of range-based precision, recall and F1."""

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.sequences import rows, series
from trainer.range_metrics import range_figures

FAULT = "..####..##"
ALARM = ".##.#...#."


def test_ranges_earn_what_is_counted_by_hand() -> None:
    """Each range earns its share of rows over the number of ranges that it meets; the figures are the means."""
    figures = range_figures(rows(FAULT, ALARM))
    # Fault 1: 2 of 4 rows, in two pieces; fault 2: 1 of 2 rows. Alarms: 1 of 2, 1 of 1, 1 of 1.
    recall, precision = (2 / 4 / 2 + 1 / 2) / 2, (1 / 2 + 1 + 1) / 3
    assert figures["range_recall"] == pytest.approx(recall)
    assert figures["range_precision"] == pytest.approx(precision)
    assert figures["range_f1"] == pytest.approx(2 * precision * recall / (precision + recall))


def test_existence_counts_as_much_as_it_is_told() -> None:
    """With α the recall mixes being found at all with how much was found; at 1 only being found counts."""
    half = range_figures(rows(FAULT, ALARM), existence_weight=0.5)
    assert half["range_recall"] == pytest.approx((0.5 + 0.5 * 1 / 4 + 0.5 + 0.5 * 1 / 2) / 2)
    assert range_figures(rows(FAULT, ALARM), existence_weight=1.0)["range_recall"] == 1.0


def test_an_alarm_that_never_stops_earns_its_share_over_the_faults_in_it() -> None:
    """The floor: recall 1, and as precision the share of faulty rows over the number of faults."""
    figures = range_figures(rows(FAULT, "#" * 10))
    assert figures["range_recall"] == 1.0
    assert figures["range_precision"] == pytest.approx(6 / 10 / 2)


def test_without_an_alarm_or_a_fault_what_is_undefined_is_none() -> None:
    """No alarm: no precision, but a recall and F1 of 0. No fault: no recall and no F1. Neither: nothing."""
    assert list(range_figures(rows("##..", "....")).values()) == [None, 0.0, 0.0]
    assert list(range_figures(rows("....", "##..")).values()) == [0.0, None, None]
    assert list(range_figures(rows("....", "....")).values()) == [None, None, None]
    assert list(range_figures(rows("", "")).values()) == [None, None, None]


@settings(deadline=None)
@given(series(), st.floats(0, 1))
def test_figures_lie_between_0_and_1_either_way_round(case: tuple[str, str], weight: float) -> None:
    """Every figure is a ratio, and is the same when time runs backwards."""
    figures = range_figures(rows(*case), weight)
    assert all(value is None or 0 <= value <= 1 for value in figures.values())
    backwards = range_figures(rows(case[0][::-1], case[1][::-1]), weight)
    assert backwards == pytest.approx(figures)


@settings(deadline=None)
@given(series())
def test_a_perfect_alarm_earns_1(case: tuple[str, str]) -> None:
    """An alarm during the faults and at no other time has a precision, recall and F1 of 1."""
    assume("#" in case[0])
    assert list(range_figures(rows(case[0], case[0])).values()) == [1.0, 1.0, 1.0]


@settings(deadline=None)
@given(series())
def test_precision_and_recall_change_places_with_faults_and_alarms(case: tuple[str, str]) -> None:
    """What is precision for one is recall for the other, and F1 does not care."""
    fault, alarm = case
    assume("#" in fault and "#" in alarm)
    there, back = range_figures(rows(fault, alarm)), range_figures(rows(alarm, fault))
    assert there["range_precision"] == pytest.approx(back["range_recall"])
    assert there["range_f1"] == pytest.approx(back["range_f1"])


def test_a_longer_alarm_inside_a_fault_earns_more() -> None:
    """While one alarm grows within its fault recall grows and precision stays 1; cut in two, it earns half."""
    grown = [
        range_figures(rows("..######..", "..".ljust(2 + size, "#").ljust(10, "."))) for size in range(1, 7)
    ]
    recalls = [figures["range_recall"] or 0.0 for figures in grown]
    assert recalls == pytest.approx([size / 6 for size in range(1, 7)])
    assert {figures["range_precision"] for figures in grown} == {1.0}
    assert range_figures(rows("..######..", "..##.#....."[:10]))["range_recall"] == pytest.approx(
        recalls[2] / 2
    )


@settings(deadline=None)
@given(series(), series())
def test_assets_are_pooled_range_by_range(one: tuple[str, str], two: tuple[str, str]) -> None:
    """Over two assets each figure is the mean over the ranges of both."""
    pooled = range_figures(rows(f"{one[0]}|{two[0]}", f"{one[1]}|{two[1]}"))
    parts = [rows(*one), rows(*two)]
    for key, counts in (
        ("range_recall", [len(part.faults) for part in parts]),
        ("range_precision", [len(part.alarms) for part in parts]),
    ):
        apart = [range_figures(part)[key] or 0.0 for part in parts]
        total = sum(counts)
        assert pooled[key] == (
            pytest.approx(sum(count * value for count, value in zip(counts, apart, strict=True)) / total)
            if total
            else None
        )
