"""The autoregressive highway: a ridge regression of the next samples on the sample and its slow averages.

The regressors are phi_t = [x_t, ewma5_t, ewma20_t, context_t, 1]; the averages start at zero, at the beginning of a
segment in training and of a window or stream in the graphs, so that all of them agree without any special first value.
"""

from collections.abc import Iterator, Sequence
from functools import cache

import numpy as np

from edge_agent.contract.errors import HistoryError
from edge_agent.contract.types import Float32, Float64
from trainer.dataset import Segments

SPANS = (5, 20)
_CHUNK = 256


def ewma_gain(span: int) -> float:
    """Return a in e_t = e_{t-1} + a (x_t - e_{t-1})."""
    return 2.0 / (span + 1.0)


@cache
def ewma_matrix(span: int, length: int) -> Float64:
    """Return the (length, length) lower-triangular matrix that turns samples into their zero-start EWMA.

    It is remembered, since many small fits ask for the same one: not to be written into.
    """
    gain = ewma_gain(span)
    lag = np.arange(length)[:, None] - np.arange(length)[None, :]
    matrix: Float64 = np.where(lag >= 0, gain * (1.0 - gain) ** np.maximum(lag, 0), 0.0)
    return matrix


def fit_highway(
    segments: Segments, ridge: float = 1e-3, horizons: int = 1, spans: Sequence[int] = SPANS
) -> Float32:
    """Fit the highway in closed form.

    The normal equations are summed in float64 over blocks of rows, so memory does not grow with the history.
    Rows with a missing target cell are left out; where too few rows remain, they are let in with their held values.
    Rows whose target is of a machine that is off are left out always.
    The first rows of a segment count, though their averages have just started at zero: of a history of minutes they
    are a sixth, and leaving them out was measured to cost detection (docs/decisions/0002).

    Args:
        segments: scaled samples with missing cells held.
        ridge: penalty per row on every weight but the intercept, in scaled units.
        horizons: ticks ahead, 1 to `horizons`.
        spans: EWMA spans in ticks.

    Returns:
        ((1 + len(spans)) * F + X + 1, horizons * F) weights; the last row is the intercept.

    Raises:
        HistoryError: there is no row with a target at all.
    """
    sensors = segments.values.shape[1]
    width = (1 + len(spans)) * sensors + segments.context.shape[1] + 1
    for complete in (True, False):
        gram = np.zeros((width, width))
        moment = np.zeros((width, horizons * sensors))
        rows = 0
        for phi, target in _row_blocks(segments, horizons, spans, complete):
            gram += phi.T @ phi
            moment += phi.T @ target
            rows += len(phi)
        if rows >= width:
            break
    if rows == 0:
        raise HistoryError("the history has no two samples in a row to fit a forecast on")
    penalty = np.full(width, ridge * rows)
    penalty[-1] = 0.0
    weights: Float64 = np.linalg.lstsq(gram + np.diag(penalty), moment, rcond=None)[0]
    return weights.astype(np.float32)


def persistence(segments: Segments, horizons: int = 1, spans: Sequence[int] = SPANS) -> Float32:
    """Return weights as those of `fit_highway` whose forecast is the newest sample, at every horizon."""
    sensors = segments.values.shape[1]
    width = (1 + len(spans)) * sensors + segments.context.shape[1] + 1
    return np.tile(np.eye(width, sensors, dtype=np.float32), (1, horizons))


RIDGES = (1e-3, 1e-2, 1e-1, 1.0)


def square_residual(weights: Float32, segments: Segments, horizons: int = 1) -> float:
    """Return the sum of the squared residuals of all rows whose target was measured, scaled units."""
    total = 0.0
    for phi, target in _row_blocks(segments, horizons, SPANS, True):
        total += float(((phi @ weights - target) ** 2).sum())
    return total


def residuals_of(weights: Float32, segments: Segments) -> Float64:
    """Return (N, F) each row less its forecast from the row before, scaled units; NaN where there is none to judge."""
    sensors = segments.values.shape[1]
    found = np.full(segments.values.shape, np.nan)
    for start, end in segments.bounds():
        first = start + 1
        usable = slice(start, end - 1)
        for phi in _regressors(segments.values[usable], segments.context[usable], SPANS):
            rows = slice(first, first + len(phi))
            found[rows] = segments.values[rows] - phi @ weights[:, :sensors]
            first += len(phi)
    return np.asarray(np.where(segments.missing | segments.resting[:, None], np.nan, found))


def residual_variance(weights: Float32, segments: Segments, horizons: int = 1) -> Float64:
    """Return (horizons, F) mean squared residuals of all rows whose target was measured, scaled units."""
    sensors = segments.values.shape[1]
    total, rows = np.zeros(horizons * sensors), 0
    for phi, target in _row_blocks(segments, horizons, SPANS, True):
        total += ((phi @ weights - target) ** 2).sum(axis=0)
        rows += len(phi)
    return (total / max(rows, 1)).reshape(horizons, sensors)


def _row_blocks(
    segments: Segments, horizons: int, spans: Sequence[int], complete: bool
) -> Iterator[tuple[Float64, Float64]]:
    """Yield regressors (n, width) and targets (n, horizons * F) of the rows that count."""
    for start, end in segments.bounds():
        first = start
        usable = slice(start, end - horizons)
        for phi in _regressors(segments.values[usable], segments.context[usable], spans):
            rows = np.arange(first, first + len(phi))
            first += len(phi)
            ahead = rows[:, None] + 1 + np.arange(horizons)
            counted = ~segments.resting[ahead].any(axis=1)
            keep = counted & ~segments.missing[ahead].any(axis=(1, 2)) if complete else counted
            if keep.any():
                target = segments.values[ahead[keep]].reshape(int(keep.sum()), -1)
                yield phi[keep], target.astype(np.float64)


def _regressors(values: Float32, context: Float32, spans: Sequence[int]) -> Iterator[Float64]:
    """Yield phi in chunks of rows, carrying the averages from chunk to chunk."""
    matrices = [ewma_matrix(span, _CHUNK) for span in spans]
    decays = [(1.0 - ewma_gain(span)) ** np.arange(1, _CHUNK + 1)[:, None] for span in spans]
    carried = [np.zeros(values.shape[1]) for _ in spans]
    for first in range(0, len(values), _CHUNK):
        chunk = values[first : first + _CHUNK].astype(np.float64)
        count = len(chunk)
        parts = [chunk]
        for number, (matrix, decay) in enumerate(zip(matrices, decays, strict=True)):
            average = matrix[:count, :count] @ chunk + decay[:count] * carried[number]
            carried[number] = average[-1]
            parts.append(average)
        read = context[first : first + count].astype(np.float64)
        yield np.concatenate([*parts, read, np.ones((count, 1))], axis=1)
