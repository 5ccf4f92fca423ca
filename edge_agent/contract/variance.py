"""Variance on both sides: whether a sensor became noisier, or quieter, than it was in normal operation.

`v_t = v_{t-1} + a (min(u_t, 8)^2 - v_{t-1})` is the exponentially weighted mean square of the standardised residual
(MacGregor and Harris 1993, The Exponentially Weighted Moving Variance). Its logarithm is about normal: the statistic is
`|log v - centre| / scale`, root mean square over the sensors, for spans of 15 and 60. A mean that does not move hides
a bearing that begins to rattle and a valve that sticks; both show here.
"""

from dataclasses import dataclass

import numpy as np

from edge_agent.contract.ewma import Smoother
from edge_agent.contract.types import Bool, Float64

SPANS = (15, 60)
LEAST_SPREAD = 0.1
"""Of the logarithm: a smaller one is a history that is too short to know its own."""
LEAST_SQUARE = 1e-3
BOUND = 8.0
"""One sensor's part is at most this many standard deviations: one that froze must not hide the rest."""


@dataclass(frozen=True)
class VarianceModel:
    """The logarithm of the mean square in normal operation.

    Attributes:
        spans: V EWMA spans in samples.
        centre, scale: (V, F) its median and standard deviation.
    """

    spans: tuple[int, ...]
    centre: Float64
    scale: Float64

    @staticmethod
    def unknown(sensors: int) -> "VarianceModel":
        """Return a model that has learnt nothing."""
        shape = (len(SPANS), sensors)
        return VarianceModel(SPANS, np.zeros(shape), np.ones(shape))


def variance_statistic(model: VarianceModel, square: Float64, judged: Bool) -> Float64:
    """Return (n, V) of mean squares (n, V, F) over the sensors that are `judged`, (n, F) or (F,)."""
    # Single precision is exact to a millionth of the least scale, and its logarithm is several times as quick.
    parts = np.maximum(square, LEAST_SQUARE, dtype=np.float32, casting="same_kind").reshape(len(square), -1)
    np.log(parts, out=parts)
    parts -= model.centre.reshape(-1)
    parts /= model.scale.reshape(-1)
    np.minimum(np.abs(parts, out=parts), BOUND, out=parts)
    parts *= parts
    if judged.ndim == 1:
        found = parts.reshape(square.shape) @ (judged / max(int(np.count_nonzero(judged)), 1))
        return np.asarray(np.sqrt(found, out=found))
    total = (parts.reshape(square.shape) * judged[:, None, :]).sum(axis=2, dtype=np.float64)
    return np.asarray(np.sqrt(total / np.maximum(judged.sum(axis=1), 1)[:, None]))


def fit_variance(u: Float64, present: Bool, spans: tuple[int, ...]) -> VarianceModel:
    """Learn from standardised residuals (n, F) of normal data in order, of which `present` (n, F) count."""
    square = np.ones((1, len(spans), u.shape[1]))
    mean = Smoother(spans).follow(square, (u * u)[None], present[None])[0]
    logs = np.log(np.maximum(mean, LEAST_SQUARE))
    settled = logs[min(max(spans), len(logs) // 2) :]
    return VarianceModel(spans, np.median(settled, axis=0), np.maximum(settled.std(axis=0), LEAST_SPREAD))
