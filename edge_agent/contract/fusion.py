"""Many statistics become one: which sources count, how much, and by what rule.

Each statistic belongs to a source, and is a ratio to its own 0.99 quantile. A source's weight is shared by its
statistics (one a span), the weights sum to 1, and the fused statistic is the weighted log-mean of the ratios,
`exp(sum_i w_i log r_i)`, not their maximum: one noisy statistic cannot raise an alarm alone. Everything here is data of
a scoring model, so that what a part is worth can be measured by leaving it out (`trainer benchmark --ablate`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from edge_agent.contract.types import Float64

SOURCES: Mapping[str, float] = {"residual": 2.0, "level": 1.0, "novelty": 1.0, "variance": 1.0, "shape": 1.0}
"""The weight of each source: 2 : 1 : 1 for the first three was measured to hold on five sets of data, and
the variance improves the ranking on four. The weight of the shape, where it can be judged, is
that beside the deviation as a whole, which the others make up."""
SLOW_SOURCES = ("level", "variance", "novelty")
RULES = ("log-mean", "maximum")
LEAST_RATIO = 0.05
"""A statistic near zero says nothing more than a small one: without a floor its logarithm would hide the others."""


@dataclass(frozen=True)
class Fusion:
    """Which sources are fused, and how.

    Attributes:
        weights: of each source by name, at least 0; one that is 0 or not named is left out.
        rule: one of `RULES`.
        range_guard: whether leaving the range seen raises an alarm by itself, beside the fused statistic.
        contradiction: whether one sensor that all others contradict does.

    Raises:
        ValueError: a source or rule is unknown, or no source counts.
    """

    weights: Mapping[str, float] = field(default_factory=lambda: dict(SOURCES))
    rule: str = RULES[0]
    range_guard: bool = True
    contradiction: bool = True

    def __post_init__(self) -> None:
        unknown = sorted(set(self.weights) - set(SOURCES))
        if unknown:
            raise ValueError(f"weights: {unknown[0]}: unknown source; known are {', '.join(SOURCES)}")
        if self.rule not in RULES:
            raise ValueError(f"rule: is {self.rule!r}, known are {' and '.join(RULES)}")
        if not all(0.0 <= weight < np.inf for weight in self.weights.values()) or not self.total:
            raise ValueError("weights: must be finite, none below 0 and one above it")

    @property
    def total(self) -> float:
        """Return the sum of the weights."""
        return float(sum(self.weights.values()))

    def weight(self, source: str) -> float:
        """Return the weight of a source, 0 where it is left out."""
        return float(self.weights.get(source, 0.0))

    @property
    def aspect_weights(self) -> Float64:
        """Return (2,) the weights of deviation and shape, which sum to 1."""
        shape = self.weight("shape")
        parts = np.array([1.0 if self.total > shape else 0.0, shape])
        return np.asarray(parts / parts.sum())

    def trusting_levels(self, share: float) -> "Fusion":
        """Return the same for a short history: with a part of the weight of the levels, and without the variance.

        What they look at moves slowly. A short history has seen few levels, and every new one is strange to it; how
        much a sensor's noise varies it does not know at all.

        Args:
            share: 0 to 1, of the weight of levels and novelty of the state.
        """
        parts = {"level": share, "novelty": share, "variance": 0.0}
        weights = {name: weight * parts.get(name, 1.0) for name, weight in self.weights.items()}
        return replace(self, weights=weights)

    def without(self, source: str) -> "Fusion":
        """Return the same without one source."""
        kept = {name: weight for name, weight in self.weights.items() if name != source}
        return replace(self, weights=kept)

    def column_weights(self, sources: Sequence[str]) -> Float64:
        """Return (C,) weights that sum to 1, of statistics (C) by the source that each belongs to."""
        parts = np.array([self.weight(source) / sources.count(source) for source in sources])
        return np.asarray(parts / max(float(parts.sum()), 1e-12))

    def fuse(self, ratios: Float64, sources: Sequence[str]) -> Float64:
        """Return the fused statistic (n,).

        Args:
            ratios: (n, C) statistics over their normalisers.
            sources: of the C statistics.
        """
        return self.fuse_logs(np.log(np.maximum(ratios, LEAST_RATIO)), self.column_weights(sources))

    def fuse_logs(self, logs: Float64, weights: Float64) -> Float64:
        """Return the fused statistic (n,) of logarithms of ratios (n, C), none below that of `LEAST_RATIO`.

        Args:
            logs: of statistics over their normalisers.
            weights: (C,) from `column_weights`.
        """
        if self.rule == "maximum":
            return np.asarray(np.exp(logs[:, weights > 0.0].max(axis=1)))
        return np.asarray(np.exp(logs @ weights))
