"""Faults of known kinds, injected into normal history that nothing was fitted on, so that detection can be measured.

They are faults of sensors that are forecast, while the machine runs: an exogenous quantity is not judged, nor is a
machine that is off or settles.

Each is drawn from a seed and sized by the sensor's own standard deviation in the history before, so that all that are
compared meet the very same faults. Kinds, for a size s and a deviation σ:

*offset* adds s σ; *drift* adds a ramp from 0 to s σ; *stuck* repeats the last reading; *noise* adds white noise of
s σ / 2; *scale* moves 1 + s times as far from the median; *correlation* shows what the same sensor read at another
time, so that it looks like itself and no longer goes with the others.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edge_agent.contract.errors import HistoryError
from edge_agent.contract.types import Bool, Float32, Float64, Int64
from trainer.cleaning import Cleaned, Series

KINDS = ("offset", "drift", "stuck", "noise", "scale", "correlation")
SIZES = (1.0, 4.0)
"""Standard deviations, drawn evenly on a logarithmic scale: from what hardly shows to what nobody overlooks."""
FAULT_ROWS = 120
"""Twice the longest span."""
WARM_ROWS = 300
"""Beside the window: what runs before a fault, until the averages have forgotten their start."""


@dataclass(frozen=True)
class InjectedFault:
    """One fault with the rows before it.

    Attributes:
        kind: one of `KINDS`.
        sensor: place of the sensor that fails.
        size: standard deviations.
        ticks: (W + D,) of the rows before and of the fault.
        values: (W + D, F) engineering units, spoilt in the last D rows.
    """

    kind: str
    sensor: int
    size: float
    ticks: Int64
    values: Float32


@dataclass(frozen=True)
class Ground:
    """What faults are injected into.

    Attributes:
        block: history later than what is fitted on; its labelled rows are left alone.
        sensors: (f,) places of the sensors that may fail.
        resting: of each asset (n,) rows without a score, in which no fault could be found.
    """

    block: Cleaned
    sensors: Int64
    resting: tuple[Bool, ...]


@dataclass(frozen=True)
class _Habit:
    """Median and standard deviation (F,) of the history before."""

    centre: Float64
    spread: Float64


def inject_faults(
    past: Cleaned, ground: Ground, per_kind: int, warm_rows: int, max_gap_ticks: int, seed: int
) -> list[InjectedFault]:
    """Draw faults, so many of each kind, each in rows of its own choice.

    Args:
        past: history that the sizes come from.
        ground: where.
        per_kind: faults of each kind.
        warm_rows: rows before each fault.
        max_gap_ticks: no longer gap is within the rows of a fault.
        seed: of the draw.

    Raises:
        HistoryError: no stretch of the block is long enough, or no sensor moves.
    """
    rng = np.random.default_rng([seed, 5])
    habit = _habit(past)
    moving = ground.sensors[habit.spread[ground.sensors] > 0.0]
    if not len(moving):
        raise HistoryError("no sensor moves, so that no fault could be told from normal operation")
    length = warm_rows + FAULT_ROWS
    places = [
        (series, first)
        for series, resting in zip(ground.block.series, ground.resting, strict=True)
        for first in _stretches(series, resting, length, max_gap_ticks)
    ]
    if not places:
        raise HistoryError(
            f"history too short: no {length} unlabelled samples in a row"
            f"{', the last of them while the machine runs,' if any(map(np.any, ground.resting)) else ''} in the block "
            "that judges, which is the last part before the calibration block"
        )
    kinds = KINDS if len(past.sensors) > 1 else KINDS[:-1]
    drawn = []
    for kind in kinds:
        for _ in range(per_kind):
            series, first = places[int(rng.integers(len(places)))]
            sensor = int(rng.choice(moving))
            size = float(np.exp(rng.uniform(*np.log(SIZES))))
            rows = slice(first, first + length)
            values = series.values[rows].copy()
            spoil(
                values[warm_rows:, sensor], kind, size, habit, sensor, series, values[:warm_rows, sensor], rng
            )
            drawn.append(InjectedFault(kind, sensor, size, series.ticks[rows], values))
    return drawn


def spoil(
    readings: Float32,
    kind: str,
    size: float,
    habit: _Habit,
    sensor: int,
    series: Series,
    before: Float32,
    rng: np.random.Generator,
) -> None:
    """Spoil the readings (D,) of one sensor in place; missing ones stay missing.

    Args:
        readings: of the fault's rows.
        kind: one of `KINDS`.
        size: standard deviations.
        habit: of the sensors.
        sensor: which one.
        series: from which a fault of the correlation takes other readings.
        before: (W,) the sensor's readings before.
        rng: source of randomness.
    """
    spread, centre, count = habit.spread[sensor], habit.centre[sensor], len(readings)
    sign = float(rng.choice([-1.0, 1.0]))
    if kind == "offset":
        readings += np.float32(sign * size * spread)
    elif kind == "drift":
        readings += (sign * size * spread * np.arange(1, count + 1) / count).astype(np.float32)
    elif kind == "stuck":
        known = before[np.isfinite(before)]
        readings[np.isfinite(readings)] = known[-1] if len(known) else np.float32(centre)
    elif kind == "noise":
        readings += (size / 2.0 * spread * rng.standard_normal(count)).astype(np.float32)
    elif kind == "scale":
        readings[:] = (centre + (1.0 + size) * (readings - centre)).astype(np.float32)
    else:
        first = int(rng.integers(len(series.values) - count + 1))
        readings[:] = np.where(np.isfinite(readings), series.values[first : first + count, sensor], np.nan)


def _habit(past: Cleaned) -> _Habit:
    values = np.concatenate([series.values for series in past.series]).astype(np.float64)
    empty = ~np.isfinite(values).any(axis=0)
    values[:, empty] = 0.0
    return _Habit(np.nanmedian(values, axis=0), np.nanstd(values, axis=0))


def _stretches(series: Series, resting: Bool, length: int, max_gap_ticks: int) -> Sequence[int]:
    """Return the rows at which a stretch of a length begins, without a long gap and without a labelled row.

    The machine may rest in it before the fault, and not while that lasts.
    """
    if len(series.ticks) < length:
        return []
    broken = np.r_[False, np.diff(series.ticks) - 1 > max_gap_ticks]
    labelled = np.zeros(len(broken), np.bool_) if series.labels is None else series.labels > 0
    breaks, faulty, rests = (np.r_[0, np.cumsum(rows)] for rows in (broken, labelled, resting))
    first = np.arange(len(series.ticks) - length + 1)
    # The row that a stretch begins with may stand after a gap, those after it may not.
    whole = breaks[first + length] == breaks[first + 1]
    running = rests[first + length] == rests[first + length - FAULT_ROWS]
    return np.flatnonzero(whole & running & (faulty[first + length] == faulty[first])).tolist()
