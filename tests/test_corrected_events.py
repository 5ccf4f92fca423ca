"""Laws of the corrected event-wise F0.5."""

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.sequences import rows, series
from trainer.corrected_events import corrected_event_f_score


def test_events_are_counted_and_corrected_by_hand() -> None:
    """Faults found over them and false alarms, times the share of quiet nominal rows, against faults found of all."""
    #                 1 of 2 faults, 1 false alarm beside 2 hits; nominal rows in alarm: 2 and 1 of 7
    judged = rows("..###....##.", ".##.#..##...")
    precision, recall = 1 / 2 * (1 - 3 / 7), 1 / 2
    assert corrected_event_f_score(judged) == pytest.approx(
        1.25 * precision * recall / (0.25 * precision + recall)
    )
    assert corrected_event_f_score(judged, beta=1.0) == pytest.approx(
        2 * precision * recall / (precision + recall)
    )


def test_an_alarm_that_never_stops_earns_nothing() -> None:
    """The floor: without a quiet nominal row the precision is 0 though every event is found."""
    assert corrected_event_f_score(rows("..###....##.", "#" * 12)) == 0.0


def test_each_disturbed_row_costs() -> None:
    """Where every fault is found and no event is false, the corrected precision is the share of quiet nominal rows."""
    fault = "." * 45 + "#" * 10 + "." * 45
    for length in (0, 9, 45):
        alarm = "." * (45 - length) + "#" * (10 + length) + "." * 45
        precision = 1 - length / 90
        assert corrected_event_f_score(rows(fault, alarm)) == pytest.approx(
            1.25 * precision / (0.25 * precision + 1)
        )


def test_without_a_fault_or_a_nominal_row_it_is_none() -> None:
    """No fault, or no nominal row: undefined. Faults and no alarm: 0."""
    assert corrected_event_f_score(rows("....", "#...")) is None
    assert corrected_event_f_score(rows("####", "#...")) is None
    assert corrected_event_f_score(rows("", "")) is None
    assert corrected_event_f_score(rows("##..", "....")) == 0.0


@settings(deadline=None)
@given(series())
def test_it_lies_between_0_and_1_either_way_round_and_perfect_is_1(case: tuple[str, str]) -> None:
    """A ratio, the same when time runs backwards, and 1 for an alarm during the faults alone."""
    fault, alarm = case
    assume("#" in fault and "." in fault)
    found = corrected_event_f_score(rows(fault, alarm))
    assert found is not None
    assert 0 <= found <= 1
    assert corrected_event_f_score(rows(fault[::-1], alarm[::-1])) == pytest.approx(found)
    assert corrected_event_f_score(rows(fault, fault)) == 1.0


@settings(deadline=None)
@given(series(), st.integers(1, 5))
def test_a_further_false_alarm_costs(case: tuple[str, str], length: int) -> None:
    """A false alarm apart from all others lowers the figure, and a longer one lowers it further."""
    fault, alarm = f"{case[0]}.......", case[1]
    found = [
        corrected_event_f_score(rows(fault, f"{alarm}.{'#' * size}".ljust(len(fault), ".")))
        for size in (0, length, length + 1)
    ]
    assume(found[0])
    assert found[0] is not None and found[1] is not None and found[2] is not None
    assert found[0] > found[1] > found[2]


def test_assets_are_pooled_event_by_event() -> None:
    """Over two assets the events and the nominal rows of both are counted together, and none reaches over the end."""
    pooled = rows("..##|..##", "...#|##..")
    precision, recall = 1 / 2 * (1 - 2 / 4), 1 / 2
    assert corrected_event_f_score(pooled) == pytest.approx(
        1.25 * precision * recall / (0.25 * precision + recall)
    )
