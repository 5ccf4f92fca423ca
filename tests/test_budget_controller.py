"""Laws of the budget controller: bounded, still at the rate of the budget, and nothing is learnt in an alarm."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.contract.budget_controller import (
    LEAST,
    MOST,
    SLACK,
    TOGETHER_SECONDS,
    BudgetController,
    BudgetState,
)
from edge_agent.contract.tail import WEEK_SECONDS
from edge_agent.contract.types import Bool

INTERVAL = 1800.0
WEEK = round(WEEK_SECONDS / INTERVAL)
ONE = np.array([0])


def _run(state: BudgetState, started: Bool, quiet: Bool, budget: float = 1.0, first: int = 0) -> list[float]:
    """Feed samples of one asset and return the factor after each."""
    controller = BudgetController(budget, INTERVAL)
    factors = []
    for row, (begun, calm) in enumerate(zip(started, quiet, strict=True)):
        time = np.array([(first + row) * INTERVAL])
        controller.follow(state, ONE, time, np.array([begun]), np.array([calm]))
        factors.append(float(controller.factor(state, ONE)[0]))
    return factors


def _alarms(rows: int, every: int) -> tuple[Bool, Bool]:
    started = np.arange(rows) % every == every - 1
    return started, ~started


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=200), st.floats(0.1, 100.0))
def test_the_factor_is_bounded(samples: list[tuple[bool, bool]], budget: float) -> None:
    """Whatever happens, the factor stays between its bounds."""
    table = np.array(samples, np.bool_)
    factors = _run(BudgetState.zero(1), table[:, 0], table[:, 1] & ~table[:, 0], budget)
    assert all(LEAST - 1e-12 <= factor <= MOST + 1e-12 for factor in factors)


@pytest.mark.parametrize("budget", [0.5, 1.0, 5.0])
def test_at_the_rate_of_the_budget_nothing_moves(budget: float) -> None:
    """Alarms as often as the budget allows leave the threshold where it is, for a year."""
    started, quiet = _alarms(52 * WEEK, round(WEEK / budget))
    assert set(_run(BudgetState.zero(1), started, quiet, budget)) == {1.0}


def test_too_many_alarms_raise_it_and_quiet_brings_it_back() -> None:
    """Two alarms a day raise the factor to its upper bound within a month; quiet months lower it to the lower one."""
    state = BudgetState.zero(1)
    factors = _run(state, *_alarms(4 * WEEK, 24))
    assert factors[-1] == pytest.approx(MOST)
    assert factors == sorted(factors) or min(factors) >= 1.0
    quiet = np.ones(30 * WEEK, np.bool_)
    after = _run(state, ~quiet, quiet, first=4 * WEEK)
    assert all(later <= earlier for earlier, later in pairwise(after))
    assert LEAST <= after[-1] < 1.0


def test_nothing_is_learnt_inside_an_alarm() -> None:
    """From the start of an alarm to its end, however long, the state stands still."""
    state = BudgetState.zero(1)
    _run(state, *_alarms(4 * WEEK, 24))
    before = (state.surplus.copy(), state.gain.copy())
    nothing = np.zeros(8 * WEEK, np.bool_)
    _run(state, nothing, nothing, first=4 * WEEK)
    np.testing.assert_array_equal((state.surplus, state.gain), before)


def test_a_forgiven_alarm_leaves_no_trace() -> None:
    """An alarm marked as a true fault, even weeks later, leaves the state of a life without it; once is enough."""
    quiet = np.ones(6 * WEEK, np.bool_)
    started, calm = np.zeros_like(quiet), quiet.copy()
    started[500], calm[500] = True, False
    faulty, sound = BudgetState.zero(1), BudgetState.zero(1)
    _run(faulty, started, calm)
    _run(sound, np.zeros_like(quiet), calm)
    assert faulty.surplus[0] > sound.surplus[0]
    controller = BudgetController(1.0, INTERVAL)
    for _ in range(2):
        controller.forgive(faulty, ONE)
        np.testing.assert_allclose(faulty.surplus, sound.surplus, atol=1e-9)


def test_alarms_that_follow_one_another_count_as_one() -> None:
    """A fault that opens an alarm every half hour is one alarm; slack and all, it moves nothing."""
    state = BudgetState.zero(1)
    started, quiet = np.ones(48, np.bool_), np.zeros(48, np.bool_)
    assert _run(state, started, quiet)[-1] == 1.0
    assert state.surplus[0] == 1.0 < SLACK
    assert TOGETHER_SECONDS > INTERVAL


def test_assets_do_not_touch_each_other() -> None:
    """An asset fed together with others ends as it does alone."""
    rng = np.random.default_rng(0)
    started = rng.random((500, 3)) < np.array([0.001, 0.02, 0.2])
    together, controller = BudgetState.zero(3), BudgetController(1.0, INTERVAL)
    for row in range(len(started)):
        time = np.full(3, row * INTERVAL)
        controller.follow(together, np.arange(3), time, started[row], ~started[row])
    for asset in range(3):
        alone = BudgetState.zero(1)
        _run(alone, started[:, asset], ~started[:, asset])
        assert alone.surplus[0] == together.surplus[asset]


def test_an_alarm_that_no_factor_could_keep_away_moves_nothing() -> None:
    """What rises beyond the controller's reach gives back what it added; what stays within keeps it."""
    controller = BudgetController(1.0, INTERVAL)
    for ratio, kept in ((MOST, 0.0), (0.99 * MOST, 1.0)):
        state = BudgetState.zero(1)
        controller.follow(state, ONE, np.array([0.0]), np.array([True]), np.array([False]))
        for _ in range(3):
            controller.let_pass(state, ONE, np.array([True]), np.array([ratio]))
        assert state.surplus.tolist() == [kept]
        controller.let_pass(state, ONE, np.array([False]), np.array([2.0 * MOST]))
        assert state.surplus.tolist() == [kept]
