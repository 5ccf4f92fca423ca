"""A simulated pump loop with labelled faults: history for the demo and the tests.

The duty (runs, set-points, stops), the disturbances, the measurement noise and each fault have random streams of
their own, drawn in order of time: a longer run begins with the shorter one, and up to its first fault a run equals the
sound run with the same seed.
"""

import gzip
import io
import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

from edge_agent.contract.errors import HistoryError, UsageError
from edge_agent.contract.types import Float32, Float64, Int64
from edge_agent.history import write_parquet
from trainer.faults import (
    FAULT_KINDS,
    FAULT_SENSORS,
    FaultPlan,
    machine_faults,
    name_rows,
    parse_faults,
    spoil_measurements,
)
from trainer.pump import DAY_SECONDS, RATED_SPEED, SENSOR_NAMES, SENSORS, Drive, run_loop

__all__ = [
    "FAULT_KINDS",
    "FAULT_SENSORS",
    "FaultPlan",
    "Simulation",
    "check_ending",
    "parse_faults",
    "simulate",
    "write_simulation",
]

ENDINGS = (".csv", ".csv.gz", ".parquet")
DEFAULT_START = 1_767_225_600.0
"""2026-01-01T00:00:00Z."""

_SLOW_SPEED = 2500.0
_DUTIES = (
    (44.0, _SLOW_SPEED),
    (50.0, _SLOW_SPEED),
    (56.0, RATED_SPEED),
    (60.0, RATED_SPEED),
    (64.0, RATED_SPEED),
)
_STEPS_PER_RUN = (2, 4)  # set-points in one run
_STEP_SECONDS = (240.0, 480.0)
_STOP_SECONDS = (180.0, 360.0)
MOST_ROWS = 32_000_000
"""A year of seconds."""
_LATEST_START = 221_845_392_000.0
"""The year 9000: a simulation that begins before ends before the years of five digits, which files do not hold."""
_NOISE_MEMORY_SECONDS = 5.0
_PIPE_MEMORY_SECONDS = 90.0
_QUIET_WHEN_STANDING = frozenset(
    {"flow_m3h", "discharge_pressure_bar", "motor_current_a", "vibration_mm_s", "speed_rpm"}
)


@dataclass(frozen=True)
class Simulation:
    """A simulated history.

    Attributes:
        time: (n,) seconds since the epoch.
        sensors: names of the F columns, each ending in its unit.
        units: engineering units of the F columns.
        values: (n, F) measured values; NaN where a sensor is lost.
        label: (n,) 1 where a fault is planned, otherwise 0.
        fault: (n,) kind of the fault, kinds joined by `+` where they overlap, otherwise empty.
        plans: the faults in the order given.
    """

    time: Float64
    sensors: tuple[str, ...]
    units: tuple[str, ...]
    values: Float32
    label: NDArray[np.int8]
    fault: NDArray[np.str_]
    plans: tuple[FaultPlan, ...]


def simulate(
    hours: float,
    seed: int,
    interval: float = 1.0,
    faults: Sequence[FaultPlan] = (),
    start: float = DEFAULT_START,
) -> Simulation:
    """Simulate the pump loop.

    A fault of the machine shows only while the pump runs, and what it leaves behind (heat, a low tank) fades over
    minutes after its end, unlabelled: the label is the plan.

    Args:
        hours: length of the history.
        seed: equal seeds give equal histories; 0 or greater.
        interval: seconds between rows.
        faults: what shall go wrong.
        start: time of the first row, seconds since the epoch.

    Returns:
        The history, `hours * 3600 / interval` rows.

    Raises:
        UsageError: a number is out of range, or a fault begins after the end.
    """
    _check(hours, seed, interval, start, faults)
    elapsed: Float64 = np.arange(max(round(hours * 3600.0 / interval), 1), dtype=np.float64) * interval
    truth = run_loop(_drive(elapsed, seed, interval, faults, start), interval)
    measured = _measure(truth, seed, interval)
    spoil_measurements(faults, elapsed, seed, measured)
    fault = name_rows(faults, elapsed)
    return Simulation(
        time=start + elapsed,
        sensors=SENSOR_NAMES,
        units=tuple(sensor.unit for sensor in SENSORS),
        values=_transmit(measured),
        label=(fault != "").astype(np.int8),
        fault=fault,
        plans=tuple(faults),
    )


def _check(hours: float, seed: int, interval: float, start: float, faults: Sequence[FaultPlan]) -> None:
    for name, value in (("hours", hours), ("interval", interval)):
        if not (math.isfinite(value) and value > 0.0):
            raise UsageError(f"simulate: {name} must be a number greater than 0")
    if seed < 0:
        raise UsageError("simulate: seed must be 0 or greater")
    if hours * 3600.0 / interval > MOST_ROWS:
        raise UsageError(
            f"simulate: hours / interval is more than {MOST_ROWS} rows, which memory does not hold"
        )
    if not 0.0 <= start <= _LATEST_START:
        raise UsageError("simulate: start must be seconds since 1970, before the year 9000")
    for plan in faults:
        if plan.start_seconds >= hours * 3600.0:
            raise UsageError(
                f"fault '{plan.kind}': begins at {plan.start_seconds:g} s, after the end at {hours * 3600.0:g} s"
            )


def _drive(elapsed: Float64, seed: int, interval: float, faults: Sequence[FaultPlan], start: float) -> Drive:
    flow, speed = _duty(elapsed, seed)
    day = 2.0 * np.pi * (start + elapsed) / DAY_SECONDS
    shocks = np.random.default_rng([seed, 2]).standard_normal(len(elapsed))
    acting = machine_faults(faults, elapsed, seed)
    return Drive(
        flow=flow * (1.0 + 0.05 * np.sin(day - 2.1)),  # most is asked of the pump in the early afternoon
        speed=speed,
        ambient=20.0 + 4.0 * np.sin(day - 2.4),
        pipe=1.0 + 0.03 * _coloured(shocks, interval, _PIPE_MEMORY_SECONDS),
        wear=acting.wear,
        leak=acting.leak,
        stiction=acting.stiction,
        head_loss=acting.head_loss,
    )


def _duty(elapsed: Float64, seed: int) -> tuple[Float64, Float64]:
    """Return the set-points of flow (n,) in m3/h and of speed (n,) in rpm."""
    ends: list[float] = []
    flows: list[float] = []
    speeds: list[float] = []
    end = 0.0
    for length, flow, speed in _phases(np.random.default_rng([seed, 1])):
        end += length
        ends.append(end)
        flows.append(flow)
        speeds.append(speed)
        if end > elapsed[-1]:
            break
    phase = np.searchsorted(ends, elapsed, side="right")
    return np.array(flows)[phase], np.array(speeds)[phase]


def _phases(random: np.random.Generator) -> Iterator[tuple[float, float, float]]:
    """Yield seconds, flow and speed of one phase after another: some set-points, then a stop, for ever."""
    while True:
        for _ in range(int(random.integers(*_STEPS_PER_RUN, endpoint=True))):
            flow, speed = _DUTIES[int(random.integers(len(_DUTIES)))]
            yield random.uniform(*_STEP_SECONDS), flow, speed
        yield random.uniform(*_STOP_SECONDS), 0.0, 0.0


def _coloured(shocks: Float64, interval: float, memory_seconds: float) -> Float64:
    """Turn white shocks (n,) into first-order autoregressive noise of unit variance."""
    keep = math.exp(-interval / memory_seconds)
    fresh = (math.sqrt(1.0 - keep * keep) * shocks).tolist()
    return np.array(list(accumulate(fresh, lambda held, new: keep * held + new)))


def _measure(truth: Float64, seed: int, interval: float) -> Float64:
    """Return the true values (n, F) with measurement noise, half of it remembered from tick to tick."""
    white = np.random.default_rng([seed, 3]).standard_normal((len(truth), 2, len(SENSORS)))
    running = truth[:, SENSOR_NAMES.index("speed_rpm")] / RATED_SPEED
    measured = truth.copy()
    for place, sensor in enumerate(SENSORS):
        slow = _coloured(white[:, 0, place], interval, _NOISE_MEMORY_SECONDS)
        noise = sensor.noise * math.sqrt(0.5) * (slow + white[:, 1, place])
        if sensor.name in _QUIET_WHEN_STANDING:
            noise = noise * (0.1 + 0.9 * running)
        measured[:, place] += noise
    return measured


def _transmit(measured: Float64) -> Float32:
    """Clip and round (n, F) as the transmitters do."""
    sent = np.empty(measured.shape, np.float32)
    for place, sensor in enumerate(SENSORS):
        sent[:, place] = np.round(np.clip(measured[:, place], sensor.low, sensor.high), sensor.decimals)
    return sent


def write_simulation(simulation: Simulation, path: Path, asset: str | None = None) -> None:
    """Write one wide file: `time` (UTC), `asset` if given, the sensors, `label` and `fault`.

    A lost sensor is an empty cell. Whatever the ending, the history read back is the same.

    Args:
        simulation: what to write.
        path: file to write, ending in `.csv`, `.csv.gz` or `.parquet`; replaced where it exists.
        asset: name for the column `asset`; without one there is no such column.

    Raises:
        UsageError: the path has another ending, or the name is none that a cell holds.
        HistoryError: the file cannot be written.
    """
    check_ending(path)
    if asset is not None and (not asset.strip() or set(asset) & set(',;|"\t\r\n')):
        raise UsageError(f"--asset: is {asset!r}, must be a name without separators and quotes")
    if path.name.lower().endswith(".parquet"):
        write_parquet(path, _table(simulation, asset))
        return
    try:
        with ExitStack() as opened:
            raw = cast(IO[bytes], opened.enter_context(path.open("wb")))
            if path.suffix.lower() == ".gz":
                # Without name and time in its head, equal simulations are equal files.
                raw = cast(IO[bytes], opened.enter_context(gzip.GzipFile("", "wb", 6, raw, mtime=0)))
            text = opened.enter_context(io.TextIOWrapper(raw, encoding="utf-8", newline="\n"))
            text.writelines(_lines(simulation, asset))
    except OSError as error:
        raise HistoryError(f"{path}: cannot be written, {error.strerror}") from error


def check_ending(path: Path) -> None:
    """Refuse a path that no simulation can be written to, before minutes are spent on one.

    Raises:
        UsageError: the ending is none of `ENDINGS`.
    """
    if not path.name.lower().endswith(ENDINGS):
        raise UsageError(f"{path}: a simulation is written as {', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}")


def _table(simulation: Simulation, asset: str | None) -> dict[str, NDArray[Any]]:
    count = len(simulation.time)
    sensors = dict(zip(simulation.sensors, simulation.values.T, strict=True))
    return {
        "time": _milliseconds(simulation.time).astype(np.dtype("datetime64[ms]")),
        **({} if asset is None else {"asset": np.full(count, asset)}),
        **sensors,
        "label": simulation.label,
        "fault": simulation.fault,
    }


def _lines(simulation: Simulation, asset: str | None) -> Iterator[str]:
    lead = ("time",) if asset is None else ("time", "asset")
    yield ",".join((*lead, *simulation.sensors, "label", "fault")) + "\n"
    between = "," if asset is None else f",{asset},"
    forms = [f"{{:.{sensor.decimals}f}}" for sensor in SENSORS]
    rows = zip(
        _stamps(simulation.time), simulation.values.tolist(), simulation.label, simulation.fault, strict=True
    )
    for stamp, values, label, fault in rows:
        cells = (
            "" if value != value else form.format(value) for form, value in zip(forms, values, strict=True)
        )
        yield f"{stamp}{between}{','.join(cells)},{label},{fault}\n"


def _milliseconds(time: Float64) -> Int64:
    return np.round(time * 1000.0).astype(np.int64)


def _stamps(time: Float64) -> list[str]:
    milliseconds = _milliseconds(time)
    stamps = milliseconds.astype(np.dtype("datetime64[ms]"))
    if not (milliseconds % 1000).any():
        stamps = stamps.astype(np.dtype("datetime64[s]"))
    return [str(stamp) for stamp in np.datetime_as_string(stamps, timezone="UTC")]
