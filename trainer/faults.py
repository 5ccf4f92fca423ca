"""Labelled faults of the simulated pump loop: what can be planned, how it is written, and what it does.

Faults of the machine act inside the physics, so that every sensor follows; faults of a sensor act on its measured
values alone (the controller has a transmitter of its own). Each fault draws from its own random stream.
"""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_agent.contract.errors import UsageError
from edge_agent.contract.types import Bool, Float64, Int64
from trainer.pump import RATED_SPEED, SENSOR_NAMES, SENSORS

FAULT_SENSORS: dict[str, tuple[str, ...]] = {
    "bearing_wear": ("vibration_mm_s", "bearing_temperature_degc", "motor_current_a"),
    "cavitation": ("vibration_mm_s", "discharge_pressure_bar", "suction_pressure_bar", "flow_m3h"),
    "valve_sticking": ("valve_position_pct", "flow_m3h", "discharge_pressure_bar"),
    "leak": ("tank_level_m", "discharge_pressure_bar", "valve_position_pct", "suction_pressure_bar"),
    "sensor_freeze": ("discharge_pressure_bar",),
    "sensor_offset": ("motor_temperature_degc",),
    "spikes": ("vibration_mm_s",),
    "sensor_loss": ("bearing_temperature_degc",),
}
"""Per kind the sensors to blame; for faults of a sensor the one that fails where the plan names none."""
FAULT_KINDS = tuple(FAULT_SENSORS)
SENSOR_FAULTS = frozenset({"sensor_freeze", "sensor_offset", "spikes", "sensor_loss"})

_SOUND_STICTION = 0.3  # %
_SPIKE_SHARE = 0.05  # of the ticks
_CAVITATION_NOISE = {"flow_m3h": 1.2, "discharge_pressure_bar": 0.12, "suction_pressure_bar": 0.04}
_FORM = re.compile(
    r"(?P<kind>\w+)(/(?P<sensor>\w+))?@(?P<start>[\d.]+)\+(?P<duration>[\d.]+)(:(?P<severity>[\d.]+))?"
)


@dataclass(frozen=True, slots=True)
class FaultPlan:
    """One fault to happen.

    Attributes:
        kind: one of `FAULT_KINDS`.
        start_seconds: when it begins, seconds after the first row.
        duration_seconds: how long it lasts; the row at its end is sound again.
        severity: 1 is a fault that an operator would notice on a trend; freeze and loss know no degree.
        sensor: the sensor that fails, for faults of a sensor only; None takes the one in `FAULT_SENSORS`.
    """

    kind: str
    start_seconds: float
    duration_seconds: float
    severity: float = 1.0
    sensor: str | None = None

    def __post_init__(self) -> None:
        """Check the plan.

        Raises:
            UsageError: unknown kind or sensor, a sensor for a fault of the machine, or a number out of range.
        """
        if self.kind not in FAULT_SENSORS:
            raise UsageError(f"fault '{self.kind}': unknown kind, known are {', '.join(FAULT_KINDS)}")
        if not (math.isfinite(self.start_seconds) and self.start_seconds >= 0.0):
            raise UsageError(f"fault '{self.kind}': start must be 0 seconds or later")
        for name, value in (("duration", self.duration_seconds), ("severity", self.severity)):
            if not (math.isfinite(value) and value > 0.0):
                raise UsageError(f"fault '{self.kind}': {name} must be greater than 0")
        if self.sensor is not None and self.kind not in SENSOR_FAULTS:
            raise UsageError(f"fault '{self.kind}': a fault of the machine takes no sensor")
        if self.sensor is not None and self.sensor not in SENSOR_NAMES:
            raise UsageError(
                f"fault '{self.kind}': unknown sensor '{self.sensor}', known are {', '.join(SENSOR_NAMES)}"
            )

    @property
    def blamed(self) -> tuple[str, ...]:
        """Return the sensors that an alarm for this fault should name."""
        return FAULT_SENSORS[self.kind] if self.sensor is None else (self.sensor,)


def parse_faults(text: str) -> list[FaultPlan]:
    """Read plans such as `bearing_wear@3600+1800,leak@9000+600:0.5,sensor_loss/flow_m3h@12000+300`.

    Args:
        text: comma-separated `kind[/sensor]@start+duration[:severity]`, seconds after the first row; may be empty.

    Returns:
        The plans in the order given.

    Raises:
        UsageError: a part has another form, or names what does not exist.
    """
    return [_parse_fault(part.strip()) for part in text.split(",") if part.strip()]


def _parse_fault(part: str) -> FaultPlan:
    match = _FORM.fullmatch(part)
    if match is None:
        raise UsageError(
            f"fault '{part}': expected kind[/sensor]@start+duration[:severity], times in seconds"
        )
    try:
        start, duration = float(match["start"]), float(match["duration"])
        severity = float(match["severity"] or 1.0)
    except ValueError:
        raise UsageError(f"fault '{part}': start, duration and severity must be numbers") from None
    return FaultPlan(match["kind"], start, duration, severity, match["sensor"])


def rows_of(plan: FaultPlan, elapsed: Float64) -> Bool:
    """Return (n,) which rows the plan covers, for rows `elapsed` seconds after the first one."""
    return (elapsed >= plan.start_seconds) & (elapsed < plan.start_seconds + plan.duration_seconds)


def name_rows(plans: Sequence[FaultPlan], elapsed: Float64) -> NDArray[np.str_]:
    """Return (n,) the kinds active in each row, joined by `+` where they overlap; empty where none is."""
    names = np.full(len(elapsed), "", dtype=object)
    for plan in plans:
        active = rows_of(plan, elapsed)
        names[active] = [f"{name}+{plan.kind}" if name else plan.kind for name in names[active]]
    return names.astype(np.str_)


@dataclass(frozen=True, slots=True)
class MachineFaults:
    """What the planned faults of the machine do in each tick, arrays (n,); see `trainer.pump.Drive`."""

    wear: Float64
    leak: Float64
    stiction: Float64
    head_loss: Float64


def machine_faults(plans: Sequence[FaultPlan], elapsed: Float64, seed: int) -> MachineFaults:
    """Turn plans into what acts on the physics.

    Args:
        plans: all planned faults; those of sensors are passed over.
        elapsed: (n,) seconds after the first row.
        seed: seed of the simulation.
    """
    count = len(elapsed)
    acting = MachineFaults(np.zeros(count), np.zeros(count), np.full(count, _SOUND_STICTION), np.zeros(count))
    for plan, active, random in _streams(plans, elapsed, seed, "machine"):
        if plan.kind == "bearing_wear":
            # Damage shows at once and grows until it is repaired.
            progress = (elapsed[active] - plan.start_seconds) / plan.duration_seconds
            acting.wear[active] += plan.severity * (0.15 + 0.85 * progress)
        elif plan.kind == "leak":
            acting.leak[active] += 6.0 * plan.severity
        elif plan.kind == "valve_sticking":
            acting.stiction[active] += 9.0 * plan.severity
        elif plan.kind == "cavitation":
            collapse = 0.05 + 0.03 * np.abs(random.standard_normal(len(active)))
            acting.head_loss[active] += np.minimum(plan.severity * collapse, 0.4)
    return acting


def spoil_measurements(plans: Sequence[FaultPlan], elapsed: Float64, seed: int, measured: Float64) -> None:
    """Apply to `measured` (n, 10), in place, what the faults do to the measurements themselves."""
    for plan, active, random in _streams(plans, elapsed, seed, "sensor"):
        if plan.kind == "cavitation":
            _roughen(measured, active, plan.severity, random)
        elif plan.kind in SENSOR_FAULTS and len(active):
            _spoil_sensor(measured, plan, active, random)


def _streams(
    plans: Sequence[FaultPlan], elapsed: Float64, seed: int, place: str
) -> Iterator[tuple[FaultPlan, Int64, np.random.Generator]]:
    for number, plan in enumerate(plans):
        stream = np.random.default_rng([seed, 101, number, len(place)])
        yield plan, np.flatnonzero(rows_of(plan, elapsed)), stream


def _roughen(measured: Float64, active: Int64, severity: float, random: np.random.Generator) -> None:
    # Vapour bubbles collapse only while the impeller turns.
    turning = severity * measured[active, SENSOR_NAMES.index("speed_rpm")] / RATED_SPEED
    for name, noise in _CAVITATION_NOISE.items():
        measured[active, SENSOR_NAMES.index(name)] += turning * noise * random.standard_normal(len(active))
    rattle = 1.5 + 0.8 * np.abs(random.standard_normal(len(active)))
    measured[active, SENSOR_NAMES.index("vibration_mm_s")] += turning * rattle


def _spoil_sensor(measured: Float64, plan: FaultPlan, active: Int64, random: np.random.Generator) -> None:
    place = SENSOR_NAMES.index(plan.blamed[0])
    span = SENSORS[place].span * plan.severity
    if plan.kind == "sensor_freeze":
        measured[active, place] = measured[max(int(active[0]) - 1, 0), place]
    elif plan.kind == "sensor_offset":
        measured[active, place] += 0.4 * span
    elif plan.kind == "sensor_loss":
        measured[active, place] = np.nan
    else:
        struck = random.random(len(active)) < _SPIKE_SHARE
        struck[0] = True  # however short, the fault shows
        height = span * random.uniform(0.7, 1.3, len(active)) * random.choice([-1.0, 1.0], len(active))
        measured[active[struck], place] += height[struck]
