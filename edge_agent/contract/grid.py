"""The regular time axis: readings as they arrive become samples, one row per tick.

Tick k stands at `phase + k * interval`; a reading belongs to the nearest tick, and the last reading by time (then by
arrival) wins a cell. A tick closes when it is complete and no older one is open, when a reading more than the allowed
lateness ahead arrives, or on `advance`. Ticks without any reading are not emitted: whoever consumes samples sees the
jump of the tick number.

Assets whose ticks come one after the other, each complete before the next begins, are the ordinary case: all their rows
of a batch are taken at once, whether a row holds all sensors or one. The others go row by row, with the same result.
"""

from dataclasses import dataclass

import numpy as np

from edge_agent.contract.types import Bool, Float32, Float64, Int64, Rows, Samples

UNSET = np.iinfo(np.int64).min
_LATEST = float(np.finfo(np.float64).max)


@dataclass(frozen=True, slots=True)
class Axis:
    """A regular time axis.

    Attributes:
        interval: seconds between ticks.
        phase: seconds; tick 0 stands at this time after the epoch.
    """

    interval: float
    phase: float = 0.0

    def tick_of(self, time: Float64) -> Int64:
        """Return the nearest tick of each time."""
        return np.floor((time - self.phase) / self.interval + 0.5).astype(np.int64)

    def time_of(self, tick: Int64) -> Float64:
        """Return the time of each tick in seconds since the epoch."""
        return np.asarray(self.phase + tick * self.interval, np.float64)


class Grid:
    """Assemble samples of many assets, all state in arrays with one row per asset.

    Args:
        axis: the time axis of the model.
        sensor_count: F.
        lateness_ticks: how many ticks a tick stays open for late readings after a newer one began.
    """

    def __init__(self, axis: Axis, sensor_count: int, lateness_ticks: int = 1) -> None:
        self.axis = axis
        self.sensor_count = sensor_count
        self.slots = lateness_ticks + 1
        self.late = 0
        """Readings that came after their tick had closed, or far out of order."""
        self.duplicate = 0
        """Readings of a cell that had one already."""
        self.out_of_order = 0
        """Readings that came after those of a later tick, yet in time to be used."""
        self._head = np.empty(0, np.int64)
        self._newest = np.empty(0, np.int64)
        self._values = np.empty((0, self.slots, sensor_count), np.float32)
        self._stamp = np.empty((0, self.slots, sensor_count), np.float64)
        self._opened = np.empty((0, self.slots), np.float64)

    def ensure_assets(self, count: int) -> None:
        """Make room for `count` assets."""
        more = count - len(self._head)
        if more <= 0:
            return
        self._head = np.concatenate([self._head, np.full(more, UNSET)])
        self._newest = np.concatenate([self._newest, np.full(more, UNSET)])
        shape = (more, self.slots, self.sensor_count)
        self._values = np.concatenate([self._values, np.full(shape, np.nan, np.float32)])
        self._stamp = np.concatenate([self._stamp, np.full(shape, -np.inf)])
        self._opened = np.concatenate([self._opened, np.full((more, self.slots), np.inf)])

    def push(self, rows: Rows, now: float) -> Samples:
        """Take rows in and return the samples that they close.

        Args:
            rows: in order of arrival.
            now: when they arrived, on the clock that `advance` is called with.
        """
        if not len(rows):
            return Samples.empty(self.sensor_count)
        self.ensure_assets(int(rows.asset.max()) + 1)
        asset, time, values = rows.asset, rows.time, rows.values
        if len(asset) > 1 and (asset[1:] < asset[:-1]).any():
            order = np.argsort(asset, kind="stable")
            asset, time, values = asset[order], time[order], values[order]
        tick = self.axis.tick_of(time)
        if self._is_next(asset, tick, values):
            self._head[asset], self._newest[asset] = tick + 1, tick
            return Samples(asset, tick, values)
        runs = _Runs.of(asset, tick, values)
        in_step, samples = self._push_in_step(runs, time, values, now)
        if in_step.all():
            return samples
        left = ~runs.spread(in_step)
        asset, time, values = asset[left], time[left], values[left]
        closed = [samples]
        for chosen in rounds_of(asset):
            self._push_round(asset[chosen], time[chosen], values[chosen], now, closed)
        return Samples.concatenate(closed, self.sensor_count)

    def _is_next(self, asset: Int64, tick: Int64, values: Float32) -> bool:
        """Return whether each row is the next whole sample of another asset, of which no tick is open."""
        head = self._head[asset]
        return bool(
            (tick == head).all()
            and (self._newest[asset] < head).all()
            and (len(asset) == 1 or (asset[1:] != asset[:-1]).all())
            and np.isfinite(values).all()
        )

    def _push_in_step(
        self, runs: "_Runs", time: Float64, values: Float32, now: float
    ) -> tuple[Bool, Samples]:
        """Take in all rows of the assets whose ticks come one after the other.

        Returns:
            Which assets of `runs` these are, and the samples that they close.
        """
        first, asset = runs.first, runs.asset[runs.first]
        head = self._head[asset]
        head = np.where(head == UNSET, runs.tick[first], head)
        slot = head % self.slots
        held = self._values[asset, slot]
        begun = np.isfinite(held)
        cells, finite = runs.values, runs.finite
        in_step = (runs.tick[first] == head) & (self._newest[asset] <= head)
        if begun.any():
            in_step &= ~(begun & finite[first]).any(axis=1)
            cells, finite = cells.copy(), finite.copy()
            cells[first] = np.where(begun, held, cells[first])
            finite[first] |= begun
        complete: Bool = np.asarray(finite.all(axis=1))
        orderly = runs.orderly & (complete | runs.is_last)
        if not orderly.all():
            in_step &= np.logical_and.reduceat(orderly, first)
        if not in_step.any():
            return in_step, Samples.empty(self.sensor_count)
        self._settle_in_step(runs, in_step, complete, slot, now)
        taken = complete if in_step.all() else complete & in_step[runs.group]
        open_runs = ~complete & in_step[runs.group]
        if open_runs.any():
            row, column = np.nonzero(np.isfinite(values) & open_runs[runs.of_row][:, None])
            run = runs.of_row[row]
            place = runs.asset[run], runs.tick[run] % self.slots, column
            self._values[place], self._stamp[place] = values[row, column], time[row]
        if taken.all():
            return in_step, Samples(runs.asset, runs.tick, cells)
        return in_step, Samples(runs.asset[taken], runs.tick[taken], cells[taken])

    def _settle_in_step(self, runs: "_Runs", in_step: Bool, complete: Bool, slot: Int64, now: float) -> None:
        """Note where the assets in step are now: at the tick after their last complete one."""
        first, last, slot = runs.first[in_step], runs.last[in_step], slot[in_step]
        asset, tick, whole = runs.asset[first], runs.tick[last], complete[last]
        self._head[asset], self._newest[asset] = tick + whole, tick
        closed = complete[first]
        self._values[asset[closed], slot[closed]] = np.nan
        self._stamp[asset[closed], slot[closed]] = -np.inf
        self._opened[asset[closed], slot[closed]] = np.inf
        if not whole.all():
            waits = asset[~whole], tick[~whole] % self.slots
            self._opened[waits] = np.minimum(self._opened[waits], min(now, _LATEST))

    def advance(self, now: float) -> Samples:
        """Close the ticks whose first reading arrived longer ago than an interval and the allowed lateness."""
        oldest_allowed = now - self.slots * self.axis.interval
        closed: list[Samples] = []
        while True:
            expired = np.isfinite(self._opened) & (self._opened <= oldest_allowed)
            assets = np.flatnonzero(expired.any(axis=1))
            if not len(assets):
                return Samples.concatenate(closed, self.sensor_count)
            self._close_heads(assets, closed)

    def flush(self) -> Samples:
        """Close every open tick, as at the end of a file."""
        return self.advance(np.inf)

    def _push_round(
        self, asset: Int64, time: Float64, values: Float32, now: float, closed: list[Samples]
    ) -> None:
        tick = self.axis.tick_of(time)
        fresh = self._head[asset] == UNSET
        self._head[asset[fresh]] = tick[fresh]
        on_time = tick >= self._head[asset]
        if not on_time.all():
            self.late += int(np.isfinite(values[~on_time]).sum())
            asset, time, values, tick = asset[on_time], time[on_time], values[on_time], tick[on_time]
        self._count_order(asset, tick, values)
        self._make_room(asset, tick, closed)
        slot = tick % self.slots
        held = self._values[asset, slot]
        here = np.isfinite(values)
        self.duplicate += int((here & np.isfinite(held)).sum())
        wins = here & (time[:, None] >= self._stamp[asset, slot])
        self._values[asset, slot] = np.where(wins, values, held)
        self._stamp[asset, slot] = np.where(wins, time[:, None], self._stamp[asset, slot])
        begun = here.any(axis=1)
        opened = self._opened[asset[begun], slot[begun]]
        # The clock of a replay is infinite, which here is the mark of a tick that is not open.
        self._opened[asset[begun], slot[begun]] = np.minimum(opened, min(now, _LATEST))
        self._close_complete(asset, closed)

    def _count_order(self, asset: Int64, tick: Int64, values: Float32) -> None:
        newest = self._newest[asset]
        behind = tick < newest
        if behind.any():
            self.out_of_order += int(np.isfinite(values[behind]).sum())
            tick = np.maximum(tick, newest)
        self._newest[asset] = tick

    def _make_room(self, asset: Int64, tick: Int64, closed: list[Samples]) -> None:
        """Close ticks that the new ones leave behind by more than the allowed lateness."""
        for _ in range(self.slots):
            behind = tick - self._head[asset] >= self.slots
            if not behind.any():
                return
            self._close_heads(asset[behind], closed)
        behind = tick - self._head[asset] >= self.slots
        self._head[asset[behind]] = tick[behind] - self.slots + 1

    def _close_complete(self, asset: Int64, closed: list[Samples]) -> None:
        for _ in range(self.slots):
            slot = self._head[asset] % self.slots
            complete: Bool = np.asarray(np.isfinite(self._values[asset, slot]).all(axis=1))
            if not complete.any():
                return
            asset = asset[complete]
            self._close_heads(asset, closed)

    def _close_heads(self, asset: Int64, closed: list[Samples]) -> None:
        head = self._head[asset]
        slot = head % self.slots
        values = self._values[asset, slot]
        present: Bool = np.asarray(np.isfinite(values).any(axis=1))
        if present.any():
            closed.append(Samples(asset[present], head[present], values[present]))
        self._values[asset, slot] = np.nan
        self._stamp[asset, slot] = -np.inf
        self._opened[asset, slot] = np.inf
        self._head[asset] = head + 1


@dataclass(frozen=True, slots=True)
class _Runs:
    """Rows in the order of their assets, those of one asset and tick that follow each other as one run.

    Attributes:
        asset, tick: (m,) of each run.
        values: (m, F) the cells of its rows together.
        finite: (m, F) which of them hold a reading.
        orderly: (m,) whether it holds a reading, none for a cell twice, and is of the tick after the run before it.
        first, last: (g,) the first and last run of each asset.
        is_last: (m,) whether it is the last one of its asset.
        group: (m,) which asset it is of, as a position in `first`.
        of_row: (n,) the run of each row.
    """

    asset: Int64
    tick: Int64
    values: Float32
    finite: Bool
    orderly: Bool
    first: Int64
    last: Int64
    is_last: Bool
    group: Int64
    of_row: Int64

    @staticmethod
    def of(asset: Int64, tick: Int64, values: Float32) -> "_Runs":
        """Find the runs of rows (n,), (n,), (n, F)."""
        count = len(asset)
        begins = np.ones(count, np.bool_)
        np.logical_or(asset[1:] != asset[:-1], tick[1:] != tick[:-1], out=begins[1:])
        finite = np.isfinite(values)
        of_row = np.arange(count)
        orderly: Bool = np.asarray(finite.any(axis=1))
        if not begins.all():
            of_row = np.cumsum(begins) - 1
            starts = np.flatnonzero(begins)
            orderly = np.logical_and.reduceat(orderly, starts)
            orderly &= (np.add.reduceat(finite, starts, axis=0, dtype=np.int64) <= 1).all(axis=1)
            asset, tick = asset[starts], tick[starts]
            values = np.fmax.reduceat(values, starts, axis=0)
            finite = np.isfinite(values)
        is_first = np.ones(len(asset), np.bool_)
        is_first[1:] = asset[1:] != asset[:-1]
        is_last = np.ones(len(asset), np.bool_)
        is_last[:-1] = is_first[1:]
        orderly[1:] &= is_first[1:] | (tick[1:] == tick[:-1] + 1)
        first, last = np.flatnonzero(is_first), np.flatnonzero(is_last)
        return _Runs(
            asset, tick, values, finite, orderly, first, last, is_last, np.cumsum(is_first) - 1, of_row
        )

    def spread(self, of_asset: Bool) -> Bool:
        """Return for each row what holds for its asset."""
        return np.asarray(of_asset[self.group[self.of_row]])


def rounds_of(asset: Int64) -> list[Int64]:
    """Split positions so that round k holds the k-th entry of each asset; order inside an asset is kept.

    Args:
        asset: (n,) row indices, in order of arrival.

    Returns:
        Arrays of positions; their concatenation is a permutation of 0..n-1.
    """
    if len(asset) == 1:
        return [np.zeros(1, np.int64)]
    order = np.argsort(asset, kind="stable")
    ordered = asset[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    if len(starts) == len(asset):
        return [np.arange(len(asset))]
    rank = np.arange(len(asset)) - np.repeat(starts, np.diff(np.r_[starts, len(asset)]))
    by_rank = np.argsort(rank, kind="stable")
    cuts = np.flatnonzero(np.diff(rank[by_rank])) + 1
    return [np.sort(order[part]) for part in np.split(by_rank, cuts)]
