"""The physics of a simulated pump loop: pump curve, valve, controller, motor, temperatures, tank.

A centrifugal pump on a frequency converter draws from a tank, pushes the water through a control valve and pipework,
and the water returns to the tank. A PI controller moves the valve so that the flow follows a set-point which changes
with the duty; the drive changes speed with the duty and stops between runs. The relations are non-linear on purpose
(quadratic curves, equal-percentage valve, I² heating): a linear forecaster cannot follow them all.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edge_agent.contract.types import Float64

LONGEST_STEP_SECONDS = 2.0
"""The controller is tuned for about this step; longer sampling intervals are sub-stepped."""
RATED_SPEED = 2900.0
DAY_SECONDS = 86_400.0

_SHUTOFF_HEAD = 50.0  # m at rated speed
_PUMP_LOSS = 12.0 / 60.0**2  # m per (m3/h)²: 38 m of head at 60 m3/h
_STATIC_HEAD = 3.0  # m
_PIPE_LOSS = 0.003  # m per (m3/h)²
_VALVE_LOSS = 0.0015  # the same, of the fully open valve
_RANGEABILITY = math.log(30.0)  # of the equal-percentage valve
_SUCTION_LOSS = 4e-5  # bar per (m3/h)²
_BAR_PER_METRE = 0.0981
_BEST_FLOW = 60.0  # m3/h at rated speed
_RAMP = 100.0  # rpm per second
_VALVE_RATE = 4.0  # % per second
_GAIN, _RESET_SECONDS = 0.3, 12.0  # % per m3/h of the PI controller, and its integral time
_PARKED_VALVE = 60.0  # %, where the controller waits while the pump stands
_TANK_AREA = 2.0  # m2


@dataclass(frozen=True, slots=True)
class PumpSensor:
    """One measurement of the loop.

    Attributes:
        name: column name, which ends in the unit.
        unit: engineering unit.
        low: lowest value that the transmitter can give.
        high: highest value that the transmitter can give.
        span: size of the normal movement, by which sensor faults are sized.
        noise: standard deviation of the measurement noise with the pump running.
        decimals: resolution of the transmitter.
    """

    name: str
    unit: str
    low: float
    high: float
    span: float
    noise: float
    decimals: int


SENSORS = (
    PumpSensor("flow_m3h", "m3/h", 0.0, 120.0, 25.0, 0.25, 2),
    PumpSensor("discharge_pressure_bar", "bar", -1.0, 10.0, 2.0, 0.012, 3),
    PumpSensor("suction_pressure_bar", "bar", -1.0, 2.0, 0.2, 0.004, 4),
    PumpSensor("motor_current_a", "A", 0.0, 60.0, 8.0, 0.08, 2),
    PumpSensor("motor_temperature_degc", "degC", -20.0, 200.0, 15.0, 0.08, 2),
    PumpSensor("bearing_temperature_degc", "degC", -20.0, 150.0, 12.0, 0.08, 2),
    PumpSensor("vibration_mm_s", "mm/s", 0.0, 50.0, 2.0, 0.04, 3),
    PumpSensor("valve_position_pct", "%", 0.0, 100.0, 20.0, 0.1, 2),
    PumpSensor("speed_rpm", "rpm", 0.0, 3600.0, 500.0, 2.0, 1),
    PumpSensor("tank_level_m", "m", 0.0, 4.0, 0.4, 0.003, 4),
)
SENSOR_NAMES = tuple(sensor.name for sensor in SENSORS)


@dataclass(frozen=True, slots=True)
class Drive:
    """What acts on the loop, one entry per tick and held until the next; all arrays (n,).

    Attributes:
        flow: flow set-point, m3/h; 0 with the pump stopped.
        speed: speed asked of the drive, rpm; 0 stops the pump.
        ambient: temperature around the pump, degC.
        pipe: relative resistance of the pipework, about 1.
        wear: bearing damage, 0 sound to about 1 bad.
        leak: leak before the flow meter, m3/h at rated pressure.
        stiction: how far the command must leave the valve before it moves, %.
        head_loss: share of the pump's head lost to vapour.
    """

    flow: Float64
    speed: Float64
    ambient: Float64
    pipe: Float64
    wear: Float64
    leak: Float64
    stiction: Float64
    head_loss: Float64


class PumpLoop:
    """State of the loop; every lag is stepped by its exact exponential, so no step size makes it unstable."""

    def __init__(self, ambient: float, step: float) -> None:
        """Start warm and standing still.

        Args:
            ambient: temperature around the pump, degC.
            step: length of one integration step, seconds, at most `LONGEST_STEP_SECONDS`.
        """
        self.step_seconds = step
        self.flow = self.speed = self.head = self.leak = 0.0
        self.current, self.vibration = 0.0, 0.05
        self.level = 2.5
        self.valve = self.command = self.integral = _PARKED_VALVE
        self.valve_moving = False
        self.motor, self.bearing = ambient + 25.0, ambient + 16.0
        self._flow_lag = 1.0 - math.exp(-step / 2.0)
        self._motor_lag = 1.0 - math.exp(-step / 900.0)
        self._bearing_lag = 1.0 - math.exp(-step / 400.0)

    def control(self, target_flow: float, target_speed: float, stiction: float) -> None:
        """Ramp the drive, let the PI controller ask, and let the valve follow as far as it is free to."""
        reach = _RAMP * self.step_seconds
        self.speed += min(max(target_speed - self.speed, -reach), reach)
        if target_speed == 0.0 or self.speed < 0.8 * target_speed:
            self.integral = self.command = _PARKED_VALVE
        else:
            error = target_flow - self.flow
            change = _GAIN * error * self.step_seconds / _RESET_SECONDS
            self.integral = min(max(self.integral + change, 5.0), 100.0)
            self.command = min(max(self.integral + _GAIN * error, 5.0), 100.0)
        self._move_valve(stiction)

    def _move_valve(self, stiction: float) -> None:
        gap = self.command - self.valve
        if not self.valve_moving and abs(gap) > stiction:
            self.valve_moving = True
        if self.valve_moving:
            # A stuck stem breaks loose with more force than it needs and comes to rest beyond its target.
            gap += math.copysign(0.4 * stiction, gap)
            reach = _VALVE_RATE * self.step_seconds * (1.0 if stiction < 1.0 else 3.0)
            self.valve_moving = abs(gap) > reach
            self.valve = min(max(self.valve + min(max(gap, -reach), reach), 0.0), 100.0)

    def hydraulics(self, pipe: float, leak: float, head_loss: float) -> None:
        """Bring the flow towards the crossing of pump curve and system curve."""
        ratio = self.speed / RATED_SPEED
        shutoff = _SHUTOFF_HEAD * ratio * ratio * (1.0 - head_loss)
        opening = math.exp(_RANGEABILITY * (self.valve / 100.0 - 1.0))
        resistance = _PIPE_LOSS * pipe + _VALVE_LOSS / (opening * opening) + _PUMP_LOSS
        self.leak = leak * math.sqrt(max(self.head, 0.0) / 38.0)
        pull = _PUMP_LOSS * self.leak
        available = shutoff - _STATIC_HEAD - pull * self.leak
        target = 0.0
        if available > 0.0:
            target = max((math.sqrt(pull * pull + resistance * available) - pull) / resistance, 0.0)
        self.flow += self._flow_lag * (target - self.flow)
        through_pump = self.flow + self.leak
        # With the pump standing the check valve keeps the static column on the discharge side.
        self.head = max(shutoff - _PUMP_LOSS * through_pump * through_pump, _STATIC_HEAD)
        hours = self.step_seconds / 3600.0
        make_up = 4.0 * max(2.575 - self.level, 0.0) - 0.3  # float valve less evaporation, m3/h
        self.level = max(self.level + (make_up - self.leak) * hours / _TANK_AREA, 0.2)

    def machine(self, ambient: float, wear: float) -> None:
        """Derive power, current, vibration and heat from flow, speed and bearing damage."""
        ratio = self.speed / RATED_SPEED
        off_best = (self.flow + self.leak) / (_BEST_FLOW * ratio) - 1.0 if ratio > 0.05 else 0.0
        efficiency = max(0.72 * (1.0 - 0.8 * off_best * off_best), 0.25)
        hydraulic = 9.81 * (self.flow + self.leak) / 3600.0 * self.head / efficiency
        shaft = hydraulic + (0.8 + 1.4 * wear) * ratio**3
        active = shaft / (0.9 * math.sqrt(3.0) * 0.4)
        magnetising = 6.0 * min(ratio * 4.0, 1.0)
        self.current = math.sqrt(active * active + magnetising * magnetising)
        self.vibration = 0.05 + ratio * ratio * (1.2 + 2.0 * off_best * off_best + 3.5 * wear)
        heat = 34.0 * (self.current / 16.0) ** 2
        self.motor += self._motor_lag * (ambient + heat - self.motor)
        warm = 13.0 * ratio * (1.0 + 1.8 * wear) + 0.2 * (self.motor - ambient)
        self.bearing += self._bearing_lag * (ambient + warm - self.bearing)

    def readings(self) -> tuple[float, ...]:
        """Return the true values in the order of `SENSORS`."""
        through_pump = self.flow + self.leak
        # Running, part of the water stands in the pipework instead of the tank.
        level = self.level - 0.15 * self.flow / _BEST_FLOW
        suction = _BAR_PER_METRE * (level + 1.0) - _SUCTION_LOSS * through_pump * through_pump
        discharge = suction + _BAR_PER_METRE * self.head
        return (
            self.flow,
            discharge,
            suction,
            self.current,
            self.motor,
            self.bearing,
            self.vibration,
            self.valve,
            self.speed,
            level,
        )


def run_loop(drive: Drive, interval: float) -> Float64:
    """Integrate the loop.

    Args:
        drive: what acts on the loop in each of n ticks.
        interval: seconds between ticks.

    Returns:
        (n, 10) true values in the units of `SENSORS`, without measurement noise.
    """
    substeps = math.ceil(interval / LONGEST_STEP_SECONDS)
    loop = PumpLoop(float(drive.ambient[0]), interval / substeps)
    rows: list[tuple[float, ...]] = []
    columns: Sequence[list[float]] = [getattr(drive, name).tolist() for name in Drive.__slots__]
    for flow, speed, ambient, pipe, wear, leak, stiction, head_loss in zip(*columns, strict=True):
        for _ in range(substeps):
            loop.control(flow, speed, stiction)
            loop.hydraulics(pipe, leak, head_loss)
            loop.machine(ambient, wear)
        rows.append(loop.readings())
    return np.array(rows)
