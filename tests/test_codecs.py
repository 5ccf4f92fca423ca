"""Laws of decoding: good cells survive, bad ones are counted, nothing raises."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.codecs import REASONS, DecodedRow, JsonDecoder, PayloadFormat, parse_time

SENSORS = ("flow", "pressure")
ARRIVAL = 1_700_000_000.0
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(("time", "values", "value", "flow", "pressure", "x")), inner, max_size=4
        )
    ),
    max_leaves=12,
)


@pytest.mark.parametrize(
    ("payload", "sensor", "rows"),
    [
        (b'{"time": 10, "values": {"flow": 1.5, "pressure": 2}}', None, [(10.0, {0: 1.5, 1: 2.0})]),
        (b'{"time": 10, "pressure": 2}', None, [(10.0, {1: 2.0})]),
        (b'{"flow": 1}', None, [(ARRIVAL, {0: 1.0})]),
        (b'[{"time": 2, "flow": 1}, {"time": 1, "flow": 3}]', None, [(2.0, {0: 1.0}), (1.0, {0: 3.0})]),
        (b"7", "flow", [(ARRIVAL, {0: 7.0})]),
        (b'{"time": "2023-11-14T22:13:20Z", "value": 4}', "pressure", [(ARRIVAL, {1: 4.0})]),
        (b'[{"time": 5, "value": 1}, 2]', "flow", [(5.0, {0: 1.0}), (ARRIVAL, {0: 2.0})]),
        (b'{"flow": null, "pressure": 1}', None, [(ARRIVAL, {1: 1.0})]),
        (b'\xef\xbb\xbf{"flow": 1}', None, [(ARRIVAL, {0: 1.0})]),
    ],
)
def test_shapes(payload: bytes, sensor: str | None, rows: list[tuple[float, dict[int, float]]]) -> None:
    """Every documented shape of payload gives its rows in order, with nothing rejected."""
    decoded = JsonDecoder(SENSORS).decode(payload, ARRIVAL, sensor)
    assert decoded.rows == [DecodedRow(*row) for row in rows]
    assert not decoded.rejected


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ("NaN", "nan"),
        ("Infinity", "infinite"),
        ("-Infinity", "infinite"),
        ("1e39", "too_large"),
        ("1e999", "too_large"),
        ("9" * 40, "too_large"),
        ("9" * 9000, "too_large"),
        ('"12"', "not_a_number"),
        ("true", "not_a_number"),
        ("{}", "not_a_number"),
    ],
)
def test_bad_cell_costs_only_itself(cell: str, reason: str) -> None:
    """A bad cell is counted under its reason and the rest of the message is kept."""
    decoded = JsonDecoder(SENSORS).decode(f'{{"flow": {cell}, "pressure": 1}}'.encode(), ARRIVAL)
    assert decoded.rows == [DecodedRow(ARRIVAL, {1: 1.0})]
    assert decoded.rejected == {reason: 1}


@pytest.mark.parametrize(
    ("payload", "sensor", "reason"),
    [
        (b"", None, "not_json"),
        (b"{'flow': 1}", None, "not_json"),
        (b'{"flow": "\xff"}', None, "not_json"),
        (b"[" * 100_000, None, "not_json"),
        (b'{"time": "yesterday", "flow": 1}', None, "bad_time"),
        (b'{"time": NaN, "flow": 1}', None, "bad_time"),
        (b'{"time": -5, "flow": 1}', None, "bad_time"),
        (b'{"time": ' + b"9" * 500 + b', "flow": 1}', None, "bad_time"),
        (b'{"time": "0001-01-01T00:00:00+14:00", "flow": 1}', None, "bad_time"),
        (b'{"time": [], "flow": 1}', None, "bad_time"),
        (b'{"level": 1}', None, "unknown_sensor"),
        (b"3", "level", "unknown_sensor"),
        (b"3", None, "not_a_number"),
        (b'{"time": 3}', "flow", "not_a_number"),
    ],
)
def test_unusable_message_is_counted(payload: bytes, sensor: str | None, reason: str) -> None:
    """A message without one usable reading gives no row and one count of its reason."""
    decoded = JsonDecoder(SENSORS).decode(payload, ARRIVAL, sensor)
    assert decoded.rows == []
    assert decoded.rejected == {reason: 1}


def test_bad_row_leaves_the_array() -> None:
    """A row with a bad time inside an array does not cost the rows beside it."""
    payload = b'[{"time": "x", "flow": 1}, {"time": 3, "flow": 2}, "y"]'
    decoded = JsonDecoder(SENSORS).decode(payload, ARRIVAL)
    assert decoded.rows == [DecodedRow(3.0, {0: 2.0})]
    assert decoded.rejected == {"bad_time": 1, "not_a_number": 1}


def test_keys_are_configurable() -> None:
    """The keys of time, value and values follow the input's format."""
    fmt = PayloadFormat(time_key="ts", value_key="v", values_key="data", time_unit="ms")
    decoder = JsonDecoder(SENSORS, fmt)
    assert decoder.decode(b'{"ts": 2000, "v": 1}', ARRIVAL, "flow").rows == [DecodedRow(2.0, {0: 1.0})]
    assert decoder.decode(b'{"ts": 2000, "data": {"flow": 1}}', ARRIVAL).rows == [DecodedRow(2.0, {0: 1.0})]


@pytest.mark.parametrize("stamp", [1.7e9, 1_700_000_000_000, 1.7e15, 1.7e18, "2023-11-14T23:13:20+01:00"])
def test_epoch_units_are_recognised(stamp: object) -> None:
    """Seconds, milli-, micro-, nanoseconds and RFC 3339 of one moment are the same time."""
    assert parse_time(stamp) == ARRIVAL


@given(st.binary(max_size=60), st.sampled_from((None, "flow")))
def test_any_bytes_decode(payload: bytes, sensor: str | None) -> None:
    """No bytes raise, and every reason is a known one."""
    decoded = JsonDecoder(SENSORS).decode(payload, ARRIVAL, sensor)
    assert set(decoded.rejected) <= set(REASONS)


@given(JSON, st.sampled_from((None, "flow")))
def test_any_json_decodes(content: Any, sensor: str | None) -> None:
    """No JSON value raises, and what is kept is finite and has a time."""
    decoded = JsonDecoder(SENSORS).decode(json.dumps(content).encode(), ARRIVAL, sensor)
    assert set(decoded.rejected) <= set(REASONS)
    for row in decoded.rows:
        assert row.time >= 0
        assert row.values
        assert all(math.isfinite(value) for value in row.values.values())


@given(
    st.dictionaries(
        st.sampled_from(SENSORS), st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1
    )
)
def test_readings_come_through_unchanged(values: dict[str, float]) -> None:
    """Finite readings come out exactly as they were written."""
    decoded = JsonDecoder(SENSORS).decode(json.dumps(values).encode(), ARRIVAL)
    assert decoded.rows[0].values == {SENSORS.index(name): value for name, value in values.items()}
