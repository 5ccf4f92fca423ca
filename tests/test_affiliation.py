"""Laws of affiliation precision, recall and F1."""

import itertools

import numpy as np
import pytest
from hypothesis import assume, given, settings

from edge_agent.contract.types import Float64
from tests.sequences import rows, series
from trainer.affiliation import affiliation_figures


def test_one_zone_is_as_integrated_by_hand() -> None:
    """An alarm on the first of ten rows, a fault on the last five: both probabilities integrated on paper."""
    figures = affiliation_figures(rows(".....#####", "#........."))
    # An alarm point x is 5 - x from the fault, and so far or farther is the share x/10 of the zone: mean over [0, 1].
    assert figures["affiliation_precision"] == pytest.approx(0.05)
    # A fault point y is y - 1 from the alarm: [0, 1] is as far, and [2y - 1, 10] while y is under 5.5.
    assert figures["affiliation_recall"] == pytest.approx((0.1 * 5 + 0.025) / 5)


def test_zones_meet_half_way() -> None:
    """Each alarm is judged by the fault that it is nearest to, cut at the middle between two faults."""
    whole = affiliation_figures(rows("##........##", "..########.."))
    half = affiliation_figures(rows("##....", "..####"))
    assert whole == pytest.approx(half)


def test_an_alarm_that_never_stops_is_no_better_than_chance() -> None:
    """The floor: recall 1, precision (1 + q²)/2 where q is the share of the zone that is faulty, so F1 above 2/3."""
    figures = affiliation_figures(rows("....##.... ......#...".replace(" ", ""), "#" * 20))
    zones = [(2, (6 + 16) / 2), (1, 20 - 11)]
    expected = np.mean([(1 + (fault / zone) ** 2) / 2 for fault, zone in zones])
    assert figures["affiliation_recall"] == pytest.approx(1.0)
    assert figures["affiliation_precision"] == pytest.approx(expected)
    assert (figures["affiliation_f1"] or 0.0) > 2 / 3


def test_alarms_at_random_have_a_precision_of_a_half() -> None:
    """Chance: the precision of alarms at random places is close to 1/2."""
    rng = np.random.default_rng(0)
    fault = ("." * 495 + "#" * 10 + "." * 495) * 20
    alarm = "".join(np.where(rng.random(len(fault)) < 0.05, "#", "."))
    assert affiliation_figures(rows(fault, alarm))["affiliation_precision"] == pytest.approx(0.5, abs=0.03)


def test_without_an_alarm_or_a_fault_what_is_undefined_is_none() -> None:
    """No alarm: no precision, but a recall and F1 of 0. No fault: no zone, so nothing."""
    assert list(affiliation_figures(rows("##..", "....")).values()) == [None, 0.0, 0.0]
    assert list(affiliation_figures(rows("....", "##..")).values()) == [None, None, None]
    assert list(affiliation_figures(rows("", "")).values()) == [None, None, None]


def test_a_zone_without_an_alarm_is_a_miss_and_no_matter_of_precision() -> None:
    """Only zones with an alarm have a precision; a fault without one has a recall of 0."""
    figures = affiliation_figures(rows("..##......##..", "..##.........."))
    assert (figures["affiliation_precision"], figures["affiliation_recall"]) == (1.0, 0.5)


@settings(deadline=None)
@given(series())
def test_figures_lie_between_0_and_1_either_way_round(case: tuple[str, str]) -> None:
    """Every figure is a ratio, and is the same when time runs backwards."""
    figures = affiliation_figures(rows(*case))
    assert all(value is None or 0 <= value <= 1 for value in figures.values())
    assert affiliation_figures(rows(case[0][::-1], case[1][::-1])) == pytest.approx(figures)


@settings(deadline=None)
@given(series())
def test_a_perfect_alarm_earns_1(case: tuple[str, str]) -> None:
    """An alarm during the faults and at no other time has a precision, recall and F1 of 1."""
    assume("#" in case[0])
    assert list(affiliation_figures(rows(case[0], case[0])).values()) == pytest.approx([1.0, 1.0, 1.0])


def test_farther_is_worse() -> None:
    """An alarm that moves away from its fault loses precision and recall with every row."""
    found = [
        affiliation_figures(rows("#".rjust(21, ".").ljust(41, "."), "#".rjust(21 + away, ".").ljust(41, ".")))
        for away in range(20)
    ]
    for key in ("affiliation_precision", "affiliation_recall", "affiliation_f1"):
        values = [figures[key] or 0.0 for figures in found]
        assert all(later < earlier for earlier, later in itertools.pairwise(values))


@settings(deadline=None, max_examples=60)
@given(series(16))
def test_integrals_are_the_means_over_many_points(case: tuple[str, str]) -> None:
    """Precision and recall are what the definition gives, point by point, on a fine grid."""
    fault, alarm = case
    assume("#" in fault and "#" in alarm)
    figures = affiliation_figures(rows(fault, alarm))
    precision, recall = _by_points(fault, alarm, 20)
    assert figures["affiliation_precision"] == pytest.approx(precision, abs=0.06)
    assert figures["affiliation_recall"] == pytest.approx(recall, abs=0.06)


def _by_points(fault: str, alarm: str, fineness: int) -> tuple[float, float]:
    """Return precision and recall by their definition on points, each row cut into so many."""
    judged = rows(fault, alarm)
    points = (np.arange(len(fault) * fineness) + 0.5) / fineness
    row = points.astype(np.int64)
    ranges = judged.faults.astype(np.float64)
    distances = np.array([np.maximum(np.maximum(a - points, points - b), 0.0) for a, b in ranges])
    owner = distances.argmin(axis=0)
    precisions, recalls = [], []
    for number in range(len(ranges)):
        zone = points[owner == number]
        own = distances[number]
        alarms = points[(owner == number) & judged.alarm[row]]
        if not len(alarms):
            recalls.append(0.0)
            continue
        own_zone, own_alarms = own[owner == number], own[np.isin(points, alarms)]
        precisions.append(float(np.mean([np.mean(own_zone >= distance) for distance in own_alarms])))
        faulty = points[own == 0.0]
        recalls.append(float(np.mean([_as_far(zone, y, float(np.abs(alarms - y).min())) for y in faulty])))
    return float(np.mean(precisions)), float(np.mean(recalls))


def _as_far(zone: Float64, point: float, distance: float) -> float:
    return float(np.mean(np.abs(zone - point) >= distance - 1e-9))


@settings(deadline=None)
@given(series(), series())
def test_assets_are_pooled_zone_by_zone(one: tuple[str, str], two: tuple[str, str]) -> None:
    """Over two assets recall is the mean over the faults of both, and two assets alike have the figures of one."""
    alike = affiliation_figures(rows(f"{one[0]}|{one[0]}", f"{one[1]}|{one[1]}"))
    assert alike == pytest.approx(affiliation_figures(rows(*one)))
    pooled = affiliation_figures(rows(f"{one[0]}|{two[0]}", f"{one[1]}|{two[1]}"))
    parts = [rows(*one), rows(*two)]
    counts = [len(part.faults) for part in parts]
    apart = [affiliation_figures(part)["affiliation_recall"] or 0.0 for part in parts]
    total = sum(counts)
    assert pooled["affiliation_recall"] == (
        pytest.approx(sum(count * value for count, value in zip(counts, apart, strict=True)) / total)
        if total
        else None
    )
