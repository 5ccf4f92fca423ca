"""The least deviation from the expected value that is worth an alarm, in engineering units.

What is surprising to the model may still be too small to matter to the machine.
An alarm may open when at least one sensor that carries a real share of the score deviates enough:

    |actual - expected| >= min_absolute  and  |actual - expected| >= min_relative · |expected|

on the side that the rule names. Both numbers are those that the event shows. A sensor without a rule always deviates
enough. These are the dead band and the alarm limit of ISA-18.2, laid around the expected value instead of a fixed one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edge_agent.contract.types import Bool, Float32, Float64

DIRECTIONS = ("both", "above", "below")
REAL_SHARE = 0.1
"""Of the score; the sensor with the largest share always counts. Less is noise that rides along with the others."""


@dataclass(frozen=True, slots=True)
class DeviationRule:
    """What one sensor must show before an alarm opens.

    Attributes:
        min_absolute: engineering units.
        min_relative: part of the expected value.
        direction: `above` or `below` what is expected, or `both`.
    """

    min_absolute: float = 0.0
    min_relative: float = 0.0
    direction: str = "both"


def broken_deviation(rule: DeviationRule) -> str | None:
    """Return what is wrong with a rule, as `field: …`; None where nothing is."""
    for name in ("min_absolute", "min_relative"):
        if not 0.0 <= getattr(rule, name) < np.inf:
            return f"{name}: must be at least 0"
    if rule.direction not in DIRECTIONS:
        return f"direction: is {rule.direction!r}, known are {', '.join(DIRECTIONS)}"
    return None


class MinimumDeviation:
    """The rules of all sensors as arrays.

    Args:
        sensors: names in order.
        rules: by the sensor's name; those of other names are not used.
    """

    def __init__(self, sensors: Sequence[str], rules: Mapping[str, DeviationRule]) -> None:
        ruled = [rules.get(name) for name in sensors]
        known = [rule or DeviationRule() for rule in ruled]
        self._free = np.array([rule is None for rule in ruled])
        self._absolute = np.array([rule.min_absolute for rule in known], np.float64)
        self._relative = np.array([rule.min_relative for rule in known], np.float64)
        self._above = np.array([rule.direction != "below" for rule in known])
        self._below = np.array([rule.direction != "above" for rule in known])

    def enough(self, share: Float64, actual: Float32, expected: Float32) -> Bool:
        """Return (n,) whether any sensor that matters deviates enough.

        Args:
            share: (n, F) of the score.
            actual: (n, F) engineering units; NaN where missing, which is no deviation.
            expected: (n, F) engineering units.
        """
        real = (share >= REAL_SHARE) | (share >= share.max(axis=1, keepdims=True))
        difference = actual - expected
        size = np.abs(difference)
        side = np.where(difference >= 0.0, self._above, self._below)
        far = side & (size >= self._absolute) & (size >= self._relative * np.abs(expected))
        return np.asarray((real & (far | self._free)).any(axis=1))
