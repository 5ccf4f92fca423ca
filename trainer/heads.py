"""Heads: what the numbers at the end of the network mean, and where they begin before anything is trained.

The first number of a sensor is always the one that the detector takes as the forecast: the value itself, the mean of
a Gaussian, the median of the quantiles, the expected value of an operating state.
"""

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from edge_agent.contract.types import Float32, Float64


@dataclass(frozen=True, slots=True)
class Head:
    """What the outputs mean.

    Attributes:
        kind: `point` (one value), `gaussian` (mean and log-variance), `quantile` (one value for each quantile), or
            `softmax`: points, but one sensor is an operating state, of which the probability of each value is given.
        quantiles: of the head `quantile`, the median first.
        state_sensor: of the head `softmax`, the place of the sensor.
        state_values: of the head `softmax`, the C values that the state was seen to have, scaled, ascending.
    """

    kind: str = "point"
    quantiles: tuple[float, ...] = ()
    state_sensor: int = 0
    state_values: tuple[float, ...] = ()

    @property
    def parameters(self) -> int:
        """Return P, the numbers that a forecast has for each sensor and horizon."""
        return {"gaussian": 2, "quantile": len(self.quantiles)}.get(self.kind, 1)

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """Return what each of the P numbers is, for the manifest."""
        if self.kind == "quantile":
            return tuple(f"quantile {quantile:g}" for quantile in self.quantiles)
        return {"gaussian": ("mean", "log-variance"), "softmax": ("expected value",)}.get(
            self.kind, ("value",)
        )

    def outputs(self, sensors: int, horizons: int) -> int:
        """Return how many numbers the network gives: H * F * P, with a state H * (F + C)."""
        return horizons * (sensors * self.parameters + len(self.state_values))

    def spread(self, highway: Float32, sensors: int) -> Float32:
        """Let the highway forecast what of the outputs is a location.

        Args:
            highway: (R, H * F) weights of a point forecast.
            sensors: F.

        Returns:
            (R, outputs): all quantiles have the weights of the point; spreads and states have none.
        """
        points = highway.reshape(len(highway), -1, sensors)
        if self.kind == "softmax":
            padding = np.zeros((*points.shape[:2], len(self.state_values)), np.float32)
            return np.concatenate([points, padding], axis=2).reshape(len(highway), -1)
        share = np.zeros(self.parameters, np.float32)
        share[: 1 if self.kind == "gaussian" else None] = 1.0
        return (points[..., None] * share).reshape(len(highway), -1).astype(np.float32)

    def initial_bias(self, variance: Float64, shares: Float64) -> Float32:
        """Return (outputs,) with which the untrained model says how sure it is.

        Args:
            variance: (H, F) of the highway's residuals, scaled units.
            shares: (C,) how often each state was seen.
        """
        known = np.maximum(variance, 1e-8)
        zero = np.zeros(known.shape)
        if self.kind == "gaussian":
            bias = np.stack([zero, np.log(known)], axis=2)
        elif self.kind == "quantile":
            normal = [NormalDist().inv_cdf(quantile) for quantile in self.quantiles]
            bias = np.sqrt(known)[..., None] * np.asarray(normal)
        elif self.kind == "softmax":
            prior = np.log(np.maximum(shares, 1e-6))
            bias = np.concatenate([zero, np.broadcast_to(prior, (len(zero), len(prior)))], axis=1)
        else:
            bias = zero
        return bias.reshape(-1).astype(np.float32)

    def state_constants(self, sensors: int) -> tuple[Float32, Float32]:
        """Return (F,), 0 at the state's sensor and 1 elsewhere, and (C, F), the state's values in its column."""
        keep = np.ones(sensors, np.float32)
        keep[self.state_sensor] = 0.0
        values = np.zeros((len(self.state_values), sensors), np.float32)
        values[:, self.state_sensor] = self.state_values
        return keep, values
