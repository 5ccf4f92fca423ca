"""Contradiction: how far one sensor is from what all others say of it.

A distance over F sensors is a mean: a fault of one of them stands in it beside the noise of F - 1, and has to be the
larger for it. What the others' residuals do not explain of a sensor's own, `c_i = (R^-1 z)_i / sqrt((R^-1)_ii)`, has
variance 1 in normal operation, and of all statistics it is the most powerful against a shift of sensor i alone (Hawkins
1991, Multivariate Quality Control Based on Regression-Adjusted Variables). Which sensor will fail is not known: the
statistic is the largest of all sensors, each over its own 0.99 quantile. What moves all sensors together, a change of
load or of the season, is explained by the others and moves it little.

The residuals are averaged over a short span. A single reading is a matter of data quality; in a long average stands
what forecasts are slowly off by (`scoring_averages`), which moves with no other sensor and so is a contradiction, too:
there alarms lasted hours beyond their faults (docs/decisions/0025).

A maximum of many has to know the tail of each, so that only a history that supports a claim of rarity has it: there it
is balanced against the fused statistic, so that it reaches the threshold a margin beyond what its own tail gives once.
"""

from dataclasses import dataclass, replace

import numpy as np

from edge_agent.contract.ewma import Smoother, deviation
from edge_agent.contract.mahalanobis import Mahalanobis
from edge_agent.contract.types import Bool, Float64

LEAST_USUAL = 0.1
"""Standard deviations: where one sensor is nearly a sum of others, the shrunk correlation leaves it less than noise."""


@dataclass(frozen=True)
class ContradictionModel:
    """Contradictions of normal operation.

    Attributes:
        usual: (F,) the 0.99 quantile of each sensor's; (0,) where none is judged.
        balance: what the contradiction over what is usual of late is multiplied by beside the fused statistic.
    """

    usual: Float64
    balance: float = 1.0

    @staticmethod
    def none() -> "ContradictionModel":
        """Return the model of a machine of which no contradiction is judged."""
        return ContradictionModel(np.empty(0))

    def __bool__(self) -> bool:
        """Return whether contradictions are judged at all."""
        return len(self.usual) > 0

    def balanced(self, balance: float) -> "ContradictionModel":
        """Return the same with another balance."""
        return replace(self, balance=balance)


class Contradiction:
    """Contradictions of averaged residuals; holds no state of assets itself.

    Args:
        model: what is usual.
        space: of the residuals' correlation.
        span: of the average.
    """

    def __init__(self, model: ContradictionModel, space: Mahalanobis, span: int) -> None:
        self._space = space
        self._rate = _per_deviation(space, span) / model.usual
        # Of all sensors, what makes contradictions of residuals is one product.
        self._whole = space.projected(np.eye(len(self._rate))[:, None], None)[:, 0] * self._rate

    def largest(self, average: Float64, present: Bool | None) -> Float64:
        """Return (n,) the largest contradiction.

        Args:
            average: (n, F) of the residuals.
            present: (n, F) which cells count; None is all.
        """
        return np.asarray(np.maximum.reduce(self.ratios(average, present), axis=1))

    def ratios(self, average: Float64, present: Bool | None) -> Float64:
        """Return (n, F) each contradiction over its usual one; of a sensor that is not there it is 0.

        Of fewer others a sensor is known less well: by the deviation that all leave, a contradiction is then smaller.
        """
        if present is None:
            ratio = average @ self._whole
        else:
            ratio = self._space.projected(average[:, None], present)[:, 0] * self._rate
        return np.abs(ratio, out=ratio)


def fit_contradiction(
    u: Float64, present: Bool, correlation: Float64, judged: Bool, span: int
) -> ContradictionModel:
    """Learn from standardised residuals (n, F) of normal data in order, of which `present` (n, F) count."""
    space = Mahalanobis(correlation, judged)
    average = Smoother([span]).follow(np.zeros((1, 1, u.shape[1])), u[None], present[None])[0]
    # In place as far as it goes: each of these is as large as the history, in double precision.
    found = space.projected(average, present)[:, 0]
    del average
    found *= _per_deviation(space, span)
    np.abs(found, out=found)
    return ContradictionModel(np.maximum(np.quantile(found, 0.99, axis=0, overwrite_input=True), LEAST_USUAL))


def _per_deviation(space: Mahalanobis, span: int) -> Float64:
    """Return (F,) what makes contradictions of averages over a span have variance 1."""
    return np.asarray(1.0 / (float(deviation([span])[0]) * np.sqrt(np.diag(space.precision))))
