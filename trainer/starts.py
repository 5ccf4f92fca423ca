"""Starts and stops of a machine that stands still now and then, in the history that it is calibrated on.

A start leaves something behind for a while: cold bearings, a level to be regained. What that is shows with the first
samples that have a score again. A stop begins before the machine counts as off: it runs down. Both recur, and are no
faults, though a history of days holds too few of them for a tail.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edge_agent.contract.types import Bool, Int64

LEAST_STARTS = 3
"""With none in the calibration every start raised an alarm, with one some did, with more hardly any (0026)."""


@dataclass(frozen=True)
class Turns:
    """The starts and stops in a history.

    Attributes:
        number: (n,) k for samples soon after the k-th start, -k for those shortly before the k-th stop, 0 for others.
        least: rows of what could open an alarm.
    """

    number: Int64
    least: int


def turns_of(resting: Bool, asset: Int64, soon: int) -> Int64:
    """Return the numbers (n,) of `Turns`.

    Args:
        resting: (n,) of a machine that is off or settles, in order, asset by asset.
        asset: (n,).
        soon: samples after the machine has settled, and before it goes off.
    """
    rows, count = np.arange(len(resting)), len(resting)
    edges = np.diff(resting.astype(np.int8), prepend=0) == 1
    stops = np.cumsum(edges)
    before = np.maximum.accumulate(np.where(resting, rows, -1))
    after = np.minimum.accumulate(np.where(resting, rows, count)[::-1])[::-1]
    started = (before >= 0) & (rows - before <= soon) & (asset == asset[np.maximum(before, 0)])
    stopping = (after < count) & (after - rows <= soon) & (asset == asset[np.minimum(after, count - 1)])
    turn = np.where(started, stops, np.where(stopping, -stops - 1, 0))
    return np.where(resting, 0, turn)


def starts_notice(resting: Sequence[Bool], held: Sequence[int]) -> str | None:
    """Return what to expect of starts where the calibration holds fewer than `LEAST_STARTS`; None elsewhere.

    Args:
        resting: of each asset (n,) which rows are of a machine that is off or settles.
        held: of each asset the first row that calibrates.
    """
    seen = sum(_count(one[first:]) for one, first in zip(resting, held, strict=True))
    if seen >= LEAST_STARTS:
        return None
    return (
        f"the calibration holds {seen} of the {sum(map(_count, resting))} starts of the machine in this history: "
        "alarms soon after a start are likely; give more history, or a longer --settle-ticks if a start takes longer"
    )


def _count(resting: Bool) -> int:
    """Return how often a machine, resting in rows (n,), starts."""
    return int((np.diff(resting.astype(np.int8)) == -1).sum())
