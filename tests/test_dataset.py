"""Laws of what the forecaster is fitted on: fillings of missing cells, context, rows that are no target, memory."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.contract.grid import Axis
from edge_agent.contract.inputs import InputLayout
from edge_agent.contract.types import Float32
from trainer.dataset import FILLINGS, Filling, Segments, SubSequences, build_segments, mask_cells
from trainer.highway import fit_highway

MISSING = np.nan
CELLS = st.lists(st.one_of(st.just(MISSING), st.integers(-9, 9).map(float)), min_size=1, max_size=30)


def _segments(column: list[float], filling: Filling) -> Segments:
    values = np.array(column, np.float32)[:, None]
    return build_segments(np.arange(len(column)), values, np.zeros(1), np.ones(1), 100, filling=filling)


def _reference(column: list[float], filling: Filling) -> tuple[list[float], list[bool]]:
    """Return cells and what is missing, row by row, as the options' words say."""
    cells, missing, last = [], [], 0.0
    for row, cell in enumerate(column):
        gap = row
        while gap > 0 and np.isnan(column[gap - 1]):
            gap -= 1
        end = row
        while end < len(column) and np.isnan(column[end]):
            end += 1
        known = not np.isnan(cell)
        value = cell if known else last
        filled = False
        if not known and gap > 0 and filling.policy == "forward-fill":
            filled = row - gap < filling.limit
        if not known and gap > 0 and end < len(column) and filling.policy == "interpolate":
            filled = end - gap <= filling.limit
            if filled:
                value = column[gap - 1] + (column[end] - column[gap - 1]) * (row - gap + 1) / (end - gap + 1)
        cells.append(value)
        missing.append(not known and not filled)
        last = value
    return cells, missing


@given(column=CELLS, policy=st.sampled_from(FILLINGS), limit=st.integers(1, 6))
def test_cells_are_filled_as_the_options_say(column: list[float], policy: str, limit: int) -> None:
    """Every cell and its mark are those of a row-by-row reading of the rule; beyond the limit a gap stays missing."""
    filling = Filling(policy, limit)
    cells, missing = _reference(column, filling)
    segments = _segments(column, filling)
    np.testing.assert_allclose(segments.values[:, 0], cells, rtol=1e-5, atol=1e-5)
    assert segments.missing[:, 0].tolist() == missing


def test_nothing_is_filled_across_a_long_gap_of_time() -> None:
    """A straight line is never drawn between two stretches that are apart."""
    values = np.array([[1.0], [MISSING], [5.0]], np.float32)
    ticks = np.array([0, 1, 500])
    found = build_segments(ticks, values, np.zeros(1), np.ones(1), 60, filling=Filling("interpolate", 5))
    assert found.missing[:, 0].tolist() == [False, True, False]


def _plant() -> tuple[Float32, InputLayout]:
    values = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)
    values[::3, 1] = MISSING
    return values, InputLayout(("a", "command", "b"), ("command",), ("hour_sin",), Axis(60.0))


@pytest.mark.parametrize("policy", FILLINGS)
def test_a_command_is_read_held_and_is_no_target(policy: str) -> None:
    """A command stands in the context, held where it was not told, and neither in the mask nor among the targets."""
    values, layout = _plant()
    segments = build_segments(
        np.arange(200), values, np.zeros(3), np.ones(3), 60, layout, filling=Filling(policy, 5)
    )
    assert segments.values.shape == segments.missing.shape == (200, 2)
    assert segments.context.shape == (200, 2)
    np.testing.assert_array_equal(segments.values, values[:, [0, 2]])
    told = segments.context[1:, 0]
    np.testing.assert_array_equal(told[::3], values[1::3, 1])
    source = SubSequences(segments, 10, 1)
    assert source.inputs(np.array([4])).shape == (1, 10, 6)
    assert source.targets(np.array([4]))[0].shape == (1, 10, 2)


def test_hiding_cells_leaves_the_context_alone() -> None:
    """Random masking hides sensors, never a command or the time of day."""
    values, layout = _plant()
    segments = build_segments(np.arange(200), values, np.zeros(3), np.ones(3), 60, layout)
    inputs = SubSequences(segments, 100, 1).inputs(np.array([0]))
    masked = mask_cells(inputs, 0.5, np.random.default_rng(0), sensors=2)
    np.testing.assert_array_equal(masked[:, :, 4:], inputs[:, :, 4:])
    assert 0.3 < masked[:, :, 2:4].mean() < 0.7


def test_a_machine_that_rests_is_no_target() -> None:
    """Rows that rest weigh nothing as targets, in training and in the ridge regression, and are read all the same."""
    rng = np.random.default_rng(0)
    values = np.zeros((400, 1), np.float32)
    for row in range(1, 400):
        values[row] = 0.8 * values[row - 1] + rng.normal()
    resting = np.zeros(400, np.bool_)
    resting[200:] = True
    spoiled = values.copy()
    spoiled[200:] = 1000 * rng.normal(size=(200, 1))
    one = build_segments(np.arange(400), spoiled, np.zeros(1), np.ones(1), 60, resting=resting)
    _, weights = SubSequences(one, 399, 1).targets(np.array([0]))
    assert weights[0, :, 0].tolist() == [1.0] * 199 + [0.0] * 200
    clean = build_segments(np.arange(200), values[:200], np.zeros(1), np.ones(1), 60)
    np.testing.assert_allclose(fit_highway(one), fit_highway(clean), atol=1e-6)


def test_parts_keep_their_context() -> None:
    """Cut out and put together again, context and rest stay with their rows."""
    values, layout = _plant()
    resting = np.arange(200) % 7 == 0
    whole = build_segments(np.arange(200), values, np.zeros(3), np.ones(3), 60, layout, resting)
    again = Segments.concatenate([whole.rows(0, 70), whole.rows(70, 200)])
    np.testing.assert_array_equal(again.context, whole.context)
    np.testing.assert_array_equal(again.resting, resting)


@pytest.mark.parametrize("length", [30, 3000])
def test_memory_is_that_of_the_history_and_one_batch(length: int) -> None:
    """However long the windows and however many there are, a batch takes a few times its own size, and no more."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(100_000, 5)).astype(np.float32)
    values[rng.random(values.shape) < 0.01] = MISSING
    layout = InputLayout(("a", "b", "c", "d", "e"), ("e",), ("hour_sin", "hour_cos"), Axis(60.0))
    tracemalloc.start()
    try:
        segments = build_segments(np.arange(100_000), values, np.zeros(5), np.ones(5), 60, layout)
        assert tracemalloc.get_traced_memory()[1] <= 4 * values.nbytes
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        source = SubSequences(segments, length, 1)
        batch = source.inputs(np.arange(0, 64 * 500, 500))
        peak = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    assert batch.shape == (64, length, 11)
    assert peak <= 4 * batch.nbytes + 100_000
