"""Times as files write them, into seconds since the epoch; which way round a date is, the data decides."""

from dataclasses import dataclass

import numpy as np

from edge_agent.contract.types import Bool, Float64

UNIT_SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
_DAYS = np.asarray([0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31])


@dataclass(frozen=True)
class DateParts:
    """Dates and times of day in pieces, each (n,) float64, NaN where the text had none or was no date.

    `offset` is the zone's distance from UTC in seconds; without a zone a time is read as UTC.
    """

    first: Float64
    second: Float64
    third: Float64
    seconds_of_day: Float64
    offset: Float64


def readings_of_dates(parts: DateParts) -> tuple[Float64, Float64]:
    """Return the times (n,) in epoch seconds read day first and month first, NaN where it is no date that way.

    A date that begins with a four-digit year is the same in both.
    """
    iso = parts.first >= 1000
    year = np.where(iso, parts.first, parts.third)
    year = np.where(year < 70, year + 2000, np.where(year < 100, year + 1900, year))
    day_first = _epoch(
        year, parts.second, np.where(iso, parts.third, parts.first), parts.seconds_of_day - parts.offset
    )
    if iso.all():
        return day_first, day_first
    month_first = _epoch(
        year,
        np.where(iso, parts.second, parts.first),
        np.where(iso, parts.third, parts.second),
        parts.seconds_of_day - parts.offset,
    )
    return day_first, month_first


def choose_date_order(day_first: Float64, month_first: Float64) -> tuple[Float64, str, bool]:
    """Return the more sensible of two readings of the same dates, its name, and whether the data decided beyond doubt.

    More valid dates win (a component above 12 decides); then the reading in which time runs backwards less often;
    then the one whose longest step is shorter, because a wrong order leaps by months; then day first.
    """
    same = np.array_equal(day_first, month_first, equal_nan=True)
    if same:
        return day_first, "iso", True
    valid = int(np.isfinite(day_first).sum()) - int(np.isfinite(month_first).sum())
    if valid:
        return (day_first, "day-first", True) if valid > 0 else (month_first, "month-first", True)
    backwards = _steps_back(month_first) - _steps_back(day_first)
    if backwards:
        return (day_first, "day-first", False) if backwards > 0 else (month_first, "month-first", False)
    if _longest_step(month_first) < _longest_step(day_first):
        return month_first, "month-first", False
    return day_first, "day-first", False


def epoch_unit(times: Float64) -> str:
    """Return the unit of times since the epoch, by their magnitude: seconds until the year 5138."""
    finite = np.abs(times[np.isfinite(times)])
    middle = float(np.median(finite)) if len(finite) else 0.0
    for unit, limit in (("s", 1e11), ("ms", 1e14), ("us", 1e17)):
        if middle < limit:
            return unit
    return "ns"


def _steps_back(times: Float64) -> int:
    return int(np.sum(np.diff(times[np.isfinite(times)]) < 0))


def _longest_step(times: Float64) -> float:
    finite = times[np.isfinite(times)]
    return float(np.max(np.diff(finite), initial=0.0))


def _epoch(year: Float64, month: Float64, day: Float64, seconds: Float64) -> Float64:
    """Return epoch seconds (n,) of calendar dates, NaN where there is no such date."""
    valid = _is_date(year, month, day) & np.isfinite(seconds)
    y, m, d = (np.where(valid, part, 1).astype(np.int64) for part in (year, month, day))
    # Counting years from March puts the leap day at the end, where it moves no other day.
    y = y - (m <= 2)
    day_of_year = (153 * ((m + 9) % 12) + 2) // 5 + d - 1
    days = y * 365 + y // 4 - y // 100 + y // 400 + day_of_year - 719468
    return np.where(valid, days * 86400.0 + seconds, np.nan)


def _is_date(year: Float64, month: Float64, day: Float64) -> Bool:
    in_range = (year >= 1) & (month >= 1) & (month <= 12) & (day >= 1)
    y, m = np.where(in_range, year, 1).astype(np.int64), np.where(in_range, month, 1).astype(np.int64)
    leap = (y % 4 == 0) & ((y % 100 != 0) | (y % 400 == 0))
    last: Bool = day <= _DAYS[m] + (leap & (m == 2))
    result: Bool = in_range & last
    return result
