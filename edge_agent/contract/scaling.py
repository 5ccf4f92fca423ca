"""Per-sensor centre and scale, with a floor so that an almost constant sensor is not blown up into noise.

Zero has to be an ordinary value in every scaling: hidden states and averages begin there.
"""

from dataclasses import dataclass

import numpy as np

from edge_agent.contract.types import Bool, Float32, Float64


@dataclass(frozen=True)
class Scaling:
    """`scaled = (value - centre) / scale`.

    Attributes:
        centre: (F,) engineering units, see `METHODS`.
        scale: (F,) never under `max(2 % of range, 1e-3 |centre|, 1e-6)`.
        minimum: (F,) smallest value seen.
        maximum: (F,) largest value seen.
        constant: (F,) sensors that never moved.
    """

    centre: Float64
    scale: Float64
    minimum: Float64
    maximum: Float64
    constant: Bool

    def apply(self, values: Float32) -> Float32:
        """Return scaled values of the same shape (n, F), float32; NaN stays NaN."""
        return np.asarray((values - self.centre) / self.scale, np.float32)

    def invert(self, scaled: Float32) -> Float32:
        """Return engineering units of scaled values (n, F)."""
        return np.asarray(scaled * self.scale + self.centre, np.float32)


METHODS = ("standard", "robust", "minmax")
"""Mean and standard deviation; median and interquartile range over that of a normal distribution with scale 1; middle
of the range and half of it, which maps the range onto -1 to 1."""
_NORMAL_QUARTILES = 1.3489795003921634
"""Interquartile range of a normal distribution with standard deviation 1."""


LEAST_PART = 1e-3
"""Of a sensor's magnitude: no scale is smaller."""
STILL_PART = 0.01
"""The same of a sensor that never moved, whose scale is also how far it may go before it is out of range: transmitters
are accurate to about that, and the last digit of one that was set anew is no news."""


def fit_scaling(values: Float32, method: str = "standard") -> Scaling:
    """Fit on values (n, F) of the fit block; NaN cells do not count, and every column has a finite value.

    Args:
        values: engineering units.
        method: one of `METHODS`.
    """
    columns = [_scale_of(values[:, place], method) for place in range(values.shape[1])]
    centre, scale, minimum, maximum = np.asarray(columns, np.float64).reshape(-1, 4).T
    span = maximum - minimum
    part = np.where(span > 0.0, LEAST_PART, STILL_PART)
    floor = np.maximum.reduce([0.02 * span, part * np.abs(centre), np.full_like(centre, 1e-6)])
    return Scaling(centre, np.maximum(scale, floor), minimum, maximum, np.asarray(span == 0.0))


def _scale_of(column: Float32, method: str) -> tuple[float, float, float, float]:
    """Return centre, scale, minimum and maximum of one column: one at a time, as a history's float64 copy is large."""
    wide = column[np.isfinite(column)].astype(np.float64)
    low, high = float(wide.min()), float(wide.max())
    if method == "minmax":
        return (low + high) / 2.0, (high - low) / 2.0, low, high
    if method == "robust":
        first, middle, third = np.quantile(wide, (0.25, 0.5, 0.75)).tolist()
        return middle, (third - first) / _NORMAL_QUARTILES, low, high
    return float(wide.mean()), float(wide.std()), low, high
