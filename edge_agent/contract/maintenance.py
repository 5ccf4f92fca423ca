"""Maintenance: a time in which an asset is worked on, raises no alarm and teaches nothing.

It is `[since, until)` in the time of the readings, so it ends by itself and is the same live and replayed. Readings
are scored all the while. Afterwards the averages start from zero: what they saw of the work is no news of the machine.
"""

from dataclasses import dataclass

import numpy as np

from edge_agent.contract.types import Bool, Float64, Int64


@dataclass
class MaintenanceState:
    """One row per asset; times in seconds since the epoch, minus infinity is never.

    Attributes:
        since, until: (A,) the latest maintenance.
        last: (A,) whether the last sample was in it.
    """

    since: Float64
    until: Float64
    last: Bool

    @staticmethod
    def zero(assets: int) -> "MaintenanceState":
        """Return the state of assets that were never worked on."""
        return MaintenanceState(
            np.full(assets, -np.inf), np.full(assets, -np.inf), np.zeros(assets, np.bool_)
        )


def in_maintenance(state: MaintenanceState, rows: Int64, time: Float64) -> Bool:
    """Return (B,) whether samples at `time` (B,) of assets `rows` (B,) fall into their maintenance."""
    return np.asarray((state.since[rows] <= time) & (time < state.until[rows]))
