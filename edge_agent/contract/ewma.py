"""Exponentially weighted moving averages that start at zero, over one tick or many at once.

`e_t = e_{t-1} + a (x_t - e_{t-1})` with `a = 2 / (span + 1)` and `e_0 = 0`. Starting at the first value instead leaves
a transient in the calibration block that silently down-weights the long spans. For white input of variance 1 the
variance tends to `a / (2 - a)` (Roberts 1959, Control Chart Tests Based on Geometric Moving Averages).

Written out, `e_t = (1-a)^t e_0 + sum_u a (1-a)^(t-u) x_u`: the averages of many ticks are one product with a
lower-triangular matrix.
"""

from collections.abc import Sequence
from functools import cache

import numpy as np

from edge_agent.contract.types import Bool, Float64

LONGEST = 64
"""Ticks of one product: its work for each tick grows with them, the calls for each tick fall."""


def smoothing(spans: Sequence[int]) -> Float64:
    """Return `a` for each span, shape (S,)."""
    return np.asarray(2.0 / (np.asarray(spans, np.float64) + 1.0))


def deviation(spans: Sequence[int]) -> Float64:
    """Return the standard deviation of the average of white input of variance 1, shape (S,)."""
    a = smoothing(spans)
    return np.asarray(np.sqrt(a / (2.0 - a)))


class Smoother:
    """Averages over several spans; holds no averages itself.

    Args:
        spans: S, in samples.
    """

    def __init__(self, spans: Sequence[int]) -> None:
        a = smoothing(spans)
        lag = np.arange(LONGEST)[:, None] - np.arange(LONGEST)
        kept = (1.0 - a) ** np.maximum(lag, 0)[..., None]
        weight = np.where(lag[..., None] >= 0, a * kept, 0.0)
        # Rows run over ticks, then spans, so that what begins them is the matrix of fewer ticks.
        self._weight = weight.transpose(0, 2, 1).reshape(-1, LONGEST)
        self._fade = ((1.0 - a) ** np.arange(1, LONGEST + 1)[:, None])[..., None]
        self._a = a

    def follow(
        self, average: Float64, value: Float64, present: Bool | None = None, out: Float64 | None = None
    ) -> Float64:
        """Return the averages (B, L, S, F) after each of L more values; a missing cell leaves its averages as they are.

        Args:
            average: (B, S, F) averages so far.
            value: (B, L, F) new values, finite; what stands in a missing cell is not used.
            present: (B, L, F) which cells count; None is all.
            out: (B, L, S, F) where they are written, each asset's ticks side by side; None makes room.
        """
        count, ticks, width = value.shape
        found = np.empty((count, ticks, *average.shape[1:])) if out is None else out
        if present is not None and not present.all():
            found[...] = self._follow_present(average, value, present)
            return found
        if ticks == 1:
            fade, gain = self._step(width)
            flat = found.reshape(count, -1)
            np.multiply(average.reshape(count, -1), fade, out=flat)
            flat += value[:, 0] @ gain
            return found
        for at in range(0, ticks, LONGEST):
            part = value[:, at : at + LONGEST]
            length = part.shape[1]
            weight = self._weight[: length * len(self._a), :length]
            new = found[:, at : at + length]
            np.multiply(self._fade[:length], average[:, None], out=new)
            new += (weight @ part).reshape(new.shape)
            average = new[:, -1]
        return found

    @cache  # noqa: B019  # as many smoothers as a model has, of one width each
    def _step(self, width: int) -> tuple[Float64, Float64]:
        """Return what one tick keeps of the averages (S * F,), and the matrix (F, S * F) of what it adds.

        Rows as wide as all averages of an asset are quick to go through, those of eight sensors are not.
        """
        gain = np.concatenate([np.eye(width) * a for a in self._a], axis=1)
        return np.repeat(1.0 - self._a, width), gain

    def _follow_present(self, average: Float64, value: Float64, present: Bool) -> Float64:
        """Return the same of the cells that are there: those of each sensor side by side, then back in their places."""
        place = np.cumsum(present, axis=1, dtype=np.int64)
        packed = np.zeros(value.shape)
        asset, _, sensor = np.nonzero(present)
        packed[asset, place[present] - 1, sensor] = value[present]
        every = np.concatenate([average[:, None], self.follow(average, packed)], axis=1)
        return np.take_along_axis(every, place[:, :, None], axis=1)
