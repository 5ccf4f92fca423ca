"""Laws of what is usual of late: streaming equals the history's way, and a few strange blocks move nothing."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.contract.trailing import (
    BLOCKS,
    LEAST_BLOCK,
    TrailingState,
    block_rows,
    follow_blocks,
    normalisers_of,
)
from edge_agent.contract.types import Bool, Float64

LEAST = np.array([0.3, 0.5])
LENGTH = 5
ONE = np.array([0])


def _rows(count: int, seed: int = 0) -> Float64:
    """Return aspects (count, 2) as small numbers that a single-precision float holds exactly."""
    return np.random.default_rng(seed).integers(1, 1000, (count, 2)) / 64.0


def _followed(state: TrailingState, rows: Float64, learn: Bool | None = None) -> Float64:
    """Return the normaliser (n, G) that each row of asset 0 is held against, before it is learnt."""
    found = []
    for number, row in enumerate(rows):
        found.append(state.normaliser[0].copy())
        taken = np.ones(1, np.bool_) if learn is None else learn[number : number + 1]
        follow_blocks(state, ONE, row[None, None], taken[None], LENGTH, LEAST)
    return np.asarray(found)


@settings(max_examples=40, deadline=None)
@given(before=st.integers(1, 2 * BLOCKS), after=st.integers(1, 400), seed=st.integers(0, 1000))
def test_streaming_goes_on_where_the_history_ends(before: int, after: int, seed: int) -> None:
    """After a history each row is held against the 0.95 quantile of the sixty block maxima before its own."""
    rows = _rows(before * LENGTH + after, seed)
    known = before * LENGTH
    _, recent = normalisers_of(rows[:known], LENGTH, LEAST)
    found = _followed(TrailingState.start(1, recent, LEAST), rows[known:])
    maxima = rows[: len(rows) // LENGTH * LENGTH].reshape(-1, LENGTH, 2).max(axis=1)
    for at, normaliser in enumerate(found):
        number = before + at // LENGTH
        seen = np.sort(maxima[max(0, number - BLOCKS) : number], axis=0)
        np.testing.assert_array_equal(normaliser, seen[math.ceil(0.95 * len(seen)) - 1])


@settings(max_examples=40, deadline=None)
@given(blocks=st.integers(2, 2 * BLOCKS), more=st.integers(0, LENGTH - 1), seed=st.integers(0, 1000))
def test_a_history_is_judged_as_by_an_asset_that_knows_it(blocks: int, more: int, seed: int) -> None:
    """The history's rows have the normalisers of an asset that lives them again, but for their own block."""
    rows = _rows(blocks * LENGTH + more, seed)
    found, recent = normalisers_of(rows, LENGTH, LEAST)
    if blocks > BLOCKS:
        again = _followed(TrailingState.start(1, recent, LEAST), rows)
        np.testing.assert_array_equal(found, again)
        return
    for number in range(blocks):
        others = np.delete(rows[: blocks * LENGTH].reshape(blocks, LENGTH, 2).max(axis=1), number, axis=0)
        state = TrailingState.start(1, others.astype(np.float32), LEAST)
        np.testing.assert_array_equal(found[number * LENGTH], state.normaliser[0])


def test_a_row_is_not_held_against_its_own_block() -> None:
    """What a row is held against does not change with what stands in its block; that of the next block does."""
    rows = _rows(20 * LENGTH)
    changed = rows.copy()
    changed[12 * LENGTH : 13 * LENGTH] *= 100.0
    plain, _ = normalisers_of(rows, LENGTH, LEAST)
    moved, _ = normalisers_of(changed, LENGTH, LEAST)
    np.testing.assert_array_equal(moved[12 * LENGTH : 13 * LENGTH], plain[12 * LENGTH : 13 * LENGTH])
    assert (moved[13 * LENGTH] > plain[13 * LENGTH]).all()


@pytest.mark.parametrize(("strange", "moves"), [(0, False), (1, False), (3, False), (4, True)])
def test_three_strange_blocks_of_sixty_move_nothing(strange: int, moves: bool) -> None:
    """The normaliser stays among the ordinary maxima while at most three blocks of sixty are strange."""
    rows = _rows(BLOCKS * LENGTH)
    ordinary = rows.max(axis=0)
    chosen = np.random.default_rng(1).choice(BLOCKS, strange, replace=False)
    rows[chosen * LENGTH + 2] = 1000.0
    state = TrailingState.start(1, normalisers_of(_rows(BLOCKS * LENGTH), LENGTH, LEAST)[1], LEAST)
    _followed(state, rows)
    assert bool((state.normaliser[0] > ordinary).all()) == moves
    assert bool((state.normaliser[0] > 500.0).any()) == moves


def test_what_lasts_becomes_usual_and_is_forgotten() -> None:
    """Sixty blocks later only what they showed counts, both on the way up and on the way down."""
    quiet, loud = np.full((BLOCKS * LENGTH, 2), 1.0), np.full((BLOCKS * LENGTH, 2), 8.0)
    state = TrailingState.start(1, np.ones((BLOCKS, 2), np.float32), LEAST)
    _followed(state, loud)
    np.testing.assert_array_equal(state.normaliser[0], [8.0, 8.0])
    _followed(state, quiet)
    np.testing.assert_array_equal(state.normaliser[0], [1.0, 1.0])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.booleans(), min_size=60, max_size=300))
def test_rows_that_are_not_learnt_leave_no_trace(taken: list[bool]) -> None:
    """A stream with rows that are not learnt ends in the state of the stream without them."""
    learn = np.array(taken)
    rows = _rows(len(learn))
    rows[~learn] = 1e6
    with_them, without = (TrailingState.start(1, np.ones((3, 2), np.float32), LEAST) for _ in range(2))
    _followed(with_them, rows, learn)
    _followed(without, rows[learn])
    for name in ("maxima", "filled", "cursor", "running", "rows", "normaliser"):
        np.testing.assert_array_equal(getattr(with_them, name), getattr(without, name))


@settings(max_examples=40, deadline=None)
@given(ticks=st.integers(1, LENGTH), share=st.sampled_from([0.0, 0.4, 1.0]), seed=st.integers(0, 99))
def test_rows_up_to_the_end_of_a_block_may_be_taken_at_once(ticks: int, share: float, seed: int) -> None:
    """Several rows in one call, of which the last may fill the block, are as good as one after the other."""
    rng = np.random.default_rng(seed)
    rows, learn = _rows(ticks, seed), rng.random(ticks) >= share
    one, all_at_once = (TrailingState.start(1, np.ones((3, 2), np.float32), LEAST) for _ in range(2))
    _followed(one, rows, learn)
    follow_blocks(all_at_once, ONE, rows[None], learn[None], LENGTH, LEAST)
    for name in ("maxima", "filled", "cursor", "running", "rows", "normaliser"):
        np.testing.assert_array_equal(getattr(one, name), getattr(all_at_once, name))


def test_each_asset_has_its_own() -> None:
    """Assets taken together, in any order and number, have the states that each has alone."""
    rng = np.random.default_rng(0)
    rows = rng.uniform(0.0, 4.0, (200, 4, 2))
    recent = rng.uniform(0.5, 2.0, (7, 2)).astype(np.float32)
    together = TrailingState.start(4, recent, LEAST)
    alone = [TrailingState.start(1, recent, LEAST) for _ in range(4)]
    for row in rows:
        assets = rng.permutation(4)[: rng.integers(1, 5)]
        learn = rng.random(len(assets)) < 0.8
        follow_blocks(together, assets, row[assets, None], learn[:, None], LENGTH, LEAST)
        for asset, taken in zip(assets, learn, strict=True):
            follow_blocks(alone[asset], ONE, row[asset][None, None], np.array([[taken]]), LENGTH, LEAST)
    for asset in range(4):
        for name in ("maxima", "filled", "cursor", "running", "rows", "normaliser"):
            np.testing.assert_array_equal(getattr(together, name)[asset], getattr(alone[asset], name)[0])


def test_a_normaliser_is_never_smaller_than_its_least() -> None:
    """However quiet a machine is, what is usual has a floor."""
    state = TrailingState.start(1, np.full((BLOCKS, 2), 1e-6, np.float32), LEAST)
    np.testing.assert_array_equal(state.normaliser[0], LEAST)
    found, _ = normalisers_of(np.full((40, 2), 1e-6), LENGTH, LEAST)
    np.testing.assert_array_equal(found, np.tile(LEAST, (40, 1)))


def test_a_history_shorter_than_a_block_is_held_against_itself() -> None:
    """Three rows and no whole block: their maximum is what is usual."""
    rows = _rows(3)
    found, recent = normalisers_of(rows, LENGTH, LEAST)
    np.testing.assert_array_equal(found, np.tile(rows.max(axis=0), (3, 1)))
    np.testing.assert_array_equal(recent, rows.max(axis=0, keepdims=True).astype(np.float32))


@pytest.mark.parametrize(
    ("days", "interval", "rows"), [(14.0, 60.0, 336), (14.0, 1.0, 20_160), (1.0, 3600.0, 50)]
)
def test_blocks_span_the_days_that_are_asked_for(days: float, interval: float, rows: int) -> None:
    """Sixty blocks are as many days of samples, and no block is shorter than an excursion."""
    assert block_rows(days, interval) == rows
    assert rows >= LEAST_BLOCK
