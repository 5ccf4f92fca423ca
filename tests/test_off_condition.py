"""Laws of the off-condition: what is off, and how long it settles."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.contract.off_condition import COMPARISONS, OffCondition, parse_off_condition


def _rested(condition: OffCondition, readings: list[float], size: int = 1) -> list[bool]:
    """Return which samples of one machine have no score."""
    off, settling, found = np.zeros(1, np.bool_), np.zeros(1, np.int64), list[bool]()
    for at in range(0, len(readings), size):
        part = np.array([readings[at : at + size]], np.float32)
        offs, settlings, resting = condition.follow(off, settling, part)
        off, settling = offs[:, -1], settlings[:, -1]
        found += resting[0].tolist()
    return found


def test_a_stop_and_the_samples_after_it_have_no_score() -> None:
    """From the first sample that is off to the last that settles there is no score; then there is."""
    readings = [1500.0, 0.0, 0.0, 1500.0, 1500.0, 1500.0, 1500.0]
    condition = OffCondition("speed", "<", 100.0, settle_ticks=2)
    assert _rested(condition, readings) == [False, True, True, True, True, False, False]
    assert _rested(OffCondition("speed", "<", 100.0), readings) == [False, True, True, *[False] * 4]


def test_a_missing_reading_changes_nothing() -> None:
    """While the sensor is missing the machine is what it was, and goes on settling."""
    missing = float("nan")
    condition = OffCondition("speed", "<", 100.0, settle_ticks=2)
    assert _rested(condition, [missing, 0.0, missing, 1500.0, missing, missing]) == [
        False, True, True, True, True, False,
    ]  # fmt: skip


@given(
    readings=st.lists(st.floats(-10.0, 10.0, width=32), max_size=40),
    comparison=st.sampled_from(sorted(COMPARISONS)),
    value=st.integers(-5, 5),
    ticks=st.integers(0, 6),
    size=st.integers(1, 40),
)
def test_settling_only_adds(
    readings: list[float], comparison: str, value: int, ticks: int, size: int
) -> None:
    """Off is what the comparison says of each reading; each stop is followed by so many samples of settling."""
    off = [bool(COMPARISONS[comparison](reading, value)) for reading in readings]
    rested = _rested(OffCondition("x", comparison, float(value), ticks), readings, size)
    for at, resting in enumerate(rested):
        assert resting == any(off[max(at - ticks, 0) : at + 1])


@given(
    readings=st.lists(st.one_of(st.just(float("nan")), st.floats(-10.0, 10.0, width=32)), max_size=40),
    comparison=st.sampled_from(sorted(COMPARISONS)),
    ticks=st.integers(0, 6),
)
def test_a_whole_history_rests_where_its_samples_do(
    readings: list[float], comparison: str, ticks: int
) -> None:
    """What the trainer leaves out of fitting is, sample for sample, what has no score in the daemon."""
    condition = OffCondition("x", comparison, 1.0, ticks)
    whole = condition.resting(np.array(readings, np.float32))
    assert whole.tolist() == _rested(condition, readings)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("speed_rpm<100", OffCondition("speed_rpm", "<", 100.0)),
        (" motor on == 0 ", OffCondition("motor on", "==", 0.0)),
        ("power>=-1.5e1", OffCondition("power", ">=", -15.0)),
        ("a!=3", OffCondition("a", "!=", 3.0)),
    ],
)
def test_a_condition_is_read_as_people_write_it(text: str, expected: OffCondition) -> None:
    """Sensor, comparison and number, with or without blanks."""
    assert parse_off_condition(text) == expected


@pytest.mark.parametrize(
    "text", ["", "speed", "speed<", "<100", "speed<fast", "speed<nan", "1<speed<3", "a=3"]
)
def test_what_is_no_condition_is_refused(text: str) -> None:
    """Anything else is refused in words."""
    with pytest.raises(ValueError, match="must"):
        parse_off_condition(text)
