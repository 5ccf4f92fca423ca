"""What the demonstration says: alarm events and metrics as text for a person. No clock, no network."""

from collections.abc import Sequence
from typing import Any

_NOT_WORTH_A_LINE = 0.01
_SENSORS_SHOWN = 4
METRICS_SHOWN = (
    "forewarn_asset_score",
    "forewarn_score_threshold",
    "forewarn_alarm_active",
    "forewarn_readings_received_total",
    "forewarn_samples_scored_total",
    "forewarn_inference_provider_info",
)


def clock(seconds: float) -> str:
    """Return a duration as minutes and seconds, such as `02:07`."""
    return f"{int(seconds) // 60:02d}:{int(seconds) % 60:02d}"


def event_lines(event: dict[str, Any]) -> list[str]:
    """Say an event.

    Args:
        event: the payload, of schema `forewarn.event/1`.

    Returns:
        A headline, and unless an alarm ends, one line for each sensor to blame, the most to blame first.
    """
    if event["kind"] == "data_quality":
        dead = ", ".join(f"{one['name'] or 'the whole asset'} {one['reason']}" for one in event["sensors"])
        return [f"data quality, {event['phase']}: {event['asset']}, {dead}, at {event['time']}"]
    kind = {"start": "ALARM", "update": "alarm goes on", "end": "alarm ends"}[event["kind"]]
    headline = f"{kind}: {event['asset']}, {event['severity']}, at {event['time']}"
    if event["kind"] == "end":
        return [
            f"{headline}, after {clock(event['duration_seconds'])}, peak score {number(event['peak_score'])}"
        ]
    lines = [f"{headline}, score {number(event['score'])} (1 is the threshold), onset {event['onset_time']}"]
    blamed = [one for one in event["sensors"] if one["share"] is None or one["share"] >= _NOT_WORTH_A_LINE]
    return lines + _table([_sensor_cells(one) for one in blamed[:_SENSORS_SHOWN]])


def _sensor_cells(sensor: dict[str, Any]) -> list[str]:
    unit = f" {sensor['unit']}" if sensor["unit"] else ""
    share = "" if sensor["share"] is None else f"{sensor['share']:.0%}"
    expected = "expected " + ("unknown" if sensor["expected"] is None else number(sensor["expected"]) + unit)
    if sensor["actual"] is None:
        return [sensor["name"], share, "missing", expected, ""]
    return [
        sensor["name"], share, number(sensor["actual"]) + unit, expected,
        f"{sensor['direction']} what was expected, {sensor['trend']}",
    ]  # fmt: skip


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def number(value: float | None) -> str:
    """Return a measured value with four digits, which no transmitter beats; None is beyond measure."""
    return "beyond measure" if value is None else f"{value:.4g}"


def counted(count: int, thing: str) -> str:
    """Return a count with its noun, such as `1 stop` or `2 stops`."""
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


def metric_lines(exposition: str) -> list[str]:
    """Return the lines of a Prometheus exposition that are worth a look, in the order of `METRICS_SHOWN`."""
    lines = [line for line in exposition.splitlines() if not line.startswith("#")]
    return [line for name in METRICS_SHOWN for line in lines if line.startswith((f"{name}{{", f"{name} "))]


def verdict(event: dict[str, Any], fault: str, fault_start: float, suspects: Sequence[str]) -> str:
    """Say how an alarm compares with what was really done to the machine.

    Args:
        event: the start of an alarm that came with the fault.
        fault: its kind.
        fault_start: when it began, seconds since the epoch, on the clock of the readings.
        suspects: the sensors that the fault moves.
    """
    delay = event["time_epoch"] - fault_start
    first = event["sensors"][0]["name"] if event["sensors"] else "no sensor"
    judged = "one of" if first in suspects else "not one of"
    return (
        f"{fault} began {clock(delay)} before the alarm; {first} is blamed most, "
        f"{judged} the sensors it moves ({', '.join(suspects)})."
    )
