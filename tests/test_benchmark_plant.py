"""Laws of the simulated plants: what counts as normal, as found and as blamed, and how sure a rate is."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import chi2

from tests.tiny_benchmarks import labelled_case
from trainer.benchmark.cases import Case, SensorReport, Verdict, Window
from trainer.benchmark.plant import RECOVERY_HOURS, Plant, PlantSize, make_plant
from trainer.benchmark.poisson import poisson_interval
from trainer.faults import FAULT_KINDS

SIZE = PlantSize(0.1, 0.8, 1)
ROWS_OF_RECOVERY = round(RECOVERY_HOURS * 60)


@pytest.mark.parametrize("count", [0, 1, 7, 250])
def test_the_interval_of_a_count_is_the_exact_one(count: int) -> None:
    """The limits are those of the chi-squared distribution, as Garwood gave them."""
    low, high = poisson_interval(count)
    assert low == pytest.approx(chi2.ppf(0.025, 2 * count) / 2.0 if count else 0.0, rel=1e-6)
    assert high == pytest.approx(chi2.ppf(0.975, 2 * count + 2) / 2.0, rel=1e-6)


@pytest.fixture(scope="module")
def stationary() -> Case:
    """A plant that does not drift."""
    return make_plant("stationary", SIZE, 0)


def test_every_kind_of_fault_comes_and_its_recovery_counts_for_nothing(stationary: Case) -> None:
    """Each kind has a window with its label and its sensors; the hours after it are not scored; history is sound."""
    case = stationary
    assert sorted(window.kind for window in case.windows) == sorted(FAULT_KINDS)
    for window in case.windows:
        assert case.labels[window.first : window.last + 1].all()
        assert set(window.blamed) <= set(case.sensors)
        after = slice(window.last + 1, window.last + 1 + ROWS_OF_RECOVERY)
        assert not case.scored[after].any()
        assert not case.labels[after].any()
    assert case.scored[case.labels > 0].all()
    assert case.history_ticks[-1] + 1 == case.test_ticks[0]


def test_a_drifting_plant_is_the_stationary_one_that_wanders(stationary: Case) -> None:
    """The variants differ by a walk that is slow from minute to minute, and stands still during a fault."""
    still, drifting = stationary, make_plant("drifting", SIZE, 0)
    walk = drifting.test_values - still.test_values
    assert np.nanmax(np.abs(walk)) > 0.0
    assert np.nanstd(np.diff(walk, axis=0)) < 0.1 * np.nanstd(walk)
    window = still.windows[0]
    steps = np.diff(walk[window.first : window.last + 1].astype(np.float64), axis=0)
    assert np.nanmax(np.abs(steps)) < 1e-3


def test_an_alarm_that_hangs_from_before_finds_nothing() -> None:
    """A fault is found by an alarm that begins in it; one that began in normal operation is false, and time counts."""
    labels = [0] * 10 + [1] * 5 + [0] * 10 + [1] * 5
    windows = (Window(10, 14, "leak", ("a",)), Window(25, 29, "spikes", ("b",)))
    case = labelled_case(labels, windows=windows)
    alarm = np.array([0] * 8 + [1] * 10 + [0] * 9 + [1] * 3, np.bool_)
    named = (("a", "b"), ("c", "d", "b"))
    tally = Plant().tally(case, Verdict(alarm.astype(np.float64), alarm, np.array([8, 27]), named))
    assert (tally.false, tally.rows, tally.alarmed) == (1, 20, 5)
    assert dict(tally.found) == {"spikes": 1}
    assert (tally.named, tally.named_among_three) == (0, 1)


def test_a_dead_sensor_is_found_by_an_event_that_names_it_and_a_sick_machine_is_not() -> None:
    """A data-quality event finds a fault of the sensor that it names, and no other; in normal operation it is false."""
    labels = [0] * 10 + [1] * 5 + [0] * 5 + [1] * 5 + [0] * 5 + [1] * 5
    windows = (
        Window(10, 14, "sensor_loss", ("a",)),
        Window(20, 24, "sensor_freeze", ("b",)),
        Window(30, 34, "leak", ("a",)),
    )
    case = labelled_case(labels, windows=windows)
    silent = np.zeros(len(labels), np.bool_)
    reports = tuple(
        SensorReport(row, sensor, "stale") for row, sensor in ((3, "b"), (12, "a"), (22, "a"), (32, "a"))
    )
    verdict = Verdict(silent.astype(np.float64), silent, np.empty(0, np.int64), (), quality=reports)
    tally = Plant().tally(case, verdict)
    assert dict(tally.found) == {"sensor_loss": 1}
    assert not tally.alarmed_faults
    assert (tally.named, tally.named_among_three, tally.false_quality) == (1, 1, 1)
    figures = Plant().case_figures(tally)
    assert figures["event_recall"] == pytest.approx(1 / 3)
    assert figures["alarm_recall"] == 0.0
    assert figures["top1_sensor"] == 1.0
    assert figures["false_quality_events_per_week"] == pytest.approx(1 / tally.weeks)


def test_rates_of_the_variants_stay_apart() -> None:
    """The keys without a prefix are the stationary plants', and what no contender names is not defined."""
    suite = Plant()
    case = labelled_case([0] * 20 + [1] * 5, windows=(Window(20, 24, "leak", ("x",)),))
    alarm = np.array([0] * 22 + [1] * 3, np.bool_)
    tally = suite.tally(case, Verdict(alarm.astype(np.float64), alarm, np.array([22])))
    figures = suite.figures([replace(tally, variant="stationary"), replace(tally, variant="stationary")])
    assert set(figures) == set(suite.keys)
    assert (figures["event_recall"], figures["budget_ratio"], figures["top1_sensor"]) == (1.0, 0.0, None)
    assert figures["drifting_event_recall"] is None
    pooled = suite.pooled([replace(tally, variant="drifting")])
    assert pooled["drifting"]["event_recall_by_kind"] == {"leak": 1.0}
    assert pooled["stationary"]["budget_ratio_interval"] is None
