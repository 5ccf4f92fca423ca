"""Laws of the streaming grid."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edge_agent.contract.grid import Axis, Grid, rounds_of
from edge_agent.contract.grid_history import grid_history
from edge_agent.contract.types import Float32, Float64, Int64, Rows, Samples

NAN = float("nan")
CELLS = st.one_of(st.just(NAN), st.floats(-1e6, 1e6, width=32))
LATENESS = st.integers(0, 3)


def _rows(readings: list[tuple[int, float, list[float]]]) -> Rows:
    """Return rows of (asset, time, values)."""
    return Rows(
        np.array([reading[0] for reading in readings], np.int64),
        np.array([reading[1] for reading in readings], np.float64),
        np.array([reading[2] for reading in readings], np.float32),
    )


def _grid(sensors: int = 1, lateness: int = 1) -> Grid:
    return Grid(Axis(1.0), sensors, lateness)


def _cut(rows: Rows, cuts: list[int]) -> list[Rows]:
    """Return the rows as batches that end at the cuts."""
    edges = [0, *sorted({cut for cut in cuts if 0 < cut < len(rows)}), len(rows)]
    return [Rows(rows.asset[a:b], rows.time[a:b], rows.values[a:b]) for a, b in pairwise(edges)]


def _through(grid: Grid, batches: list[Rows]) -> Samples:
    parts = [grid.push(batch, 0.0) for batch in batches]
    return Samples.concatenate([*parts, grid.flush()], grid.sensor_count)


def _of_asset(samples: Samples, asset: int) -> tuple[Int64, Float32]:
    chosen = samples.asset == asset
    return samples.tick[chosen], samples.values[chosen]


@st.composite
def _histories(draw: st.DrawFn, assets: int = 3) -> Rows:
    """Draw rows of some assets whose times never go back."""
    steps = draw(st.lists(st.integers(0, 12), min_size=1, max_size=40))
    times: Float64 = np.cumsum(steps).astype(np.float64) / 4
    asset = draw(arrays(np.int64, len(times), elements=st.integers(0, assets - 1)))
    return Rows(asset, times, draw(arrays(np.float32, (len(times), 2), elements=CELLS)))


@settings(max_examples=100, deadline=None)
@given(rows=_histories(), lateness=LATENESS, cuts=st.lists(st.integers(0, 40), max_size=8))
def test_streaming_equals_the_whole_history(rows: Rows, lateness: int, cuts: list[int]) -> None:
    """Sorted readings, cut into batches anyhow, give each asset the ticks and cells of its whole history.

    Here one sensor never sends: no tick is complete early, and the last reading wins even after all the others.
    """
    values = np.concatenate([rows.values, np.full((len(rows), 1), np.nan, np.float32)], axis=1)
    rows = Rows(rows.asset, rows.time, values)
    samples = _through(_grid(3, lateness), _cut(rows, cuts))
    for asset in range(3):
        own = rows.asset == asset
        ticks, cells, _ = grid_history(rows.time[own], rows.values[own], 1.0, 0.0)
        found_ticks, found = _of_asset(samples, asset)
        np.testing.assert_array_equal(found_ticks, ticks)
        np.testing.assert_array_equal(found, cells)


@settings(max_examples=100, deadline=None)
@given(rows=_histories(), lateness=LATENESS, cuts=st.lists(st.integers(0, 40), max_size=8))
def test_complete_ticks_differ_from_the_whole_history_by_late_readings_only(
    rows: Rows, lateness: int, cuts: list[int]
) -> None:
    """With ticks that close as soon as they are complete, the ticks are the same, and so are all but late cells."""
    grid = _grid(2, lateness)
    samples = _through(grid, _cut(rows, cuts))
    differing = 0
    for asset in range(3):
        own = rows.asset == asset
        ticks, cells, _ = grid_history(rows.time[own], rows.values[own], 1.0, 0.0)
        found_ticks, found = _of_asset(samples, asset)
        np.testing.assert_array_equal(found_ticks, ticks)
        differing += int((~((found == cells) | (np.isnan(found) & np.isnan(cells)))).sum())
    assert differing <= grid.late


@settings(max_examples=100, deadline=None)
@given(rows=_histories(), lateness=LATENESS)
def test_assets_do_not_mix(rows: Rows, lateness: int) -> None:
    """How the rows of different assets are interleaved changes nothing for any of them."""
    together = _through(_grid(2, lateness), [rows])
    apart = np.argsort(rows.asset, kind="stable")
    one_by_one = _through(_grid(2, lateness), [Rows(rows.asset[apart], rows.time[apart], rows.values[apart])])
    for asset in range(3):
        for found, expected in zip(_of_asset(one_by_one, asset), _of_asset(together, asset), strict=True):
            np.testing.assert_array_equal(found, expected)


@settings(max_examples=100, deadline=None)
@given(
    times=st.lists(st.integers(0, 60), min_size=1, max_size=30),
    lateness=LATENESS,
    cuts=st.lists(st.integers(0, 30)),
)
def test_ticks_ascend_and_no_reading_is_lost_silently(
    times: list[int], lateness: int, cuts: list[int]
) -> None:
    """In any order of arrival ticks strictly ascend, and each reading is in a sample, late or a duplicate."""
    rows = _rows([(0, time / 2, [float(i)]) for i, time in enumerate(times)])
    grid = _grid(1, lateness)
    samples = _through(grid, _cut(rows, cuts))
    assert (np.diff(samples.tick) > 0).all()
    assert len(samples) + grid.late + grid.duplicate == len(times)


class _RowByRow(Grid):
    """A grid without its way for the ordinary case."""

    def _push_in_step(self, runs: Any, time: Any, values: Any, now: float) -> tuple[Any, Samples]:
        return np.zeros(len(runs.first), np.bool_), Samples.empty(self.sensor_count)


@st.composite
def _streams(draw: st.DrawFn) -> Rows:
    """Draw rows of two assets that are mostly in step: whole or in pieces, now and then late, twice, or far ahead."""
    rows: list[tuple[int, float, list[float]]] = []
    tick = [draw(st.integers(0, 3)), draw(st.integers(0, 3))]
    for _ in range(draw(st.integers(1, 25))):
        asset = draw(st.integers(0, 1))
        step = draw(st.sampled_from((0, 0, 0, 1, 1, 1, 1, 1, 2, 7, -1)))
        tick[asset] += step
        shift = draw(st.sampled_from((0.0, 0.0, 0.1, -0.1)))
        kind = draw(st.sampled_from(("whole", "whole", "left", "right", "none")))
        number = float(len(rows))
        cells = {
            "whole": [number, -number],
            "left": [number, NAN],
            "right": [NAN, number],
            "none": [NAN, NAN],
        }[kind]
        rows.append((asset, tick[asset] + shift, cells))
    return _rows(rows)


@settings(max_examples=150, deadline=None)
@given(rows=_streams(), lateness=LATENESS, cuts=st.lists(st.integers(0, 25), max_size=6))
def test_batches_are_taken_as_row_by_row(rows: Rows, lateness: int, cuts: list[int]) -> None:
    """The way for ordinary batches gives the samples, the counts and the state of the way row by row."""
    fast, slow = _grid(2, lateness), _RowByRow(Axis(1.0), 2, lateness)
    for now, batch in enumerate(_cut(rows, cuts)):
        found, wanted = fast.push(batch, float(now)), slow.push(batch, float(now))
        for asset in range(2):
            for one, other in zip(_of_asset(found, asset), _of_asset(wanted, asset), strict=True):
                np.testing.assert_array_equal(one, other)
        for name, state in vars(slow).items():
            np.testing.assert_array_equal(getattr(fast, name), state, name)


def test_complete_rows_in_order_take_the_ordinary_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither many whole rows of one asset nor one reading a row goes row by row."""
    monkeypatch.setattr(Grid, "_push_round", None)
    grid = _grid(2)
    whole = _rows([(asset, float(tick), [1.0, 2.0]) for tick in range(5) for asset in range(3)])
    assert len(grid.push(whole, 0.0)) == 15
    pieces = [
        (asset, tick + 0.1 * i, [3.0, NAN] if i else [NAN, 4.0])
        for tick in (5, 6, 7)
        for i in (0, 1)
        for asset in (2, 1)
    ]
    samples = [len(grid.push(part, 0.0)) for part in _cut(_rows(pieces), [3, 8])]
    assert samples == [1, 3, 2]


@settings(max_examples=60, deadline=None)
@given(asset=arrays(np.int64, st.integers(1, 30), elements=st.integers(0, 4)))
def test_rounds_hold_each_asset_once_and_in_order(asset: Int64) -> None:
    """Round k holds the k-th entry of every asset, and the rounds together are every entry once."""
    rounds = rounds_of(asset)
    assert sorted(np.concatenate(rounds).tolist()) == list(range(len(asset)))
    for number, chosen in enumerate(rounds):
        for position in chosen:
            assert (asset[:position] == asset[position]).sum() == number


def test_a_complete_tick_closes_at_once() -> None:
    """A tick with all its sensors is given out with the message that completes it."""
    grid = _grid(2)
    assert len(grid.push(_rows([(0, 10.0, [1.0, NAN])]), 0.0)) == 0
    samples = grid.push(_rows([(0, 10.3, [NAN, 2.0])]), 0.0)
    assert samples.tick.tolist() == [10]
    assert samples.values.tolist() == [[1.0, 2.0]]


def test_a_late_reading_within_the_allowance_still_counts() -> None:
    """A reading one tick behind fills its cell when one tick of lateness is allowed."""
    grid = _grid(2, lateness=1)
    grid.push(_rows([(0, 10.0, [1.0, NAN]), (0, 11.0, [3.0, NAN])]), 0.0)
    samples = grid.push(_rows([(0, 10.1, [NAN, 2.0])]), 0.0)
    assert (samples.tick.tolist(), samples.values.tolist(), grid.late) == ([10], [[1.0, 2.0]], 0)


def test_a_reading_of_a_closed_tick_is_counted_late() -> None:
    """Readings that come after their tick was given out are counted cell by cell and change nothing."""
    grid = _grid(2)
    assert len(grid.push(_rows([(0, 10.0, [1.0, 2.0])]), 0.0)) == 1
    assert len(grid.push(_rows([(0, 10.0, [5.0, 6.0]), (0, 9.0, [7.0, NAN])]), 0.0)) == 0
    assert grid.late == 3
    assert len(grid.flush()) == 0


def test_readings_out_of_order_are_counted_and_used() -> None:
    """A reading after those of a later tick, but not late, fills its cell and is counted out of order."""
    grid = _grid(2, lateness=2)
    rows = [(0, 10.0, [1.0, NAN]), (0, 12.0, [2.0, NAN]), (1, 5.0, [1.0, NAN]), (0, 11.0, [3.0, NAN])]
    grid.push(_rows(rows), 0.0)
    grid.push(_rows([(0, 12.1, [NAN, 1.0])]), 0.0)
    assert (grid.out_of_order, grid.late, len(grid.flush())) == (1, 0, 4)


def test_the_later_time_wins_a_cell_and_then_the_later_arrival() -> None:
    """Of two readings of a cell the later stamp wins; with equal stamps the later arrival does."""
    grid = _grid(2)
    rows = [(0, 10.2, [1.0, NAN]), (0, 10.1, [2.0, NAN]), (0, 10.2, [3.0, NAN])]
    grid.push(_rows(rows), 0.0)
    assert grid.flush().values[0, 0] == 3.0
    assert grid.duplicate == 2


def test_advance_closes_by_the_clock_of_arrival() -> None:
    """A tick that waits longer than interval and lateness is given out, whatever its own stamp says."""
    grid = _grid(2, lateness=1)
    grid.push(_rows([(0, 5.0, [1.0, NAN]), (1, 900.0, [NAN, 2.0])]), 100.0)
    assert len(grid.advance(101.9)) == 0
    samples = grid.advance(102.0)
    assert sorted(zip(samples.asset.tolist(), samples.tick.tolist(), strict=True)) == [(0, 5), (1, 900)]
    assert len(grid.advance(1e9)) == 0


def test_advance_gives_older_ticks_first() -> None:
    """When a newer tick has waited long enough, the open older one goes out before it."""
    grid = _grid(2, lateness=2)
    grid.push(_rows([(0, 5.0, [1.0, NAN])]), 50.0)
    grid.push(_rows([(0, 6.0, [2.0, NAN])]), 40.0)
    samples = grid.advance(43.0)
    assert samples.tick.tolist() == [5, 6]


def test_a_gap_gives_no_ticks_however_long_it_is() -> None:
    """A jump of a year costs no samples and no time: only ticks with readings are given out."""
    grid = _grid()
    year = 365.0 * 86_400
    samples = Samples.concatenate([grid.push(_rows([(0, time, [1.0])]), 0.0) for time in (1.0, 2.0, year)], 1)
    assert [*samples.tick.tolist(), *grid.flush().tick.tolist()] == [1, 2, int(year)]


def test_a_row_without_a_reading_opens_no_tick() -> None:
    """A row of nothing but missing cells gives no sample."""
    grid = _grid()
    grid.push(_rows([(0, 1.0, [NAN])]), 0.0)
    assert len(grid.advance(1e9)) == 0


def test_the_axis_is_its_own_inverse() -> None:
    """The tick of the time of a tick is that tick, on axes with any phase."""
    axis = Axis(0.7, 0.3)
    ticks = np.arange(2_400_000_000, 2_400_001_000)
    np.testing.assert_array_equal(axis.tick_of(axis.time_of(ticks)), ticks)
