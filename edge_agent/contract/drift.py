"""Drift: how far present normal operation stands from that of the calibration, slowly.

Two measures of each sensor: its *regression-adjusted* level, what the other sensors do not explain of it,
`r = P v / diag P` with v the bounded standardised levels and P the inverse of their correlation (Hawkins 1991,
Multivariate Quality Control Based on Regression-Adjusted Variables); and `g = log(u² + 0.01)` of its standardised
residual u, which rises where the forecaster forecasts worse. Modes of operation come and go within hours and would
hide either: both are averaged over batches of a day (or an eighth of a shorter calibration block), and the
deviations of the batches from those of the calibration are followed by an EWMA control chart (Roberts 1959),

    z = (mean of the batch − centre) / scale,   e ← e + 0.25 (z − e),   drift = max |e| / 3.

A scale is the upper 95 % limit of the batches' standard deviation: from eight batches it is not known better. Two
batches in a row with a drift of 1 or more advise to train anew; there is no further advice until it was below 0.7.
What an alarm is raised on, what a dead sensor reads, and batches with less than half of their samples do not count.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from edge_agent.contract.grid import UNSET
from edge_agent.contract.mahalanobis import Mahalanobis, bounded
from edge_agent.contract.scoring_model import ScoringModel
from edge_agent.contract.types import Bool, Float32, Float64, Int64, Places

DAY_SECONDS = 86_400.0
LEAST_BATCHES = 8
LEAST_BATCH_TICKS = 60
SMOOTHING = 0.25
"""A week of days: one odd day is no drift."""
LIMIT = 3.0
MOST = 10.0
"""Of z: a single batch, however odd, stays below the limit."""
PATIENCE = 2
REARM = 0.7
LEAST_SCALE = 0.02
_SMALL = 1e-2
_NORMAL_95 = 1.645


@dataclass(frozen=True)
class DriftModel:
    """Batches of normal operation, as calibration found them; F levels come first, then F residuals.

    Attributes:
        batch_ticks: length of a batch.
        least_samples: a batch with fewer is left out.
        centre, scale: (2F,) of the batches' means.
    """

    batch_ticks: int
    least_samples: int
    centre: tuple[float, ...]
    scale: tuple[float, ...]


@dataclass
class DriftState:
    """One row per asset.

    Attributes:
        batch: (A,) number of the open batch, `UNSET` before the first.
        samples: (A,) in it.
        total, cells: (A, 2F) sum of the measures in it, and of how many cells.
        average: (A, 2F) the smoothed deviations.
        beyond: (A,) batches in a row with a drift of 1 or more.
        advised: (A,) whether this episode was told of.
        advised_time: (A,) when, seconds since the epoch.
        since: (A,) when `beyond` began.
    """

    batch: Int64
    samples: Int64
    total: Float64
    cells: Float64
    average: Float64
    beyond: Int64
    advised: Bool
    advised_time: Float64
    since: Float64

    @staticmethod
    def zero(assets: int, sensors: int) -> "DriftState":
        """Return the state of assets that have seen nothing."""
        shape = (assets, 2 * sensors)
        return DriftState(
            np.full(assets, UNSET), np.zeros(assets, np.int64), np.zeros(shape), np.zeros(shape), np.zeros(shape),
            np.zeros(assets, np.int64), np.zeros(assets, np.bool_), np.full(assets, -np.inf), np.zeros(assets),
        )  # fmt: skip

    def drift(self, rows: Places) -> Float64:
        """Return (B,) the drift of assets; 1 is the limit."""
        return np.asarray(np.abs(self.average[rows]).max(axis=1) / LIMIT)


class DriftMeasures:
    """The two measures of each sensor, sample by sample.

    Args:
        model: the bundle's.
    """

    def __init__(self, model: ScoringModel) -> None:
        self._model = model
        precision = Mahalanobis(model.level_correlation).precision
        self._adjusting = precision / np.diag(precision)
        self.judged = np.concatenate([model.judged, model.judged])

    def of(self, level: Float64, residual: Float64, present: Bool | None) -> tuple[Float64, Bool | None]:
        """Return the measures (…, 2F) of levels and residuals (…, F), and which of them count; None is as `judged`.

        Args:
            level: scaled units.
            residual: scaled units.
            present: (…, F) which cells count; None is all.
        """
        model, width = self._model, level.shape[-1]
        v = bounded((level - model.level_centre) / model.level_scale)
        u = bounded((residual - model.residual_centre) / model.residual_scale)
        known = None
        if present is None:
            v, u = v * model.judged, u * model.judged
            if not model.judged.all():
                v = self._filled(v, model.judged)
        else:
            judged = present & model.judged
            v, u = self._filled(np.where(judged, v, 0.0), judged), np.where(judged, u, 0.0)
            known = np.concatenate([judged, judged], axis=-1)
        measures = np.empty((*level.shape[:-1], 2 * width))
        np.matmul(v.reshape(-1, width), self._adjusting, out=measures.reshape(-1, 2 * width)[:, :width])
        measures[..., width:] = np.log(u * u + _SMALL)
        return measures, known

    def _filled(self, v: Float64, judged: Bool) -> Float64:
        """Return levels in which a missing sensor stands where the others say: at zero it would pull theirs."""
        return np.where(judged, v, v - v @ self._adjusting)


class DriftWatch:
    """Follows the drift of each asset; holds no state itself.

    Args:
        drift: what calibration found.
        model: the bundle's scoring model.
    """

    def __init__(self, drift: DriftModel, model: ScoringModel) -> None:
        self._drift = drift
        self._measures = DriftMeasures(model)
        self._centre, self._scale = np.asarray(drift.centre), np.asarray(drift.scale)

    def follow(
        self, state: DriftState, rows: Places, tick: Int64, time: Float64, level: Float64, residual: Float64,
        present: Bool | None,
    ) -> Int64:  # fmt: skip
        """Take L samples of each of B assets that are not in alarm; only the first may begin a new batch.

        Args:
            state: changed in place.
            rows: B assets, each named once.
            tick: (B, L) of the samples.
            time: (B, L) of the samples, seconds since the epoch.
            level: (B, L, F) scaled units.
            residual: (B, L, F) scaled units.
            present: (B, L, F) which cells count; None is all.

        Returns:
            the assets of which to train anew is advised with this sample.
        """
        advised = np.empty(0, np.int64)
        begun = self.begins(state, rows, tick[:, 0])
        if begun.any():
            at = np.flatnonzero(begun & (state.batch[rows] != UNSET))
            advised = self._close(state, np.arange(len(state.batch))[rows][at], time[at, 0])
            state.batch[rows] = tick[:, 0] // self._drift.batch_ticks
        measures, known = self._measures.of(level, residual, present)
        if known is None:
            state.total[rows] += measures.sum(axis=1)
            state.cells[rows] += self._measures.judged * tick.shape[1]
        else:
            state.total[rows] += np.where(known, measures, 0.0).sum(axis=1)
            state.cells[rows] += known.sum(axis=1)
        state.samples[rows] += tick.shape[1]
        return advised

    def begins(self, state: DriftState, rows: Places, tick: Int64) -> Bool:
        """Return (B,) or (B, L) which samples at ticks of that shape are not of the open batch of their asset."""
        batch = state.batch[rows]
        return np.asarray(tick // self._drift.batch_ticks != (batch if tick.ndim == 1 else batch[:, None]))

    def _close(self, state: DriftState, rows: Int64, time: Float64) -> Int64:
        """End the open batches of assets (B,) and return those of which to train anew is advised."""
        full = state.samples[rows] >= self._drift.least_samples
        cells = state.cells[rows]
        counts = full[:, None] & (cells >= self._drift.least_samples)
        mean = state.total[rows] / np.maximum(cells, 1.0)
        z = np.clip((mean - self._centre) / self._scale, -MOST, MOST)
        average = state.average[rows]
        state.average[rows] = average + SMOOTHING * np.where(counts, z - average, 0.0)
        state.total[rows], state.cells[rows], state.samples[rows] = 0.0, 0.0, 0
        drift, before = state.drift(rows), state.beyond[rows]
        far = drift >= 1.0
        state.beyond[rows] = np.where(full, np.where(far, before + 1, 0), before)
        state.since[rows] = np.where(full & far & (before == 0), time, state.since[rows])
        state.advised[rows] &= drift >= REARM
        due = full & (state.beyond[rows] >= PATIENCE) & ~state.advised[rows]
        due &= time - state.advised_time[rows] >= DAY_SECONDS
        state.advised[rows] |= due
        state.advised_time[rows] = np.where(due, time, state.advised_time[rows])
        return rows[due]


def fit_drift(
    model: ScoringModel,
    level: Float32 | Float64,
    residual: Float32 | Float64,
    asset: Int64,
    tick: Int64,
    interval: float,
) -> DriftModel | None:
    """Learn what batches of normal operation are like, from rows that the forecaster was not fitted on.

    Args:
        model: learnt from other rows.
        level: (n, F) scaled units, NaN where a cell does not count.
        residual: (n, F) the same of residuals.
        asset: (n,) of the rows, in order.
        tick: (n,) of the rows.
        interval: seconds between ticks.

    Returns:
        None where there are too few batches to tell what is usual.
    """
    day = round(DAY_SECONDS / interval)
    for ticks in (day, len(tick) // (LEAST_BATCHES + 1)):
        if ticks < LEAST_BATCH_TICKS:
            continue
        means = _batch_means(DriftMeasures(model), level, residual, asset, tick, ticks)
        if len(means) >= LEAST_BATCHES:
            scale = np.maximum(means.std(axis=0, ddof=1) * _upper(len(means)), LEAST_SCALE)
            return DriftModel(
                ticks, max(1, ticks // 2), tuple(means.mean(axis=0).tolist()), tuple(scale.tolist())
            )
    return None


def _batch_means(
    measures: DriftMeasures,
    level: Float32 | Float64,
    residual: Float32 | Float64,
    asset: Int64,
    tick: Int64,
    ticks: int,
) -> Float64:
    """Return (N, 2F) the means of the batches that hold at least half of their samples."""
    batch = tick // ticks
    starts = np.flatnonzero(
        (np.diff(asset, prepend=asset[:1] - 1) != 0) | (np.diff(batch, prepend=batch[:1]) != 0)
    )
    means = [np.empty((0, 2 * level.shape[1]))]
    # Batch by batch: the measures of all rows would be many times as large as a long history.
    for first, end in pairwise((*starts.tolist(), len(tick))):
        if end - first < max(1, ticks // 2):
            continue
        one, other = level[first:end], residual[first:end]
        present = np.isfinite(one) & np.isfinite(other)
        values, known = measures.of(np.where(present, one, 0.0), np.where(present, other, 0.0), present)
        known = np.broadcast_to(measures.judged, values.shape) if known is None else known
        total = np.where(known, values, 0.0).sum(axis=0)
        means.append((total / np.maximum(known.sum(axis=0), 1))[None])
    return np.concatenate(means)


def _upper(count: int) -> float:
    """Return what a standard deviation of `count` values is multiplied by for the next one's upper 95 % limit.

    By the chi-squared quantile of Wilson and Hilferty (1931).
    """
    free = count - 1
    lowest = free * (1.0 - 2.0 / (9.0 * free) - _NORMAL_95 * np.sqrt(2.0 / (9.0 * free))) ** 3
    return float(np.sqrt(free / lowest) * np.sqrt(1.0 + 1.0 / count))
