"""Window novelty: how far the last readings are, as a whole, from any that normal operation showed before.

The window is the last 32 samples of one sensor; the statistic is the root mean square distance to the nearest of the
reference windows (discords: Keogh, Lin and Fu 2005, HOT SAX; without the normalisation of the variance, because how far
a signal moves is part of it). It finds what no single reading shows, a cycle that is too long, cut short or missing.
Which windows are compared depends on what else is known of the machine:

- *Shapes*, windows without their means, of sensors whose shapes recur. Where the windows of one part of normal history
  are no nearer to those of another than to a straight line, every new window is a novelty: such sensors are left out,
  and cost nothing.
- *Contexts*, windows with their means, of every sensor of a machine of few sensors. There is no other sensor to hold a
  reading against, but the machine's state unfolds in the readings before (Takens 1981, Detecting Strange Attractors in
  Turbulence): a reading that is ordinary by itself and does not belong where it stands. Levels that were never seen are
  new, so that this needs a normaliser that follows what is usual of late (`trailing`).
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from edge_agent.contract.types import Bool, Float32, Float64, Int64

WINDOW = 32
"""Samples; with 16 the shapes of two thirds as many events were new, with 64 no more (docs/decisions/0008)."""
REFERENCES = 512
"""Windows at most, evenly spaced over the history: more cost time at the edge and are hardly nearer."""
RECURRENCE = 0.5
"""A sensor is judged if its later windows are at most half as far from earlier ones as from a straight line."""
FEW_SENSORS = 4
"""With fewer sensors than this the context is that of the sensor alone; more hold each other (docs/decisions/0013)."""
LEAST_DISTANCE = 0.2
"""Of a standard deviation of the sensor: a smaller difference of shape is not worth an alarm, however exactly the
history repeats itself."""
_CHUNK = 64
"""Windows of one product, so that what it gives stays in the processor's cache."""


@dataclass(frozen=True)
class ShapeModel:
    """Windows of normal operation.

    Attributes:
        sensors: (M,) positions of the sensors that are judged.
        references: (M, K, W) windows, scaled units.
        scale: (M,) the 0.99 quantile of normal distances, at least `LEAST_DISTANCE`.
        absolute: (M,) whether the windows keep their means.
    """

    sensors: Int64
    references: Float32
    scale: Float64
    absolute: Bool

    @staticmethod
    def none() -> "ShapeModel":
        """Return the model of no sensor."""
        nothing = np.empty(0)
        references = np.empty((0, 1, WINDOW), np.float32)
        return ShapeModel(nothing.astype(np.int64), references, nothing, nothing.astype(np.bool_))

    @cached_property
    def turned(self) -> Float32:
        """Return the references as the search for the nearest wants them."""
        return _turned(self.references)

    @property
    def least(self) -> float:
        """Return the statistic of a difference of `LEAST_DISTANCE` in every sensor."""
        if not len(self.sensors):
            return 1.0
        return float(np.sqrt(np.mean((LEAST_DISTANCE / self.scale) ** 2)))


def shape_statistic(model: ShapeModel, windows: Float32, present: Bool | None) -> Float64:
    """Return (n,) the root mean square over the present sensors of distance over scale; NaN where none is present.

    Args:
        model: shapes of normal operation.
        windows: (n, W, M) the newest last.
        present: (n, M) which sensors count; None is all.
    """
    ratio = _distances(model.references, model.turned, windows, model.absolute) / model.scale
    if present is None:
        return np.asarray(np.sqrt(np.einsum("nm,nm->n", ratio, ratio) / len(model.sensors)))
    counted = present.sum(axis=1)
    square = np.where(present, ratio * ratio, 0.0).sum(axis=1)
    return np.asarray(np.where(counted > 0, np.sqrt(square / np.maximum(counted, 1)), np.nan))


def shape_distances(references: Float32, windows: Float32, absolute: Bool) -> Float64:
    """Return (n, M) root mean square distances of windows (n, W, M) to the nearest reference (M, K, W).

    Of windows that are not `absolute` (M,) the mean is taken out first, as it is of their references.
    """
    return _distances(references, _turned(references), windows, absolute)


def _turned(references: Float32) -> Float32:
    """Return (M, W + 1, K) what a window, with a one behind it, is multiplied by to find its nearest reference.

    `|x - r|² = |x|² - 2 (x r - |r|² / 2)`: the nearest has the largest product, and that of one product is enough.
    """
    half = 0.5 * np.square(references).sum(axis=2, keepdims=True)
    return np.ascontiguousarray(np.concatenate([references, -half], axis=2).transpose(0, 2, 1))


def _distances(references: Float32, turned: Float32, windows: Float32, absolute: Bool) -> Float64:
    (count, length, _), sensors = windows.shape, len(references)
    found = np.empty((count, sensors))
    if not sensors:
        return found
    every = np.arange(sensors)[:, None]
    share = np.where(absolute, 0.0, 1.0 / length).astype(np.float32)[:, None]
    for at in range(0, count, _CHUNK):
        some = windows[at : at + _CHUNK]
        part = np.ones((sensors, len(some), length + 1), np.float32)
        part[:, :, :length] = some.transpose(2, 0, 1)
        shape = part[:, :, :length]
        shape -= (np.einsum("mnw->mn", shape) * share)[..., None]
        nearest = (part @ turned).argmax(axis=2)
        # The product finds the nearest quickly; as a distance it would have lost its digits where that is small.
        apart = shape - references[every, nearest]
        found[at : at + _CHUNK] = np.einsum("mnw,mnw->nm", apart, apart)
    found *= 1.0 / length
    return np.sqrt(found, out=found)


def fit_shapes(level: Float64, run: Int64, judged: Bool, adapts: bool = False) -> ShapeModel:
    """Find the sensors whose windows are judged, and their references.

    The last quarter of the rows is held against the first three to decide and to scale; the references are of all rows.

    Args:
        level: (n, F) normal levels, scaled units, NaN where missing.
        run: (n,) the same number for rows that follow each other without a break.
        judged: (F,) sensors that are judged at all.
        adapts: whether what is usual follows recent rows; only then contexts are judged.
    """
    cut = int(0.75 * len(level))
    context = adapts and int(judged.sum()) < FEW_SENSORS
    chosen, scale = [], []
    for sensor in np.flatnonzero(judged):
        earlier = _windows(level[:cut, sensor], run[:cut], REFERENCES, context)
        later = _windows(level[cut:, sensor], run[cut:], 8 * REFERENCES, context)
        if len(earlier) < WINDOW or len(later) < WINDOW:
            continue
        distance = shape_distances(earlier[None], later[:, :, None], np.array([context]))[:, 0]
        movement = float(np.median(np.sqrt(np.square(later).mean(axis=1))))
        if context or float(np.median(distance)) <= RECURRENCE * max(movement, 1e-3):
            chosen.append(int(sensor))
            scale.append(max(float(np.quantile(distance, 0.99)), LEAST_DISTANCE))
    if not chosen:
        return ShapeModel.none()
    windows = [_windows(level[:, sensor], run, REFERENCES, context) for sensor in chosen]
    fewest = min(len(part) for part in windows)
    references = np.stack([part[_spread(np.arange(len(part)), fewest)] for part in windows])
    return ShapeModel(np.asarray(chosen), references, np.asarray(scale), np.full(len(chosen), context))


def _windows(values: Float64, run: Int64, count: int, absolute: bool) -> Float32:
    """Return at most `count` windows (m, W) without a break or a missing value, evenly spaced.

    Their means are taken out, unless they are `absolute`.
    """
    if len(values) < WINDOW:
        return np.empty((0, WINDOW), np.float32)
    whole = np.lib.stride_tricks.sliding_window_view(values, WINDOW)
    missing = np.cumsum(np.r_[0, ~np.isfinite(values)])
    usable = (missing[WINDOW:] == missing[:-WINDOW]) & (run[: len(whole)] == run[WINDOW - 1 :])
    # Chosen before they are copied: all windows of a long history are many times its size.
    kept = whole[_spread(np.flatnonzero(usable), count)].astype(np.float32)
    return kept if absolute else np.asarray(kept - kept.mean(axis=1, keepdims=True))


def _spread(places: Int64, count: int) -> Int64:
    """Return at most `count` of the places, evenly spaced."""
    if len(places) <= count:
        return places
    return places[np.linspace(0, len(places) - 1, count).astype(np.int64)]
