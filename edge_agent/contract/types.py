"""The values that travel: rows of readings as they arrived, samples on the grid, outcomes of scoring.

All are columnar: one entry per row, so that one call serves one asset or ten thousand.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]
Int32 = NDArray[np.int32]
Bool = NDArray[np.bool_]
Places = Int64 | slice
"""Rows of an array, each once: what a slice takes is no copy."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Readings as they arrived, in order of arrival.

    Attributes:
        asset: (n,) row index of the asset in the registry.
        time: (n,) seconds since the Unix epoch, as stamped at the source.
        values: (n, F) in engineering units; NaN where the message carried no reading of that sensor.
    """

    asset: Int64
    time: Float64
    values: Float32

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.asset)

    @staticmethod
    def empty(sensor_count: int) -> "Rows":
        """Return no rows at all."""
        return Rows(np.empty(0, np.int64), np.empty(0), np.empty((0, sensor_count), np.float32))


@dataclass(frozen=True, slots=True)
class Samples:
    """Closed ticks of the grid; the ticks of one asset are strictly ascending.

    Attributes:
        asset: (n,) row index of the asset.
        tick: (n,) whole number of sampling intervals since the epoch; `Grid.time_of` turns it into seconds.
        values: (n, F) in engineering units; NaN where the sensor is missing in that tick.
    """

    asset: Int64
    tick: Int64
    values: Float32

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.asset)

    @staticmethod
    def empty(sensor_count: int) -> "Samples":
        """Return no samples at all."""
        return Samples(np.empty(0, np.int64), np.empty(0, np.int64), np.empty((0, sensor_count), np.float32))

    @staticmethod
    def concatenate(parts: "list[Samples]", sensor_count: int) -> "Samples":
        """Return the parts one after the other."""
        if not parts:
            return Samples.empty(sensor_count)
        return Samples(
            np.concatenate([part.asset for part in parts]),
            np.concatenate([part.tick for part in parts]),
            np.concatenate([part.values for part in parts]),
        )


@dataclass(frozen=True, slots=True)
class SensorShare:
    """How much one sensor contributes to an alarm, in engineering units."""

    name: str
    unit: str
    share: float
    actual: float | None
    expected: float | None
    direction: str
    """`above` or `below` what was expected, or `missing`."""
    trend: str
    """`rising`, `falling` or `steady` over the last ticks."""


@dataclass(frozen=True, slots=True)
class AlarmEvent:
    """Start, update or end of one alarm of one asset.

    Times are seconds since the epoch on the grid of the model. `asset` is the row index; the agent and the
    replay translate it into the asset's id.
    """

    kind: str
    """`start`, `update` or `end`."""
    alarm_number: int
    """Counts the alarms of this asset from 1."""
    asset: int
    time: float
    onset_time: float
    """Estimated beginning of the deviation, at or before the first sample over the threshold."""
    start_time: float
    """When the alarm opened."""
    severity: str
    """`warning` or `critical`."""
    score: float
    peak_score: float
    peak_time: float
    score_basis: str
    """`tail` (the score is a claim of rarity) or `margin` (it is a ratio to the threshold)."""
    sensors: tuple[SensorShare, ...]
    """The sensors with the largest shares first; shares of all sensors sum to 1. None at an end without a score."""
    signature: tuple[float, ...] = ()
    """Direction in which the machine left normal, a unit vector; zeros where it did not. See `contract.signature`."""
    end_reason: str | None = None
    """Of an `end`: `cleared`, `off`, `maintenance`, `reset` or `accepted`."""
    reopened: bool = False
    """Whether this `update` takes up an alarm that had ended."""
    renewed: bool = False
    """Whether this `update` tells of an onset inside the alarm: what the machine does changed once more."""

    @property
    def duration_seconds(self) -> float:
        """Return the seconds from opening to this event."""
        return self.time - self.start_time


@dataclass(frozen=True, slots=True)
class Conversion:
    """From one unit to another: `new = factor * old + offset`."""

    name: str
    factor: float
    offset: float = 0.0


@dataclass(frozen=True, slots=True)
class SensorQuality:
    """What is wrong with one sensor, or with a whole asset that is silent.

    `since` is seconds since the epoch on the grid of the model.
    """

    sensor: int
    """Position among the sensors; -1 is the whole asset."""
    name: str | None
    """Name of the sensor; None is the whole asset."""
    unit: str
    reason: str
    """`stale`, `unit_jump`, `out_of_range`, `frozen`, `spiking`, or `silent` for the whole asset."""
    since: float
    value: float | None
    """The last reading, engineering units."""
    conversion: Conversion | None = None
    """With `unit_jump`: which unit became which."""


@dataclass(frozen=True, slots=True)
class QualityEvent:
    """Start, update or end of a time in which readings of an asset cannot be trusted.

    One event names all sensors that cannot be used now; an `end` names those that came back last. Times are seconds
    since the epoch on the grid of the model.
    """

    phase: str
    """`start`, `update` or `end`."""
    asset: int
    time: float
    start_time: float
    sensors: tuple[SensorQuality, ...]


@dataclass(frozen=True, slots=True)
class SensorDrift:
    """How far one sensor's normal operation stands from that of the calibration."""

    name: str
    unit: str
    measure: str
    """`level` (what the other sensors do not explain of it) or `forecast` (how well it is forecast)."""
    drift: float
    """1 is the limit."""
    direction: str
    """`above` or `below` what the calibration found; with `forecast`, `above` is a worse forecast."""


@dataclass(frozen=True, slots=True)
class DriftEvent:
    """Normal operation of an asset has been too far from that of the calibration for too long: train anew.

    Times are seconds since the epoch on the grid of the model.
    """

    asset: int
    time: float
    since: float
    """When the drift was first beyond its limit."""
    drift: float
    """1 is the limit."""
    sensors: tuple[SensorDrift, ...]
    """Those beyond the limit, the farthest first."""


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What scoring says of each sample, in the order of the samples.

    Attributes:
        asset: (n,) row index of the asset.
        tick: (n,) tick of the sample.
        time: (n,) seconds since the epoch of the tick.
        score: (n,) calibrated score, 1.0 is the alarm threshold; NaN while warming up.
        statistic: (n,) fused statistic behind the score; NaN while warming up.
        alarm: (n,) whether the asset is in alarm after this sample.
        forecast: (n, F) what the model expected, engineering units; NaN while warming up.
        events: alarm events, in order.
        quality: data-quality events, in order.
        off: (n,) whether the sample has no score because the machine was off or settling; None where no bundle knows
            when it is off.
        advice: advice to train anew, in order.
        factor: (n,) what the threshold is multiplied by after this sample; None where nothing adapts it.
        onset: (n,) whether what the machine does changed abruptly, in or out of an alarm; see `contract.onset`.
        drift: (n,) of the asset after this sample, 1 is the limit; None where the bundle does not know what is usual.
    """

    asset: Int64
    tick: Int64
    time: Float64
    score: Float64
    statistic: Float64
    alarm: Bool
    forecast: Float32
    events: list[AlarmEvent]
    quality: list[QualityEvent] = field(default_factory=list)
    off: Bool | None = None
    advice: list[DriftEvent] = field(default_factory=list)
    factor: Float64 | None = None
    drift: Float64 | None = None
    onset: Bool | None = None

    def __len__(self) -> int:
        """Return the number of samples judged."""
        return len(self.asset)
