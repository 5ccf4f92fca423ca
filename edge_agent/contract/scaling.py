"""Per-sensor centre and scale, with a floor so that an almost constant sensor is not blown up into noise."""

from dataclasses import dataclass

import numpy as np

from edge_agent.contract.types import Bool, Float32, Float64


@dataclass(frozen=True)
class Scaling:
    """`scaled = (value - centre) / scale`.

    Attributes:
        centre: (F,) mean, engineering units.
        scale: (F,) standard deviation, never under `max(2 % of range, 1e-3 |mean|, 1e-6)`.
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


def fit_scaling(values: Float32) -> Scaling:
    """Fit on values (n, F) of the fit block; NaN cells do not count, and every column has a finite value."""
    wide = values.astype(np.float64)
    centre = np.nanmean(wide, axis=0)
    minimum, maximum = np.nanmin(wide, axis=0), np.nanmax(wide, axis=0)
    span = maximum - minimum
    floor = np.maximum.reduce([0.02 * span, 1e-3 * np.abs(centre), np.full_like(centre, 1e-6)])
    scale = np.maximum(np.nanstd(wide, axis=0), floor)
    return Scaling(centre, scale, minimum, maximum, np.asarray(span == 0.0))
