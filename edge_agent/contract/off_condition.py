"""When a machine is off: one sensor compared with one value, and how long it settles after its start.

A machine that stands still is neither healthy nor faulty, and its start is an event that no threshold for normal
operation should be wide enough for. Such samples have no score, in the daemon as in calibration. A reading that is
missing or not trusted says nothing: the machine is what it was.
"""

import math
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_agent.contract.types import Bool, Float32, Int64

COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}
_FORM = re.compile(
    r"\s*(?P<sensor>[^<>=!]*[^\s<>=!])\s*(?P<comparison><=|>=|==|!=|<|>)\s*(?P<value>[^\s<>=!]+)\s*"
)


@dataclass(frozen=True, slots=True)
class OffCondition:
    """The machine is off while `sensor comparison value` holds.

    Attributes:
        sensor: name.
        comparison: a key of `COMPARISONS`.
        value: engineering units of the sensor.
        settle_ticks: samples after a start that have no score either.
    """

    sensor: str
    comparison: str
    value: float
    settle_ticks: int = 0

    def follow(self, off: Bool, settling: Int64, reading: Float32) -> tuple[Bool, Int64, Bool]:
        """Follow L samples of each of B assets.

        Args:
            off: (B,) whether it was off.
            settling: (B,) samples that it was still to settle.
            reading: (B, L) of the sensor, engineering units; NaN where missing.

        Returns:
            (B, L) `off` and `settling` after each sample, and whether the sample is to have no score.
        """
        place = np.arange(reading.shape[1])
        below = COMPARISONS[self.comparison](reading, np.float32(self.value))
        last = np.maximum.accumulate(np.where(np.isfinite(reading), place, -1), axis=1)
        now = np.where(last >= 0, np.take_along_axis(below, np.maximum(last, 0), axis=1), off[:, None])
        since = place - np.maximum.accumulate(np.where(now, place, -1), axis=1)
        never = since > place
        left = np.maximum(np.where(never, settling[:, None] - place - 1, self.settle_ticks - since), 0)
        before = np.concatenate([settling[:, None], left[:, :-1]], axis=1)
        return now, left, now | (before > 0)

    def resting(self, reading: Float32) -> Bool:
        """Return (n,) which samples of one asset, in their order, are to have no score: what `follow` says of each.

        Args:
            reading: (n,) of the sensor, engineering units; NaN where missing.
        """
        known = np.isfinite(reading)
        said = COMPARISONS[self.comparison](reading, np.float32(self.value)) & known
        last = np.maximum.accumulate(np.where(known, np.arange(len(reading)), -1))
        off = (last >= 0) & said[np.maximum(last, 0)]
        stopped = np.maximum.accumulate(np.where(off, np.arange(len(reading)), -self.settle_ticks - 1))
        return np.asarray(np.arange(len(reading)) - stopped <= self.settle_ticks)


def parse_off_condition(text: str, settle_ticks: int = 0) -> OffCondition:
    """Return the condition that a person wrote as `sensor comparison value`.

    Raises:
        ValueError: what is wrong with it, as the end of a sentence.
    """
    match = _FORM.fullmatch(text)
    if match is None:
        raise ValueError(f"is {text!r}, must be a sensor, one of {' '.join(COMPARISONS)}, and a number")
    try:
        value = float(match["value"])
    except ValueError:
        value = math.nan
    condition = OffCondition(match["sensor"], match["comparison"], value, settle_ticks)
    broken = broken_off_condition(condition)
    if broken is not None:
        raise ValueError(broken)
    return condition


def broken_off_condition(condition: OffCondition) -> str | None:
    """Return what is wrong with a condition, as the end of a sentence; None where nothing is."""
    if condition.comparison not in COMPARISONS:
        return f"compares by {condition.comparison!r}, known are {' '.join(COMPARISONS)}"
    value, ticks = condition.value, condition.settle_ticks
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return "must compare with a number"
    if isinstance(ticks, bool) or not isinstance(ticks, int) or ticks < 0:
        return "must settle for a whole number of samples, at least 0"
    return None
