"""Laws of gathering rows; that whole messages come out right is in test_intake.py."""

import math
from collections import Counter

import numpy as np
import pytest

from edge_agent.row_collector import WHOLE_ROW, RowCollector

NAN = math.nan


def _whole(collector: RowCollector, asset: int, *row: float) -> None:
    collector.assets.append(asset)
    collector.columns.append(WHOLE_ROW)
    collector.rows.append(row)


def _single(collector: RowCollector, asset: int, column: int, time: float, value: float) -> None:
    collector.assets.append(asset)
    collector.columns.append(column)
    collector.times.append(time)
    collector.values.append(value)


def test_entries_of_every_kind_come_out_in_order() -> None:
    """Rows, readings and blocks keep the order in which they came, with their own arrival where they have no time."""
    collector = RowCollector(2)
    collector.arrive(100.0)
    _whole(collector, 0, 1.0, 10.0, 11.0)
    _single(collector, 1, 1, NAN, 20.0)
    collector.arrive(200.0)
    collector.add_block(2, np.array([[2.0, 30.0, NAN], [NAN, NAN, 31.0]]))
    _whole(collector, 3, NAN, NAN, 40.0)
    rejected = Counter[str]()
    rows = collector.take(rejected)
    assert rows.asset.tolist() == [0, 1, 2, 2, 3]
    assert rows.time.tolist() == [1.0, 100.0, 2.0, 200.0, 200.0]
    np.testing.assert_array_equal(rows.values, [[10, 11], [NAN, 20], [30, NAN], [NAN, 31], [NAN, 40]])
    assert not rejected


def test_an_arrival_without_entries_changes_nothing() -> None:
    """Messages that held nothing do not lend their time of arrival to those after them."""
    collector = RowCollector(1)
    for arrival in (100.0, 200.0, 300.0):
        collector.arrive(arrival)
    _whole(collector, 0, NAN, 1.0)
    assert collector.take(Counter()).time.tolist() == [300.0]


@pytest.mark.parametrize("stamp", [1.7e9, 1.7e12, 1.7e15, 1.7e18])
def test_units_of_time_are_recognised(stamp: float) -> None:
    """Seconds, milli-, micro- and nanoseconds of one moment are the same time, beside each other too."""
    collector = RowCollector(1)
    _whole(collector, 0, stamp, 1.0)
    _whole(collector, 0, 1.7e9, 1.0)
    assert collector.take(Counter()).time.tolist() == [1.7e9, 1.7e9]


def test_what_cannot_be_used_is_counted_and_left_out() -> None:
    """A bad time costs the row, a cell beyond float32 that cell, and a row with nothing left is none."""
    collector = RowCollector(2)
    for row in ((-1.0, math.inf, 1.0), (1.0, 1e300, 1.0), (2.0, -math.inf, NAN), (3.0, NAN, NAN)):
        _whole(collector, 0, *row)
    rejected = Counter[str]()
    rows = collector.take(rejected)
    np.testing.assert_array_equal(rows.values, [[NAN, 1.0]])
    assert rejected == {"bad_time": 1, "too_large": 1, "infinite": 1}
