"""History into regular, repaired series, one per asset; every repair is counted and nothing is repaired in silence."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_agent.contract.errors import HistoryError
from edge_agent.contract.grid_history import grid_history, tick_of
from edge_agent.contract.types import Bool, Float32, Float64, Int64
from edge_agent.history import History

MINIMUM_SAMPLES = 20
"""Fewer samples than this carry neither a scale nor an interval."""
ON_GRID = 0.01
"""A time within this share of an interval of its tick counts as standing on it."""
REGULAR_SHARE = 0.5
"""At least this share of the steps has to be near the median, or it is no sampling interval."""


@dataclass(frozen=True)
class Series:
    """The samples of one asset.

    Attributes:
        asset: the asset's id.
        ticks: (n,) int64, strictly ascending; only ticks that have a reading.
        values: (n, F) float32, NaN where missing.
        labels: (n,) int8, 1 where a reading of the tick is labelled; None without labels.
        false_alarms: (n,) where an operator marked a false alarm; None where nobody did.
    """

    asset: str
    ticks: Int64
    values: Float32
    labels: NDArray[np.int8] | None
    false_alarms: Bool | None = None


@dataclass(frozen=True)
class Cleaned:
    """Series on one grid: tick k stands at `phase + k * interval` seconds since the epoch.

    Attributes:
        sensors: names of the F sensors, without those that are missing throughout.
        interval: seconds between two ticks.
        phase: seconds, 0 or more and less than `interval`.
        series: one entry per asset that has samples.
        repairs: how many rows or cells were repaired, by kind.
        notices: what the user should know, a sentence each.
        constant: names of the sensors that never change; they are kept.
        rows: rows of the history before cleaning.
        unused: names of sensors that were left out although they have readings.
    """

    sensors: tuple[str, ...]
    interval: float
    phase: float
    series: tuple[Series, ...]
    repairs: dict[str, int]
    notices: tuple[str, ...]
    constant: tuple[str, ...]
    rows: int
    unused: tuple[str, ...] = ()


def clean(history: History, interval: float | None = None, phase: float | None = None) -> Cleaned:
    """Sort, merge duplicates and put every asset on a regular grid.

    Args:
        history: as read, in the order of the file.
        interval: seconds between two samples; None recognises it from the median step.
        phase: of the ticks, seconds since the epoch; None recognises it. A bundle has its own, to which the daemon
            and so an evaluation hold.

    Raises:
        HistoryError: the history is too short, has no values, or is too irregular to have an interval.
    """
    if interval is not None and not (np.isfinite(interval) and interval > 0):
        raise HistoryError(
            f"{history.source}: the sampling interval is {interval}, it must be above 0 seconds"
        )
    _need_samples(history, len(history.time))
    notices = list(history.notices)
    sensors, values = _drop_missing(history, notices)
    parts = [_rows_of(history, index) for index in range(len(history.assets))]
    parts = [rows for rows in parts if len(rows)]
    times = [history.time[rows] for rows in parts]
    if interval is None:
        interval = _recognise_interval(history.source, times, [values[rows] for rows in parts])
    if phase is None:
        phase = _recognise_phase(np.concatenate(times), interval)
    repairs = Counter(history.repairs)
    series = [_series(history, values, rows, interval, phase, repairs) for rows in parts]
    series = [one for one in series if len(one.ticks)]
    _need_samples(history, sum(len(one.ticks) for one in series))
    constant = _constant(sensors, values)
    if constant:
        notices.append(
            f"{history.source}: constant throughout, kept and only range-guarded: {', '.join(constant)}"
        )
    counted = {kind: count for kind, count in repairs.items() if count}
    return Cleaned(
        sensors, interval, phase, tuple(series), counted, tuple(notices), constant, len(history.time)
    )


def _need_samples(history: History, count: int) -> None:
    if count < MINIMUM_SAMPLES:
        raise HistoryError(
            f"{history.source}: the history is too short, it has {count} samples and needs {MINIMUM_SAMPLES}"
        )


def _drop_missing(history: History, notices: list[str]) -> tuple[tuple[str, ...], Float32]:
    """Return the sensors with at least one reading, and their values (n, F')."""
    filled = [not np.isnan(history.values[:, place]).all() for place in range(len(history.sensors))]
    if all(filled) and filled:
        return history.sensors, history.values
    if not any(filled):
        raise HistoryError(f"{history.source}: every value of every sensor is missing")
    missing = [name for name, has in zip(history.sensors, filled, strict=True) if not has]
    notices.append(f"{history.source}: missing throughout and dropped: {', '.join(missing)}")
    kept = tuple(name for name, has in zip(history.sensors, filled, strict=True) if has)
    return kept, history.values[:, np.asarray(filled)]


def _rows_of(history: History, index: int) -> Int64:
    return np.flatnonzero(history.asset == index)


def _recognise_interval(source: str, times: list[Float64], values: list[Float32]) -> float:
    """Return the usual step between two readings of the same sensor, in seconds.

    Sensors that report in turn make rows closer together than any sensor reports, so the steps of rows would mislead.
    """
    steps = np.concatenate([_steps(time, table) for time, table in zip(times, values, strict=True)])
    if not len(steps):
        raise HistoryError(
            f"{source}: all readings have the same time, no sampling interval can be recognised"
        )
    median = float(np.median(steps))
    near = float(np.mean(np.abs(steps - median) <= 0.5 * median))
    if near < REGULAR_SHARE:
        raise HistoryError(
            f"{source}: the times are too irregular, only {near:.0%} of the steps are near the median of {median:g} s; "
            "give the sampling interval"
        )
    return _round_interval(median)


def _steps(time: Float64, values: Float32) -> Float64:
    """Return the positive steps of the sensor that reports most often."""
    counts = [int((~np.isnan(values[:, place])).sum()) for place in range(values.shape[1])]
    steps = np.diff(np.sort(time[~np.isnan(values[:, int(np.argmax(counts))])]))
    return steps[steps > 0]


def _round_interval(step: float) -> float:
    """Return the whole number of seconds, or of samples a second, that is within 2 % of the step, else the step."""
    near = float(round(step)) if step >= 1 else 1.0 / round(1.0 / step)
    return near if near > 0 and abs(near - step) <= 0.02 * step else step


def _recognise_phase(times: Float64, interval: float) -> float:
    """Return where in the interval the times usually stand, in seconds; 0 where they stand near whole intervals."""
    beyond = np.mod(times, interval)
    turn = np.exp(2j * np.pi * beyond / interval).mean()
    centre = float(np.angle(turn)) / (2 * np.pi) * interval
    # The mean on the circle is pulled by stragglers; the median around it is not.
    around = np.mod(beyond - centre + interval / 2, interval) - interval / 2
    phase = float(np.mod(centre + np.median(around), interval))
    if min(phase, interval - phase) < 0.05 * interval:
        return 0.0
    return round(phase, 6)


def _series(
    history: History, values: Float32, rows: Int64, interval: float, phase: float, repairs: Counter[str]
) -> Series:
    time, table = history.time[rows], values[rows]
    ordered = np.sort(time)
    same_time = int((np.diff(ordered) == 0).sum())
    ticks, gridded, merged = grid_history(time, table, interval, phase)
    tick = tick_of(time, interval, phase)
    repairs["row out of order"] += int((np.diff(time) < 0).sum())
    repairs["duplicate time"] += same_time
    repairs["row merged into the tick of another"] += merged - same_time
    repairs["time moved to the grid"] += int(
        (np.abs(phase + tick * interval - time) > ON_GRID * interval).sum()
    )
    repairs["tick without a reading"] += int(ticks[-1] - ticks[0]) + 1 - len(ticks) if len(ticks) else 0
    repairs["missing value"] += int(np.isnan(gridded).sum())
    labels = None
    if history.labels is not None:
        labels = np.isin(ticks, tick[history.labels[rows] != 0]).astype(np.int8)
    return Series(history.assets[int(history.asset[rows[0]])], ticks, gridded, labels)


def _constant(sensors: tuple[str, ...], values: Float32) -> tuple[str, ...]:
    columns = ((name, values[:, place]) for place, name in enumerate(sensors))
    return tuple(name for name, cells in columns if np.nanmin(cells) == np.nanmax(cells))
