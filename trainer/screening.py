"""Faults that nobody labelled, found in a short history before anything is learnt from it.

In a history of a few hundred rows one fault is a large part of what the forecaster learns: it learns to follow it.
Leaving its rows out of the calibration alone (`trainer.trimming`) comes too late for that. And the fused statistic,
which has a memory of many rows, is the wrong place to look: residuals of one step ahead are nearly independent of each
other, so that a jump stands out of them by far more.

Each of the folds is forecast by a ridge regression of the others, as in a calibration out of fold. What stands apart is
found by Hampel's identifier on the cube root of the residuals' squared Mahalanobis distance, which is about normal
(Wilson and Hilferty 1931, The Distribution of Chi-Square), with scales that a tenth of bad rows does not move: on that
of each row, and on its mean over runs of a few, as a fault that is only half as far out as a single row must be lasts.
A stretch whose residual points where that of another one does is left in: what comes twice in the same way is how the
machine works, a start or a step of its duty. So is what would take more than a tenth of the rows away. The first rows
after a beginning, or after others that were left out, are forecast from averages that know nothing of them yet, and are
not judged.
"""

from collections.abc import Sequence
from dataclasses import replace
from statistics import NormalDist

import numpy as np

from edge_agent.contract.errors import HistoryError
from edge_agent.contract.mahalanobis import Mahalanobis, bounded, shrunk_correlation
from edge_agent.contract.types import Bool, Float64, Int64
from trainer.blocks import FOLDS, SHORT_HISTORY, Plan, make_plan
from trainer.cleaning import Cleaned, Series
from trainer.dataset import Segments
from trainer.highway import RIDGES, fit_highway, residuals_of
from trainer.trimming import FALSE_SHARE, MARGIN, MOST_SHARE, STRANGE, robust_deviations, stretches_of

ROUNDS = 3
"""A large fault hides a small one."""
RUN = 8
"""Rows, the mean of which is judged beside each of them; shorter runs take more from clean histories
(docs/decisions/0033)."""
SETTLING = 10
"""Rows after a beginning, in which averages of the forecast that started at zero are filled for the most part."""
ALIKE = 0.8
"""Cosine of two residuals that point in the same direction."""
CLIPPED = 3.0
"""Standard deviations, beyond which a residual says nothing more of the correlation."""
_NORMAL = NormalDist()


def without_faults(plan: Plan) -> tuple[Plan, int]:
    """Return the plan of the history without the stretches that stand apart, and how many rows it lost.

    Args:
        plan: of the whole history; one that is long on every asset is returned as it is.
    """
    rows = _count(plan.cleaned)
    if min(len(one.ticks) for one in plan.cleaned.series) >= SHORT_HISTORY:
        return plan, 0
    kept, keep = plan, np.ones(rows, np.bool_)
    for _ in range(ROUNDS):
        left = np.flatnonzero(keep)
        ordinary = ordinary_samples(kept, np.diff(left, prepend=-1) > 1)
        fewer = keep.copy()
        fewer[left[~ordinary]] = False
        if ordinary.all() or np.count_nonzero(~fewer) > MOST_SHARE * rows:
            break
        try:
            kept = make_plan(_chosen(plan.cleaned, fewer), plan.options)
        except HistoryError:  # what is left could not carry a model
            break
        keep = fewer
    return kept, rows - int(np.count_nonzero(keep))


def ordinary_samples(plan: Plan, spliced: Bool | None = None) -> Bool:
    """Return (n,) False for the samples of all assets, one after the other, that stand apart.

    What an operator marked as a false alarm never does.

    Args:
        plan: of the history.
        spliced: (n,) True where rows before the sample were left out; None nowhere.
    """
    whole = plan.segments(lambda cuts: [(0, cuts.rows)])
    u, present = _standardised(_residuals(plan, whole), ~plan.scaling.constant[plan.layout.forecast])
    begins = np.zeros(len(u), np.bool_)
    begins[[first for first, _ in whole.bounds()]] = True
    if spliced is not None:
        begins |= spliced
    known = np.flatnonzero(present.any(axis=1) & (_rows_since(begins) >= SETTLING))
    keep = np.ones(len(u), np.bool_)
    if len(known) <= u.shape[1]:
        return keep
    correlation = shrunk_correlation(np.clip(np.where(present, u, np.nan)[known], -CLIPPED, CLIPPED))
    distance = Mahalanobis(correlation).distance(u[known, None, :], present[known])[:, 0]
    z = np.zeros(len(u))
    z[known] = robust_deviations(distance ** (2.0 / 3.0))
    apart = _stretches_apart(z, known, np.cumsum(begins)[known].astype(np.int64))
    peaks = [first + int(np.argmax(z[first:end])) for first, end in apart]
    for (first, end), alone in zip(apart, _unlike_the_others(u[peaks]), strict=True):
        if alone:
            keep[max(0, first - MARGIN) : end + MARGIN] = False
    return np.asarray(keep | _marked(plan.cleaned.series))


def _rows_since(begins: Bool) -> Int64:
    """Return (n,) how many rows each is after the last beginning."""
    rows = np.arange(len(begins))
    return rows - np.maximum.accumulate(np.where(begins, rows, 0))


def _stretches_apart(z: Float64, known: Int64, part: Int64) -> list[tuple[int, int]]:
    """Return (first, one past last) of the stretches with a row, or a run of rows, that is too strange for chance.

    Args:
        z: (n,) strangeness of each row.
        known: (k,) rows that are judged.
        part: (k,) a number for each stretch of rows that follow each other.
    """
    limit = _NORMAL.inv_cdf(1.0 - FALSE_SHARE / (2 * len(known)))
    far = np.zeros(len(z), np.bool_)
    for first, end in stretches_of(z > STRANGE):
        far[first:end] = z[first:end].max() > limit
    if len(known) > RUN:
        mean = robust_deviations(np.convolve(z[known], np.full(RUN, 1.0 / RUN), "valid"))
        together = part[RUN - 1 :] == part[: 1 - RUN]
        for first, end in stretches_of((mean > limit) & together):
            rows = known[first : end + RUN - 1]
            strange = rows[z[rows] >= min(STRANGE, z[rows].max())]
            far[strange[0] : strange[-1] + 1] = True
    return stretches_of(far)


def _residuals(plan: Plan, whole: Segments) -> Float64:
    """Return (n, F) residuals of each fold of the whole, by the penalty that forecasts most rows best; NaN for none."""
    inside = [plan.rows_of_fold(number) for number in range(FOLDS)]
    rest = [plan.without_fold(number) for number in range(FOLDS)]
    found, losses = [], []
    for ridge in RIDGES:
        residuals = np.full(whole.values.shape, np.nan)
        for rows, others in zip(inside, rest, strict=True):
            residuals[rows] = residuals_of(fit_highway(others, ridge, plan.spec.horizons), whole)[rows]
        found.append(residuals)
        known = np.isfinite(residuals).any(axis=1)
        # A mean would be that of the faults.
        losses.append(
            float(np.median(np.nanmean(np.square(residuals[known]), axis=1))) if known.any() else 0.0
        )
    return found[int(np.argmin(losses))]


def _standardised(residuals: Float64, judged: Bool) -> tuple[Float64, Bool]:
    """Return residuals (n, F) in robust standard deviations, 0 where there is none, and which there are."""
    present = np.isfinite(residuals) & judged
    with np.errstate(all="ignore"):
        table = np.where(present, residuals, np.nan)
        table[:, ~present.any(axis=0)] = 0.0
        away = np.abs(table - np.nanmedian(table, axis=0))
        near = np.nanmedian(away, axis=0) / _NORMAL.inv_cdf(0.75)
        scale = np.maximum.reduce(
            [near, np.nanquantile(away, 0.9, axis=0) / _NORMAL.inv_cdf(0.95), np.full(len(near), 1e-3)]
        )
        centred = (table - np.nanmedian(table, axis=0)) / scale
    return bounded(np.where(present, centred, 0.0)), present


def _unlike_the_others(directions: Float64) -> Bool:
    """Return (k,) which of the residuals (k, F) point where none of the others does."""
    unit = directions / np.maximum(np.linalg.norm(directions, axis=1, keepdims=True), 1e-12)
    cosine = unit @ unit.T
    np.fill_diagonal(cosine, -1.0)
    return np.asarray(cosine.max(axis=1, initial=-1.0) < ALIKE)


def _marked(series: Sequence[Series]) -> Bool:
    """Return (n,) which samples an operator marked as false alarms."""
    nothing = [np.zeros(len(one.ticks), np.bool_) for one in series]
    return np.concatenate(
        [
            none if one.false_alarms is None else one.false_alarms
            for one, none in zip(series, nothing, strict=True)
        ]
    )


def _count(cleaned: Cleaned) -> int:
    return sum(len(one.ticks) for one in cleaned.series)


def _chosen(cleaned: Cleaned, keep: Bool) -> Cleaned:
    """Return the history with the samples to `keep` (n,) alone."""
    series, first = [], 0
    for one in cleaned.series:
        chosen = keep[first : first + len(one.ticks)]
        first += len(one.ticks)
        series.append(
            replace(
                one,
                ticks=one.ticks[chosen],
                values=one.values[chosen],
                labels=None if one.labels is None else one.labels[chosen],
                false_alarms=None if one.false_alarms is None else one.false_alarms[chosen],
            )
        )
    return replace(cleaned, series=tuple(series))
