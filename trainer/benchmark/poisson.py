"""How sure a counted rate is: the exact interval of a Poisson mean (Garwood 1936)."""

import math
from collections.abc import Callable

import numpy as np

CONFIDENCE = 0.95
_HALVINGS = 80


def poisson_interval(count: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return the lowest and the highest mean under which a count as large, or as small, is no rarity."""
    tail = (1.0 - confidence) / 2.0
    high = _where_positive(lambda mean: tail - _at_most(count, mean), count)
    if count == 0:
        return 0.0, high
    return _where_positive(lambda mean: 1.0 - _at_most(count - 1, mean) - tail, count), high


def _at_most(count: int, mean: float) -> float:
    """Return the probability of at most `count`."""
    numbers = np.arange(1, count + 1)
    logs = np.r_[0.0, np.cumsum(np.log(max(mean, 1e-300)) - np.log(numbers))]
    return float(np.exp(logs - mean).sum())


def _where_positive(rising: Callable[[float], float], count: int) -> float:
    """Return where a rising function of the mean becomes positive, by halving."""
    low, high = 0.0, count + 10.0 * math.sqrt(count + 1.0) + 10.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2.0
        low, high = (low, middle) if rising(middle) > 0.0 else (middle, high)
    return (low + high) / 2.0
