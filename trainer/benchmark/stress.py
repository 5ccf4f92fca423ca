"""A case made harder on purpose: a contaminated history, missing cells, dead sensors.

Each stress is a pure function of a case and a seed, and touches values: times, labels, windows and changepoints stay,
so that a stressed case is judged by the very protocol of the clean one. No label is looked at: what is injected into
a history is drawn from the seed and sized by the history itself.

*Contaminated*: that share of the history's rows is spoilt by faults that nobody labelled, in stretches of at most
`STRETCH` rows, each somewhere in its own slot of the history. In each stretch one to half of the sensors (those that
move at all) are either shifted by 3 to 8 of their standard deviations, up or down; or swing 3 to 6 times as far from
their medians; or, two and more, show each other's readings, standardised. The test part is as it was.

*Missing*: that share of the cells of the test part, each for itself, holds no reading.

*Dead*: so many sensors, each from a row of its own in the first tenth of the test part to its end, either hold no
reading any more or repeat their last one. Where a protocol knows rows that do not count, those before the last of them
died do not count.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from edge_agent.contract.errors import UsageError
from edge_agent.contract.types import Bool, Float32, Float64, Int64
from trainer.benchmark.cases import Case, Plan

STRETCH = 240
SHIFT = (3.0, 8.0)
SWING = (3.0, 6.0)
DYING_SHARE = 0.1


@dataclass(frozen=True)
class Stress:
    """What is done to a case.

    Attributes:
        contaminated: share of the history's rows, 0 to 0.5.
        missing: share of the test part's cells, 0 to 0.9.
        dead: how many sensors die.
    """

    contaminated: float = 0.0
    missing: float = 0.0
    dead: int = 0

    def __bool__(self) -> bool:
        """Return whether anything is done."""
        return self != Stress()

    def apply(self, case: Case, seed: int) -> Case:
        """Return the stressed case.

        Raises:
            UsageError: no sensor would be left.
        """
        if self.contaminated:
            case = contaminate(case, self.contaminated, _draw(case, seed, 1))
        if self.dead:
            case = kill_sensors(case, self.dead, _draw(case, seed, 2))
        if self.missing:
            case = lose_cells(case, self.missing, _draw(case, seed, 3))
        return case

    def plan(self, plan: Plan) -> Plan:
        """Return the plan of the stressed case."""
        return Plan(plan.name, _Stressed(self, plan.make), drawn=True)


@dataclass(frozen=True)
class _Stressed:
    """Makes a case and stresses it; can be sent to another process."""

    stress: Stress
    make: Callable[[int], Case]

    def __call__(self, seed: int) -> Case:
        return self.stress.apply(self.make(seed), seed)


def contaminate(case: Case, share: float, rng: np.random.Generator) -> Case:
    """Return the case with faults in its history."""
    values = case.history_values.copy()
    centre, spread = _habit(values)
    moving = np.flatnonzero(spread > 0.0)
    if len(moving):
        for first, end in _stretches(len(values), round(share * len(values)), rng):
            most = max(1, len(moving) // 2)
            chosen = rng.choice(moving, int(rng.integers(1, most + 1)), replace=False)
            rows = (values[first:end, chosen] - centre[chosen]) / spread[chosen]
            spoilt = _spoilt(rows, rng)
            values[first:end, chosen] = (spoilt * spread[chosen] + centre[chosen]).astype(np.float32)
    return replace(case, history_values=values)


def _spoilt(rows: Float64, rng: np.random.Generator) -> Float64:
    """Return standardised rows (n, k) of some sensors with one fault in them."""
    sensors = rows.shape[1]
    kind = rng.integers(3 if sensors > 1 else 2)
    if kind == 0:
        return np.asarray(rows + rng.choice([-1.0, 1.0], sensors) * rng.uniform(*SHIFT, sensors))
    if kind == 1:
        return np.asarray(rows * rng.uniform(*SWING, sensors))
    return np.roll(rows, 1, axis=1)


def _stretches(rows: int, spoilt: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    """Return (first, one past last) of stretches that hold `spoilt` of the rows together."""
    count = -(-spoilt // STRETCH)
    lengths = [spoilt // count + (number < spoilt % count) for number in range(count)]
    slots = np.linspace(0, rows, count + 1).astype(int)
    begun = [
        int(rng.integers(low, max(low, high - length) + 1))
        for low, high, length in zip(slots[:-1], slots[1:], lengths, strict=True)
    ]
    return [(first, first + length) for first, length in zip(begun, lengths, strict=True)]


def lose_cells(case: Case, share: float, rng: np.random.Generator) -> Case:
    """Return the case with cells of its test part missing."""
    values = case.test_values.copy()
    values[rng.random(values.shape) < share] = np.nan
    return replace(case, test_values=values)


def kill_sensors(case: Case, count: int, rng: np.random.Generator) -> Case:
    """Return the case in whose test part some sensors die.

    Raises:
        UsageError: no sensor would be left.
    """
    sensors = len(case.sensors)
    if count >= sensors:
        raise UsageError(f"--dead: is {count}, and there are {sensors} sensors, of which one must be left")
    values, scored = case.test_values.copy(), case.scored.copy()
    rows = len(values)
    for sensor in rng.choice(sensors, count, replace=False):
        first = int(rng.integers(1, max(2, int(DYING_SHARE * rows))))
        frozen = rng.random() < 0.5
        values[first:, sensor] = _last_reading(values[:first, sensor]) if frozen else np.nan
        scored[:first] = False
    return replace(case, test_values=values, scored=scored)


def _last_reading(values: Float32) -> float:
    known: Int64 = np.flatnonzero(np.isfinite(values))
    return float(values[known[-1]]) if len(known) else float("nan")


def _habit(values: Float32) -> tuple[Float64, Float64]:
    """Return median and standard deviation (F,) of a history; a sensor without readings has none of either."""
    known: Bool = np.isfinite(values)
    table = np.where(known, values.astype(np.float64), np.nan)
    empty = ~known.any(axis=0)
    table[:, empty] = 0.0
    return np.nanmedian(table, axis=0), np.nanstd(table, axis=0)


def _draw(case: Case, seed: int, what: int) -> np.random.Generator:
    """Return the stream of one stress of one case: other cases and stresses draw from others."""
    return np.random.default_rng([seed, what, *case.name.encode()])
