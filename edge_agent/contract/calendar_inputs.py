"""Time of day and day of week as inputs of the forecaster, by the clock of the plant.

Each is a sine and a cosine, so that midnight stands beside midnight. They follow from the time of a tick alone: what
the trainer computes of a history is what the daemon computes of the same ticks.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, tzinfo
from zoneinfo import ZoneInfo

import numpy as np

from edge_agent.contract.types import Float32, Float64

CALENDAR = {"hour": ("hour_sin", "hour_cos"), "weekday": ("weekday_sin", "weekday_cos")}
"""The inputs of each part of the calendar that can be asked for."""
_DAY = 86_400.0
_WEEK = 7 * _DAY
_MONDAY = 4 * _DAY
"""The epoch began on a Thursday; the first Monday came four days later."""
_QUARTER = 900
"""Seconds: clocks are set forward and back, and zones differ, by whole quarters of an hour."""


def find_zone(name: str) -> tzinfo:
    """Return a time zone of the IANA database, such as `Europe/Berlin`; `UTC` needs no database.

    Raises:
        ValueError: there is no such zone on this machine, as the end of a sentence.
    """
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise ValueError(f"is {name!r}, no time zone that this machine knows") from error


def calendar_values(names: Sequence[str], time: Float64, zone: tzinfo) -> Float32:
    """Return (n, C) the calendar inputs of times, each between -1 and 1.

    Args:
        names: C of those in `CALENDAR`.
        time: (n,) seconds since the epoch.
        zone: whose clock counts.
    """
    local = time + utc_offset(time, zone)
    turns = {"hour": np.mod(local, _DAY) / _DAY, "weekday": np.mod(local - _MONDAY, _WEEK) / _WEEK}
    values = np.empty((len(time), len(names)), np.float32)
    for place, name in enumerate(names):
        part, _, wave = name.partition("_")
        values[:, place] = (np.sin if wave == "sin" else np.cos)(2.0 * np.pi * turns[part])
    return values


def utc_offset(time: Float64, zone: tzinfo) -> Float64:
    """Return (n,) seconds that the zone's clock is ahead of UTC at times (n,), seconds since the epoch."""
    if zone is UTC:
        return np.zeros(len(time))
    quarters, place = np.unique(np.floor(time / _QUARTER).astype(np.int64), return_inverse=True)
    offsets = [_offset_of(quarter, zone) for quarter in quarters.tolist()]
    return np.asarray(offsets, np.float64)[place]


def _offset_of(quarter: int, zone: tzinfo) -> float:
    ahead = datetime.fromtimestamp(quarter * _QUARTER, zone).utcoffset()
    return 0.0 if ahead is None else ahead.total_seconds()
