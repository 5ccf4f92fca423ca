"""What the sensor gate remembers of each asset, in arrays with one row per asset."""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_agent.contract.grid import UNSET
from edge_agent.contract.types import Bool, Float32, Float64, Int32, Int64

Int8 = NDArray[np.int8]

SENSOR_REASONS = ("stale", "unit_jump", "out_of_range", "frozen", "spiking")
"""What is wrong with a sensor; the code of a reason is its place here, counted from 1. All but the last kill it."""
STALE, UNIT_JUMP, OUT_OF_RANGE, FROZEN, SPIKING = (code for code, _ in enumerate(SENSOR_REASONS, start=1))
SPIKES = 3
"""The last spikes of a sensor that are remembered."""
SILENT = "silent"
"""Why a whole asset is."""


def is_dead(reason: Int8) -> Bool:
    """Return which sensors have readings that say nothing at all, from their reasons; a spiking one still speaks."""
    return np.asarray((reason > 0) & (reason != SPIKING))


@dataclass
class QualityState:
    """One row per asset; ticks are those of the grid.

    Attributes:
        last_tick: (A,) of the last sample, `UNSET` before the first.
        heard: (A,) when a reading last arrived, on the agent's clock; NaN in replay.
        silent, silent_since: (A,) whether the asset is reported silent, and the first tick that it missed.
        watched: (A,) whether anything about the asset needs more than the ordinary look.
        leapt: (A,) tick of the last reading that leapt out and was none of a single spike.
        begun, said: (A,) ticks of the open episode's start and of the last event.
        told: (A, F) the reasons that the last event gave, 0 where it named no such sensor.
        value: (A, F) last reading, NaN before the first.
        origin: (A, F) where the leap to the last reading began, NaN where there was none.
        hold, absent: (A, F) equal readings in a row; samples in a row without a reading.
        wild, good: (A, F) impossible readings; good readings in a row since the last bad one.
        conversion, jumped: (A, F) the unit jump that is suspected or found; readings in a row that speak for it.
        moved: (A, F) how far they went, converted back.
        struck: (A, F, 3) ticks of the last spikes, see `spiking`.
        masked: (A, F) whether the last reading was masked as a spike, or as what may be one.
        reason: (A, F) what is wrong with the sensor, 0 while nothing is.
        since: (A, F) tick from which on it was.
    """

    last_tick: Int64
    heard: Float64
    silent: Bool
    silent_since: Int64
    watched: Bool
    leapt: Int64
    begun: Int64
    said: Int64
    told: Int8
    value: Float32
    origin: Float32
    hold: Int32
    absent: Int32
    wild: Int8
    good: Int8
    conversion: Int8
    jumped: Int8
    moved: Float32
    struck: Int64
    masked: Bool
    reason: Int8
    since: Int64

    @staticmethod
    def zero(assets: int, sensors: int) -> "QualityState":
        """Return the state of assets that have sent nothing."""
        shape = (assets, sensors)

        def unknown() -> Float32:
            return np.full(shape, np.nan, np.float32)

        def few() -> Int8:
            return np.zeros(shape, np.int8)

        return QualityState(
            last_tick=np.full(assets, UNSET),
            heard=np.full(assets, np.nan),
            silent=np.zeros(assets, np.bool_),
            silent_since=np.full(assets, UNSET),
            watched=np.zeros(assets, np.bool_),
            leapt=np.full(assets, UNSET),
            begun=np.full(assets, UNSET),
            said=np.full(assets, UNSET),
            told=few(),
            value=unknown(),
            origin=unknown(),
            hold=np.zeros(shape, np.int32),
            absent=np.zeros(shape, np.int32),
            wild=few(),
            good=few(),
            conversion=few(),
            jumped=few(),
            moved=np.zeros(shape, np.float32),
            struck=np.full((*shape, SPIKES), UNSET),
            masked=np.zeros(shape, np.bool_),
            reason=few(),
            since=np.full(shape, UNSET),
        )

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return every array by its name; writing into them changes the state."""
        return {item.name: getattr(self, item.name) for item in fields(self)}

    def take(self, rows: Int64) -> "QualityState":
        """Return a copy of some rows."""
        return QualityState(**{name: array[rows] for name, array in self.arrays().items()})

    def put(self, rows: Int64, values: "QualityState") -> None:
        """Write rows back."""
        for name, array in self.arrays().items():
            array[rows] = getattr(values, name)
