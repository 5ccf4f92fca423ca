"""How each sensor's readings behave in normal operation: facts that the sensor gate judges by."""

from collections.abc import Sequence
from dataclasses import dataclass

from edge_agent.contract.frozen import longest_holds
from edge_agent.contract.spike import largest_step, usual_spike
from edge_agent.contract.stale import longest_absence
from edge_agent.contract.types import Float32
from edge_agent.contract.unit_jump import usual_step


@dataclass(frozen=True, slots=True)
class Habits:
    """One sensor's; the fields stand in the manifest under the same names, see `SensorSpec`."""

    longest_hold: int
    longest_hold_low: int
    longest_hold_high: int
    longest_absence: int
    largest_step: float
    usual_step: float
    usual_spike: float


UNKNOWN = Habits(0, 0, 0, 0, 0.0, 0.0, 0.0)
"""Switches every check off that needs to know."""


def sensor_habits(tables: Sequence[Float32]) -> list[Habits]:
    """Return the habits of the F sensors over all assets.

    Args:
        tables: (n, F) samples of each asset in order, NaN where missing.
    """
    found = []
    for sensor in range(tables[0].shape[1]):
        columns = [table[:, sensor] for table in tables]
        holds = longest_holds(columns)
        found.append(
            Habits(
                holds.inside,
                holds.low,
                holds.high,
                longest_absence(columns),
                largest_step(columns),
                usual_step(columns),
                usual_spike(columns),
            )
        )
    return found
