"""What a detector must beat: verdicts that take no model, or a classical one.

`all-positive`, `random` and `clock` need no data at all. The others give a statistic, and `floor_alarms` makes alarms
of it, so that they differ in the statistic alone. Each standardises with the part of the history that it learns from,
holds the last value of a missing cell, and reads fewer than `FEW_SENSORS` sensors together with their last rows.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from sklearn.ensemble import IsolationForest

from edge_agent.contract.mahalanobis import Mahalanobis, bounded, shrunk_correlation
from edge_agent.contract.types import Float64
from trainer.benchmark.cases import Case, Contender, Verdict, runs_of
from trainer.benchmark.floor_alarms import judge_statistic, learnt_rows

CLOCK_SHARE = 0.25
"""The clock's alarm begins after this share of the test rows: it looks at none, though it knows how many there are."""
FEW_SENSORS = 4
LAGS = 8
"""Rows that stand in for the sensors that a machine with few of them lacks."""
AUTOREGRESSION = 3
RIDGE = 1e-2
KEPT_VARIANCE = 0.9
LARGEST = 1e6
"""Standardised values are cut here: a sensor that never moved in the history may be anywhere afterwards."""


class AllPositive:
    """An alarm that never ends."""

    name = "all-positive"
    seeded = False

    def judge(self, case: Case, seed: int) -> Verdict:
        """Flag every row."""
        rows = len(case.labels)
        return Verdict(np.ones(rows), np.ones(rows, np.bool_), np.zeros(min(rows, 1), np.int64))


class Random:
    """A fair coin for every row: the score is uniform between 0 and 2."""

    name = "random"
    seeded = True

    def judge(self, case: Case, seed: int) -> Verdict:
        """Flag half of the rows."""
        score = np.random.default_rng([seed, *case.name.encode()]).uniform(0.0, 2.0, len(case.labels))
        alarm = score >= 1.0
        return Verdict(score, alarm, np.array([first for first, _ in runs_of(alarm)], np.int64))


class Clock:
    """An alarm from a quarter of the test rows to their end: what a set with labels in one place is worth."""

    name = "clock"
    seeded = False

    def judge(self, case: Case, seed: int) -> Verdict:
        """Flag every row from the first quarter on."""
        rows = len(case.labels)
        first = int(CLOCK_SHARE * rows)
        score: Float64 = np.arange(1.0, rows + 1.0) / (1.0 + first)
        return Verdict(score, score >= 1.0, np.array([first][:rows], np.int64))


@dataclass(frozen=True)
class Measured:
    """A statistic of all rows (m,), and how strange each sensor is (m, F) where that is known."""

    statistic: Float64
    blame: Float64 | None


Measure = Callable[[Float64, int, int], Measured]
"""From standardised rows (m, F), how many of them may be learnt from, and a seed."""


class StatisticFloor:
    """A statistic with a threshold from the history.

    Args:
        name: for the table.
        measure: gives the statistic.
        seeded: whether it draws.
    """

    def __init__(self, name: str, measure: Measure, seeded: bool = False) -> None:
        self.name = name
        self.seeded = seeded
        self._measure = measure

    def judge(self, case: Case, seed: int) -> Verdict:
        """Learn on the first part of the history, calibrate on the rest, judge the test rows."""
        learnt = learnt_rows(case)
        found = self._measure(_standardised(case, learnt), learnt, seed)
        return judge_statistic(case, found.statistic, found.blame)


def measure_persistence(rows: Float64, learnt: int, seed: int) -> Measured:
    """Return how far each row is from the one before: the forecast that nothing changes."""
    step = np.diff(rows, axis=0, prepend=rows[:1])
    step = step / np.maximum(step[:learnt].std(axis=0), 1e-3)
    return Measured(np.sqrt((step**2).mean(axis=1)), np.abs(step))


def measure_pca(rows: Float64, learnt: int, seed: int) -> Measured:
    """Return Hotelling's T² and Q (Jackson and Mudholkar 1979), each over its 0.99 quantile, the larger of the two.

    Components are kept up to 90 % of the variance.
    """
    wide = _with_lags(rows)
    variance, directions = np.linalg.eigh(np.cov(wide[:learnt], rowvar=False))
    variance, directions = variance[::-1], directions[:, ::-1]
    kept = 1 + int(np.searchsorted(np.cumsum(variance) / max(variance.sum(), 1e-12), KEPT_VARIANCE))
    inside = wide @ directions[:, :kept]
    beside = wide - inside @ directions[:, :kept].T
    parts = ((inside**2 / np.maximum(variance[:kept], 1e-9)).sum(axis=1), (beside**2).sum(axis=1))
    ratios = [part / max(float(np.quantile(part[:learnt], 0.99)), 1e-9) for part in parts]
    return Measured(np.sqrt(np.maximum(*ratios)), (wide**2)[:, : rows.shape[1]])


def measure_ridge(rows: Float64, learnt: int, seed: int) -> Measured:
    """Return the Mahalanobis distance of the residuals of a ridge vector autoregression on the last three rows."""
    past = [np.r_[np.repeat(rows[:1], lag, axis=0), rows[:-lag]] for lag in range(1, AUTOREGRESSION + 1)]
    phi = np.concatenate([*past, np.ones((len(rows), 1))], axis=1)
    penalty = np.diag(np.r_[np.full(phi.shape[1] - 1, RIDGE * learnt), 0.0])
    known = slice(AUTOREGRESSION, learnt)
    weights = np.linalg.lstsq(phi[known].T @ phi[known] + penalty, phi[known].T @ rows[known], rcond=None)[0]
    residual = rows - phi @ weights
    residual = bounded(residual / np.maximum(residual[known].std(axis=0), 1e-3))
    space = Mahalanobis(shrunk_correlation(residual[known]))
    present = np.ones(residual.shape, np.bool_)
    return Measured(space.distance(residual[:, None], present)[:, 0], np.abs(residual))


def measure_isolation(rows: Float64, learnt: int, seed: int) -> Measured:
    """Return how early an isolation forest isolates each row (Liu, Ting and Zhou 2008)."""
    wide = _with_lags(rows)
    forest = IsolationForest(n_estimators=100, random_state=seed).fit(wide[:learnt])
    return Measured(-np.asarray(forest.score_samples(wide), np.float64), None)


def all_floors() -> list[Contender]:
    """Return the floors in the order of the table."""
    return [
        AllPositive(),
        Random(),
        Clock(),
        StatisticFloor("persistence", measure_persistence),
        StatisticFloor("PCA T²+Q", measure_pca),
        StatisticFloor("ridge VAR", measure_ridge),
        StatisticFloor("isolation forest", measure_isolation, seeded=True),
    ]


def _standardised(case: Case, learnt: int) -> Float64:
    """Return history and test rows (m + n, F), gaps in cells held, with mean 0 and deviation 1 in the learnt part."""
    rows = np.concatenate([case.history_values, case.test_values]).astype(np.float64)
    place = np.maximum.accumulate(np.where(np.isfinite(rows), np.arange(len(rows))[:, None], -1), axis=0)
    held = np.take_along_axis(rows, np.maximum(place, 0), axis=0)
    held[place < 0] = np.nan
    centre = np.nan_to_num(np.nanmean(held[:learnt], axis=0))
    held = np.where(np.isfinite(held), held, centre)
    spread = held[:learnt].std(axis=0)
    floor = np.maximum(1e-3 * np.abs(centre), 1e-6)
    return np.asarray(np.clip((held - centre) / np.maximum(spread, floor), -LARGEST, LARGEST))


def _with_lags(rows: Float64) -> Float64:
    """Return rows with those before them beside, newest first, where there are only few sensors."""
    if rows.shape[1] >= FEW_SENSORS:
        return rows
    past = [np.r_[np.repeat(rows[:1], lag, axis=0), rows[: len(rows) - lag]] for lag in range(LAGS)]
    return np.concatenate(past, axis=1)
