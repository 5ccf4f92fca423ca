"""A whole history onto the regular time axis at once, by the rules of the streaming grid."""

import numpy as np

from edge_agent.contract.types import Float32, Float64, Int64


def tick_of(times: Float64, interval: float, phase: float) -> Int64:
    """Return the tick nearest to each time; a time in the middle between two belongs to the later one.

    Args:
        times: (n,) seconds since the epoch, finite.
        interval: seconds between two ticks, above 0.
        phase: seconds since the epoch of tick 0.

    Returns:
        (n,) int64; tick k stands at `phase + k * interval`.
    """
    return np.floor((times - phase) / interval + 0.5).astype(np.int64)


def grid_history(
    times: Float64, values: Float32, interval: float, phase: float
) -> tuple[Int64, Float32, int]:
    """Put the readings of one asset onto its grid.

    In each cell the last reading wins, by time and then by arrival; a NaN is no reading and never wins. Rows
    whose time is not finite are left out.

    Args:
        times: (n,) seconds since the epoch, in order of arrival, which need not be the order of time.
        values: (n, F) float32 in engineering units; NaN where missing.
        interval: seconds between two ticks, above 0.
        phase: seconds since the epoch of tick 0.

    Returns:
        ticks (m,) int64, strictly ascending, those with at least one reading; values (m, F) float32; and how many
        rows fell into a tick that already had one.
    """
    finite = np.isfinite(times)
    if not finite.all():
        times, values = times[finite], values[finite]
    if np.any(np.diff(times) < 0):
        order = np.argsort(times, kind="stable")
        times, values = times[order], values[order]
    ticks = tick_of(times, interval, phase)
    starts = np.flatnonzero(np.diff(ticks, prepend=ticks[:1] - 1))
    duplicates = len(ticks) - len(starts)
    if duplicates:
        ticks, values = ticks[starts], _last_of_group(values, starts)
    present = np.zeros(len(ticks), np.bool_)
    for column in range(values.shape[1]):
        present |= ~np.isnan(values[:, column])
    if not present.all():
        ticks, values = ticks[present], values[present]
    return ticks, values, duplicates


def _last_of_group(values: Float32, starts: Int64) -> Float32:
    """Return (m, F): per group of rows and per sensor the last value that is not NaN."""
    rows = np.arange(len(values))
    merged = np.empty((len(starts), values.shape[1]), np.float32)
    # One column at a time: the index of a whole history would be as large as the history itself, twice.
    for column in range(values.shape[1]):
        cells = values[:, column]
        last = np.maximum.reduceat(np.where(np.isnan(cells), -1, rows), starts)
        merged[:, column] = np.where(last >= 0, cells[last], np.nan)
    return merged
