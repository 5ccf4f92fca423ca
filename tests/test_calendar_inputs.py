"""Laws of the calendar inputs: the plant's clock, exact and causal."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.contract.calendar_inputs import CALENDAR, calendar_values, find_zone, utc_offset

NAMES = [name for names in CALENDAR.values() for name in names]
ZONES = ("UTC", "Europe/Berlin", "America/St_Johns", "Asia/Kathmandu", "Australia/Lord_Howe")
TIMES = st.floats(1e8, 4e9)


@given(zone=st.sampled_from(ZONES), times=st.lists(TIMES, min_size=1, max_size=20))
def test_the_calendar_is_that_of_the_plants_clock(zone: str, times: list[float]) -> None:
    """Every input follows from hour, minute, second and weekday that a clock in the zone shows."""
    found = calendar_values(NAMES, np.array(times), find_zone(zone))
    for row, time in zip(found, times, strict=True):
        local = datetime.fromtimestamp(time, ZoneInfo(zone))
        day = local.hour * 3600 + local.minute * 60 + local.second + local.microsecond / 1e6
        turns = np.array([day / 86400, (local.weekday() * 86400 + day) / 604800]) * 2 * np.pi
        expected = [np.sin(turns[0]), np.cos(turns[0]), np.sin(turns[1]), np.cos(turns[1])]
        np.testing.assert_allclose(row, expected, atol=1e-5)


@given(times=st.lists(TIMES, min_size=2, max_size=20), cut=st.integers(1, 19))
def test_a_time_alone_decides(times: list[float], cut: int) -> None:
    """Rows computed together are, bit for bit, those computed apart: no row knows of another."""
    zone, every = find_zone("Europe/Berlin"), np.array(times)
    together = calendar_values(NAMES, every, zone)
    apart = [calendar_values(NAMES, part, zone) for part in (every[:cut], every[cut:])]
    np.testing.assert_array_equal(together, np.concatenate(apart))


def test_midnight_stands_beside_midnight() -> None:
    """A second before and after midnight from Sunday to Monday the inputs are all but the same."""
    monday = datetime(2026, 1, 5, tzinfo=UTC).timestamp()
    before, after = calendar_values(NAMES, np.array([monday - 1, monday + 1]), UTC)
    np.testing.assert_allclose(before, after, atol=1e-3)


def test_the_clock_goes_forward_and_back() -> None:
    """The offset changes in the very second in which the zone's clocks are set."""
    zone = find_zone("Europe/Berlin")
    spring = datetime(2026, 3, 29, 1, tzinfo=UTC).timestamp()
    autumn = datetime(2026, 10, 25, 1, tzinfo=UTC).timestamp()
    found = utc_offset(np.array([spring - 1, spring, autumn - 1, autumn]), zone)
    np.testing.assert_array_equal(found, [3600, 7200, 7200, 3600])


@pytest.mark.parametrize("name", ["Europe/Nowhere", "", "../etc/passwd"])
def test_an_unknown_zone_is_refused(name: str) -> None:
    """What is no zone is said, and no file outside of the database is read."""
    with pytest.raises(ValueError, match="no time zone that this machine knows"):
        find_zone(name)
