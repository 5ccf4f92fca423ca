"""Gathers what messages held and makes it columns, with few calls a batch."""

from collections import Counter
from itertools import chain

import numpy as np

from edge_agent.codecs import FLOAT32_MAX, LATEST, UNIT_STEPS, Row
from edge_agent.contract.types import Bool, Float64, Rows

WHOLE_ROW = -1
"""Stands for a column where an entry is a row of all sensors."""
_BLOCK = -2


class RowCollector:
    """Entries in order of arrival; the lists are public because the one who fills them is in a hurry.

    Args:
        width: F, sensors of the model.

    Attributes:
        assets: the asset's row, one an entry.
        columns: the sensor's position, one an entry, or `WHOLE_ROW`.
        rows: one for each entry that is a whole row.
        values, times: one for each entry that is one reading; a time of NaN is not known.
    """

    def __init__(self, width: int) -> None:
        self._width = width
        self.assets: list[int] = []
        self.columns: list[int] = []
        self.rows: list[Row] = []
        self.values: list[float] = []
        self.times: list[float] = []
        self._blocks: list[Float64] = []
        self._arrivals: list[tuple[int, float]] = []

    def __len__(self) -> int:
        """Return how many entries there are."""
        return len(self.assets)

    def arrive(self, arrival: float) -> None:
        """Note when the entries from here on arrived, seconds since the epoch."""
        self._arrivals.append((len(self.assets), arrival))

    def add_block(self, asset: int, block: Float64) -> None:
        """Append rows (n, 1 + F) of one asset."""
        self._blocks.append(block)
        self.assets += [asset] * len(block)
        self.columns += [_BLOCK] * len(block)

    def take(self, rejected: Counter[str]) -> Rows:
        """Return what was gathered, without what cannot be used, which is counted by reason."""
        count = len(self.assets)
        asset = np.fromiter(self.assets, np.int64, count)
        table = self._table(count)
        time, values = table[:, 0], table[:, 1:]
        # NaN passes neither of these.
        if time.min() >= 0.0 and time.max() < UNIT_STEPS[-1][0] and np.abs(values).max() <= FLOAT32_MAX:
            return Rows(asset, np.ascontiguousarray(time), values.astype(np.float32))
        time = _seconds(time, self._arrivals)
        timely = (time >= 0.0) & (time < LATEST)
        kept = timely & _usable(values, timely, rejected)
        if not timely.all():
            rejected["bad_time"] += int(count - np.count_nonzero(timely))
        if kept.all():
            return Rows(asset, time, values.astype(np.float32))
        return Rows(asset[kept], time[kept], values[kept].astype(np.float32))

    def _table(self, count: int) -> Float64:
        """Return (count, 1 + F): times as they came, and cells."""
        if len(self.rows) == count:
            return _rows(self.rows, 1 + self._width)
        column = np.fromiter(self.columns, np.int64, count)
        table = np.full((count, 1 + self._width), np.nan)
        single = np.flatnonzero(column >= 0)
        if len(single):
            table[single, 0] = np.fromiter(self.times, np.float64, len(single))
            table[single, 1 + column[single]] = np.fromiter(self.values, np.float64, len(single))
        if self.rows:
            table[column == WHOLE_ROW] = _rows(self.rows, 1 + self._width)
        if self._blocks:
            table[column == _BLOCK] = np.concatenate(self._blocks)
        return table


def _rows(rows: list[Row], width: int) -> Float64:
    try:
        flat = np.fromiter(chain.from_iterable(rows), np.float64, len(rows) * width)
    except TypeError:
        # A None among them, which here becomes NaN.
        return np.array(rows, np.float64)
    return flat.reshape(len(rows), width)


def _seconds(stamp: Float64, arrivals: list[tuple[int, float]]) -> Float64:
    """Return seconds since the epoch of numbers in any unit, the arrival where there is none."""
    absent = np.isnan(stamp)
    if absent.any():
        starts = np.array([start for start, _ in arrivals])
        clock = np.array([arrival for _, arrival in arrivals])
        where = np.flatnonzero(absent)
        stamp = stamp.copy()
        stamp[where] = clock[np.searchsorted(starts, where, side="right") - 1]
    if stamp.max() < UNIT_STEPS[-1][0]:
        return np.ascontiguousarray(stamp)
    divisor = np.select([stamp >= least for least, _ in UNIT_STEPS], [by for _, by in UNIT_STEPS], 1.0)
    return np.asarray(stamp / divisor)


def _usable(values: Float64, timely: Bool, rejected: Counter[str]) -> Bool:
    """Empty the cells that no float32 holds, and return which rows have a reading."""
    magnitude = np.abs(values)
    good = magnitude <= FLOAT32_MAX
    beyond = magnitude > FLOAT32_MAX
    if beyond.any():
        infinite = np.isinf(values)
        counted = beyond & timely[:, None]
        for reason, cells in (("infinite", counted & infinite), ("too_large", counted & ~infinite)):
            found = int(np.count_nonzero(cells))
            if found:
                rejected[reason] += found
        values[beyond] = np.nan
    return np.asarray(good.any(axis=1))
