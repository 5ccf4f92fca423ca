"""What a picture shows of a long history: which sensors, which stretch, which points of a line."""

import math
from typing import Any

import numpy as np

from edge_agent.contract.bundle import Manifest
from edge_agent.contract.types import Bool, Float64, Int64
from trainer.evaluate import Evaluation

MOST_SENSORS = 12
STRETCH = 400
"""Samples of a stretch; more would run into each other on half a page."""
LONG_GAP = 60
"""Sampling intervals without a sample that part two stretches."""
MOST_POINTS = 3000
"""Of a line as wide as the page."""


def worst_sensors(found: Evaluation, manifest: Manifest) -> list[int]:
    """Return all sensors in order, or those with the largest residuals in units of their scale, worst first."""
    count = len(manifest.sensors)
    if count <= MOST_SENSORS:
        return list(range(count))
    squares = np.full(count, -1.0)
    for sensor, scale in enumerate(manifest.scaling.scale):
        residual = (found.values[:, sensor].astype(np.float64) - found.forecast[:, sensor]) / scale
        if np.isfinite(residual).any():
            squares[sensor] = np.nanmean(residual**2)
    return [int(sensor) for sensor in np.argsort(-squares, kind="stable")[:MOST_SENSORS]]


def liveliest_row(found: Evaluation, manifest: Manifest) -> int:
    """Return the row in whose surroundings the sensors move most: a flat stretch shows no forecast at work."""
    steps = np.nan_to_num(np.abs(np.diff(found.values, axis=0)) / manifest.scaling.scale.astype(np.float32))
    # Bounded, lest the one jump of a start decide for a stretch that is otherwise at rest.
    moved = np.minimum(steps, 0.2).sum(axis=1) * np.isfinite(found.score[1:])
    if len(moved) <= STRETCH:
        return len(moved) // 2
    total = np.cumsum(np.concatenate([[0.0], moved]))
    return int(np.argmax(total[STRETCH:] - total[:-STRETCH])) + STRETCH // 2


def stretch_around(found: Evaluation, row: int) -> Int64:
    """Return the rows of one stretch about the row, of one asset and without a long gap in time."""
    if not len(found.asset):
        return np.empty(0, np.int64)
    far = np.abs(np.diff(found.time)) > LONG_GAP * found.interval
    breaks = np.flatnonzero(far | (np.diff(found.asset) != 0)) + 1
    piece = int(np.searchsorted(breaks, row, side="right"))
    first, last = np.concatenate([[0], breaks, [len(found.asset)]])[piece : piece + 2]
    start = int(np.clip(row - STRETCH // 2, first, max(first, last - STRETCH)))
    return np.arange(start, min(start + STRETCH, last), dtype=np.int64)


def with_gaps(time: Float64, values: Any, interval: float) -> tuple[Float64, Any]:
    """Put a missing value into each gap in time, so that no line is drawn across it."""
    gaps = np.flatnonzero(np.diff(time) > 1.5 * interval) + 1
    whole = np.insert(values.astype(np.float64), gaps, np.nan, axis=0)
    return np.insert(time, gaps, time[gaps] - interval / 2), whole


def thinned(time: Float64, score: Float64) -> tuple[Float64, Float64]:
    """Thin a line to what the page can show; of each part the highest score is kept, never an average."""
    part = math.ceil(len(time) / MOST_POINTS)
    if part <= 1:
        return time, score
    starts = np.arange(0, len(time), part)
    # `fmax` passes over missing scores and keeps the hole where all of a part are missing.
    return time[starts], np.fmax.reduceat(score, starts)


def spans(time: Float64, flag: Bool, interval: float) -> list[tuple[float, float]]:
    """Return start and length of each run of true rows, in the unit of time and interval; a long gap ends a run."""
    rows = np.flatnonzero(flag)
    breaks = np.flatnonzero((np.diff(rows) > 1) | (np.diff(time[rows]) > LONG_GAP * interval))
    starts, ends = rows[np.append(0, breaks + 1)], rows[np.append(breaks, len(rows) - 1)]
    return [(time[a], time[b] - time[a] + interval) for a, b in zip(starts, ends, strict=True)]
