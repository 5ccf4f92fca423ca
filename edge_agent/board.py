"""What is known of each asset right now, in arrays that the metrics read at scrape time."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from edge_agent.contract.quality_state import SENSOR_REASONS, SILENT, Int8
from edge_agent.contract.types import Bool, Float32, Float64, Outcomes, QualityEvent, Rows

REASONS = (SILENT, *SENSOR_REASONS)
"""Why readings cannot be used; the code of a reason on the board is its place here, counted from 1."""


@dataclass
class BoardState:
    """One row per asset; NaN where nothing is known yet.

    Attributes:
        score, statistic: (A,) of the last sample; NaN while warming up.
        sample_time: (A,) seconds since the epoch, of the last sample.
        alarm: (A,) whether the asset is in alarm.
        hidden, muted, maintained: (A,) whether that alarm is suppressed, the asset muted, or in maintenance.
        warming: (A,) whether the last sample had no score, unless the machine was off.
        off: (A,) whether the machine was off or settling at the last sample.
        arrival: (A,) when the last reading arrived, seconds since the epoch.
        waiting_since: (A,) when the first reading arrived that no score has followed yet.
        factor: (A,) what the threshold is multiplied by.
        drift: (A,) 1 is the limit.
        value, expected: (A, F) last reading and last forecast, engineering units.
        quality: (A, F + 1) why the readings of each sensor cannot be used, 0 where they can; the last column is that
            of the whole asset.
    """

    score: Float64
    statistic: Float64
    sample_time: Float64
    alarm: Bool
    hidden: Bool
    muted: Bool
    maintained: Bool
    warming: Bool
    off: Bool
    arrival: Float64
    waiting_since: Float64
    factor: Float64
    drift: Float64
    value: Float32
    expected: Float32
    quality: Int8

    @staticmethod
    def blank(assets: int, sensors: int) -> "BoardState":
        """Return the state of assets of which nothing is known."""

        def unknown() -> Float64:
            return np.full(assets, np.nan)

        def unknown_sensors() -> Float32:
            return np.full((assets, sensors), np.nan, np.float32)

        def no() -> Bool:
            return np.zeros(assets, np.bool_)

        return BoardState(
            unknown(), unknown(), unknown(),
            no(), no(), no(), no(), no(), no(),
            unknown(), unknown(), unknown(), unknown(),
            unknown_sensors(),
            unknown_sensors(),
            np.zeros((assets, sensors + 1), np.int8),
        )  # fmt: skip


class AssetBoard:
    """Keeps the last word on each asset; the main loop writes, scrapes read, a lock keeps them apart.

    Args:
        sensor_count: F.
    """

    def __init__(self, sensor_count: int) -> None:
        self._sensor_count = sensor_count
        self._state = BoardState.blank(16, sensor_count)
        self._lock = threading.Lock()

    def take_rows(self, rows: Rows, arrival: float) -> None:
        """Note readings that arrived at `arrival`, seconds since the epoch; of two for one cell the later row stays."""
        if not len(rows):
            return
        with self._lock:
            self._make_room(int(rows.asset.max()) + 1)
            state = self._state
            known = np.isfinite(rows.values)
            if known.all():
                state.value[rows.asset] = rows.values
            else:
                row, column = np.nonzero(known)
                state.value[rows.asset[row], column] = rows.values[row, column]
            state.arrival[rows.asset] = arrival
            idle = rows.asset[np.isnan(state.waiting_since[rows.asset])]
            state.waiting_since[idle] = arrival

    def take_outcomes(self, outcomes: Outcomes) -> None:
        """Note what scoring said."""
        if not len(outcomes):
            return
        with self._lock:
            self._make_room(int(outcomes.asset.max()) + 1)
            state, asset = self._state, outcomes.asset
            scored = np.isfinite(outcomes.score)
            state.score[asset] = outcomes.score
            state.statistic[asset] = outcomes.statistic
            state.sample_time[asset] = outcomes.time
            state.alarm[asset] = outcomes.alarm
            off = np.zeros(len(asset), np.bool_) if outcomes.off is None else outcomes.off
            state.warming[asset] = ~(scored | off)
            state.off[asset] = off
            state.expected[asset] = outcomes.forecast
            for held, told in ((state.factor, outcomes.factor), (state.drift, outcomes.drift)):
                if told is not None:
                    held[asset[scored]] = told[scored]
            state.waiting_since[asset[scored | off]] = np.nan

    def take_quality(self, event: QualityEvent) -> None:
        """Note which sensors cannot be used."""
        with self._lock:
            self._make_room(event.asset + 1)
            row = self._state.quality[event.asset]
            row[:] = 0
            for one in event.sensors if event.phase != "end" else ():
                row[one.sensor] = REASONS.index(one.reason) + 1

    def take_feedback(self, hidden: Sequence[int], muted: Sequence[int], maintained: Sequence[int]) -> None:
        """Note the rows of all assets whose alarm is suppressed, that are muted, and that are in maintenance."""
        with self._lock:
            self._make_room(max((*hidden, *muted, *maintained), default=-1) + 1)
            state = self._state
            for flags, rows in ((state.hidden, hidden), (state.muted, muted), (state.maintained, maintained)):
                flags[:] = False
                flags[list(rows)] = True

    def end_alarm(self, asset: int) -> None:
        """Note that an asset's alarm was ended from outside, though no sample of it may come."""
        with self._lock:
            self._make_room(asset + 1)
            self._state.alarm[asset] = False

    def snapshot(self, assets: int) -> BoardState:
        """Return a copy of the first `assets` rows."""
        with self._lock:
            self._make_room(assets)
            copies: list[NDArray[np.generic]] = [
                getattr(self._state, item.name)[:assets].copy() for item in fields(BoardState)
            ]
        return BoardState(*copies)  # type: ignore[arg-type]  # in the order of the fields

    def not_scoring(self, grace: float) -> int:
        """Return how many assets have sent readings for more than `grace` seconds without a score."""
        with self._lock:
            waiting = self._state.arrival - self._state.waiting_since
            return int(np.count_nonzero(waiting > grace))

    def warming_up(self) -> int:
        """Return how many assets send samples that have no score yet."""
        with self._lock:
            return int(np.count_nonzero(self._state.warming))

    def dead_series(self, beyond: int) -> int:
        """Return how many sensors and assets cannot be used among the assets from row `beyond` on."""
        with self._lock:
            return int(np.count_nonzero(self._state.quality[beyond:]))

    @staticmethod
    def of(state: BoardState) -> "AssetBoard":
        """Return a board that holds a state."""
        board = AssetBoard(state.value.shape[1])
        board._state = state
        return board

    def _make_room(self, assets: int) -> None:
        have = len(self._state.score)
        if assets <= have:
            return
        grown = BoardState.blank(max(assets, have + have // 8), self._sensor_count)
        for item in fields(BoardState):
            getattr(grown, item.name)[:have] = getattr(self._state, item.name)
        self._state = grown
