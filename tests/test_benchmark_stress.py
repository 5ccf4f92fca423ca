"""Laws of the stresses: they touch what they say and nothing else, by the seed alone, and nothing of a label."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.contract.errors import UsageError
from tests.tiny_benchmarks import tiny_case
from trainer.benchmark.cases import Case, Plan, Verdict
from trainer.benchmark.line import PUMPS, Line, make_line
from trainer.benchmark.losses import with_losses
from trainer.benchmark.plant import PlantSize
from trainer.benchmark.skab import Skab
from trainer.benchmark.stress import STRETCH, Stress
from trainer.faults import FAULT_KINDS

EVERYTHING = Stress(0.03, 0.1, 1)


def _changed(case: Case, other: Case, part: str) -> "np.ndarray[tuple[int, int], np.dtype[np.bool_]]":
    before, after = getattr(case, part), getattr(other, part)
    return np.asarray(~((before == after) | (np.isnan(before) & np.isnan(after))))


@settings(max_examples=30, deadline=None)
@given(share=st.floats(0.01, 0.4), seed=st.integers(0, 50))
def test_a_share_of_the_history_is_spoilt_in_stretches(share: float, seed: int) -> None:
    """As many rows as the share says are spoilt, in as few stretches as their length allows; the test part is clean."""
    case = tiny_case(history=1500)
    found = Stress(contaminated=share).apply(case, seed)
    rows = _changed(case, found, "history_values").any(axis=1)
    wanted = round(share * 1500)
    assert rows.sum() == wanted
    begun = int((np.diff(np.r_[0, rows.astype(int)]) == 1).sum())
    assert begun <= -(-wanted // STRETCH)
    assert not _changed(case, found, "test_values").any()


def test_a_spoilt_history_is_spoilt_by_deviations() -> None:
    """What is injected stands out by its size: the spoilt cells move by more than the sensors' own deviation."""
    case = tiny_case(history=1500)
    spread = case.history_values.std(axis=0)
    for seed in range(10):
        found = Stress(contaminated=0.05).apply(case, seed)
        moved = np.abs(found.history_values - case.history_values) / spread
        assert 0.5 < moved.max() < 40.0


def test_a_share_of_the_cells_is_missing() -> None:
    """About the share of the test part's cells is NaN, the others and the history are as they were."""
    case = tiny_case(test=3000)
    found = Stress(missing=0.1).apply(case, 0)
    gone = np.isnan(found.test_values)
    assert gone.mean() == pytest.approx(0.1, abs=0.01)
    np.testing.assert_array_equal(found.test_values[~gone], case.test_values[~gone])
    assert not _changed(case, found, "history_values").any()


@pytest.mark.parametrize("seed", range(6))
def test_dead_sensors_stay_dead(seed: int) -> None:
    """So many sensors hold no reading, or one and the same, from an early row to the end; rows before do not count."""
    case = tiny_case(test=1000)
    found = Stress(dead=2).apply(case, seed)
    dead = np.flatnonzero(_changed(case, found, "test_values").any(axis=0))
    assert len(dead) == 2
    first = int(np.flatnonzero(found.scored)[0])
    assert 0 < first < 100
    assert found.scored[first:].all()
    for sensor in dead:
        later = found.test_values[first:, sensor]
        assert np.isnan(later).all() or (later == later[0]).all()


def test_the_last_sensor_is_left_alive() -> None:
    """Killing all sensors of a case is refused in one line."""
    with pytest.raises(UsageError, match="--dead: is 3, and there are 3 sensors"):
        Stress(dead=3).apply(tiny_case(), 0)


def test_a_stress_is_pure_and_blind() -> None:
    """The same seed gives the same case, another seed another; labels change nothing; the clean case stays clean."""
    case = tiny_case()
    before = case.history_values.copy(), case.test_values.copy()
    first, again, other = (EVERYTHING.apply(case, seed) for seed in (1, 1, 2))
    blind = EVERYTHING.apply(replace(case, labels=1 - case.labels, windows=()), 1)
    for part in ("history_values", "test_values"):
        assert not _changed(first, again, part).any()
        assert not _changed(first, blind, part).any()
        assert _changed(first, other, part).any()
    np.testing.assert_array_equal(case.history_values, before[0])
    np.testing.assert_array_equal(case.test_values, before[1])
    for name in ("labels", "windows", "changepoints", "test_ticks", "history_ticks"):
        assert getattr(first, name) is getattr(case, name)


def test_stresses_draw_from_streams_of_their_own() -> None:
    """The cells that are lost are the same with and without a contaminated history; the plan says that seeds matter."""
    case = tiny_case()
    alone, together = Stress(missing=0.1).apply(case, 4), Stress(0.03, 0.1).apply(case, 4)
    assert not _changed(alone, together, "test_values").any()
    plan = EVERYTHING.plan(Plan("tiny", lambda seed: case))
    assert plan.drawn
    assert not _changed(plan.make(4), EVERYTHING.apply(case, 4), "test_values").any()
    assert not Stress()


def test_a_history_that_stands_still_stays_so() -> None:
    """Constant and empty sensors have no deviation to be shifted by: nothing happens to them."""
    case = tiny_case()
    still = case.history_values.copy()
    still[:, 0], still[:, 1] = 5.0, np.nan
    found = Stress(contaminated=0.1).apply(replace(case, history_values=still), 0)
    assert (found.history_values[:, 0] == 5.0).all()
    assert np.isnan(found.history_values[:, 1]).all()


def test_a_loss_is_positive_where_the_stressed_run_is_worse() -> None:
    """Of F1 what is missing is lost, of a false alarm rate what was added; what is not defined has no loss."""
    suite = Skab()

    def record(f1: float, far: float) -> dict[str, object]:
        figures: dict[str, object] = dict.fromkeys(suite.keys, 0.5) | {"f1": f1, "far": far, "mar": None}
        return {**figures, "spread": {}, "floors": {"clock": figures}}

    found = with_losses(suite, Stress(dead=1), record(0.7, 0.3), record(0.8, 0.1))
    assert found["loss_f1"] == pytest.approx(0.1)
    assert found["loss_far"] == pytest.approx(0.2)
    assert found["loss_mar"] is None
    assert found["clean"]["f1"] == 0.8
    assert found["floors"]["clock"]["loss_f1"] == pytest.approx(0.1)
    assert found["stress"] == {"contaminated": 0.0, "missing": 0.0, "dead": 1}


@pytest.fixture(scope="module")
def line() -> Case:
    """A short line."""
    return make_line(PlantSize(0.02, 0.4, 1), 0)


def test_a_line_is_five_pumps_with_one_fault_at_a_time(line: Case) -> None:
    """50 sensors with names of their own, every kind of fault once, each blamed on sensors of a single pump."""
    assert len(line.sensors) == len(set(line.sensors)) == 10 * PUMPS
    assert line.test_values.shape[1] == 50
    assert sorted(window.kind for window in line.windows) == sorted(FAULT_KINDS)
    for window in line.windows:
        assert set(window.blamed) <= set(line.sensors)
        assert len({name.split("_")[0] for name in window.blamed}) == 1
        assert line.labels[window.first : window.last + 1].all()
    pumps = [line.test_values[:, 10 * pump] for pump in range(PUMPS)]
    assert all(not np.array_equal(pumps[0], other) for other in pumps[1:])


def test_the_false_alarm_rate_of_a_line_is_its_normal_time_in_alarm(line: Case) -> None:
    """`far` counts normal rows alone, and rows before the sensors died count for nothing."""
    dead = Stress(dead=3).apply(line, 0)
    first = int(np.flatnonzero(dead.scored)[0])
    alarm = np.zeros(len(line.labels), np.bool_)
    alarm[:first] = True
    suite = Line()
    before, clean = (
        suite.figures([suite.tally(case, Verdict(alarm.astype(np.float64), alarm, np.array([0])))])
        for case in (dead, line)
    )
    assert set(before) == set(suite.keys)
    assert before["far"] == 0.0
    assert clean["far"] is not None and clean["far"] > 0.0
