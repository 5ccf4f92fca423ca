"""Laws of the way from messages to rows: the typed readers give what the lenient decoder gives, row for row."""

import json
import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edge_agent.binary_payload import MAGIC, write_binary
from edge_agent.codecs import JsonDecoder, PayloadFormat
from edge_agent.contract.errors import ConfigurationError
from edge_agent.contract.types import Rows
from edge_agent.intake import Intake
from edge_agent.packets import Messages
from edge_agent.settings import MqttInput
from edge_agent.tally import Tally

SENSORS = ("flow", "pressure")
ARRIVAL = 1_700_000_000.0
ASSETS = 3


class _Assets:
    """The part of the pipeline that an intake needs."""

    sensors = SENSORS
    unused = ("meter",)

    def __init__(self) -> None:
        self.assets: list[str] = []

    def asset_row(self, asset: str) -> int:
        if asset not in self.assets:
            if len(self.assets) == ASSETS:
                raise ConfigurationError("full")
            self.assets.append(asset)
        return self.assets.index(asset)


def _intake(**fmt: Any) -> tuple[Intake, Tally]:
    tally = Tally()
    inputs = [MqttInput(topic="plant/{asset}", **fmt), MqttInput(topic="line/{asset}/{sensor}", **fmt)]
    return Intake(inputs, _Assets(), tally, ("own/",)), tally


def _rows(intake: Intake, sent: list[tuple[str, bytes]], limit: int = 1000, apart: int = 1000) -> list[Rows]:
    batch = []
    for at in range(0, len(sent), apart):
        messages = Messages(arrival=ARRIVAL + at)
        for topic, payload in sent[at : at + apart]:
            messages.add(topic.encode(), payload)
        batch.append(messages)
    return list(intake.blocks(batch, limit))


def _leniently(
    sent: list[tuple[str, bytes]], apart: int = 1000, **fmt: Any
) -> tuple[list[Any], Counter[str], int]:
    """Return rows, rejections and the number of readings by the decoder that says what payloads mean."""
    decoder, assets = JsonDecoder(SENSORS, PayloadFormat(**fmt)), _Assets()
    rows, rejected, readings = [], Counter[str](), 0
    for at, (topic, payload) in enumerate(sent):
        _, asset, *sensor = topic.split("/")
        number = assets.asset_row(asset)
        decoded = decoder.decode(payload, ARRIVAL + at // apart * apart, sensor[0] if sensor else None)
        rejected += decoded.rejected
        readings += decoded.rejected.total()
        for row in decoded.rows:
            cells = [row.values.get(index, math.nan) for index in range(len(SENSORS))]
            rows.append((number, row.time, *np.array(cells, np.float32).tolist()))
            readings += len(row.values)
    return rows, rejected, readings


def _as_tuples(blocks: list[Rows]) -> list[Any]:
    return [
        (asset, time, *cells)
        for rows in blocks
        for asset, time, cells in zip(
            rows.asset.tolist(), rows.time.tolist(), rows.values.tolist(), strict=True
        )
    ]


NUMBERS = st.one_of(
    st.integers(-(10**30), 10**30),
    st.floats(),
    st.floats(width=32, allow_nan=False, allow_infinity=False),
    st.sampled_from((0, 1, -0.0, 3.4028234663852886e38, 3.41e38, 1e300)),
)
TIMES = st.one_of(
    st.integers(-5, 10**20),
    st.floats(0, 1e19),
    st.sampled_from(
        ("2023-11-14T22:13:20Z", "2023-11-14 23:13:20+01:00", "yesterday", "", None, True, 1e11, 1e14)
    ),
)
CELLS = NUMBERS | st.none() | st.sampled_from((True, "12", [], {}))
NAMES = st.sampled_from((*SENSORS, "value", "x"))


@st.composite
def _objects(draw: st.DrawFn) -> dict[str, Any]:
    """Draw an object that is ordinary as often as not."""
    cells: dict[str, Any] = draw(
        st.fixed_dictionaries({}, optional=dict.fromkeys(SENSORS, NUMBERS))
        | st.fixed_dictionaries({"value": NUMBERS})
        | st.dictionaries(NAMES, CELLS, max_size=3)
    )
    outer: dict[str, Any] = {"values": cells} if draw(st.booleans()) else dict(cells)
    if draw(st.booleans()):
        outer = {"time": draw(TIMES), **outer}
    return outer


PAYLOADS = st.one_of(_objects(), NUMBERS, st.lists(_objects() | NUMBERS, max_size=4)).map(
    lambda content: json.dumps(content).encode()
)
TOPICS = st.sampled_from(("plant/a", "plant/b", "line/a/flow", "line/b/pressure", "line/a/level"))
NONSENSE = st.binary(max_size=20).filter(lambda payload: not payload.startswith(MAGIC))
SENT = st.lists(st.tuples(TOPICS, PAYLOADS | NONSENSE), max_size=12)


@settings(max_examples=150, deadline=None)
@given(
    sent=SENT,
    limit=st.integers(1, 8),
    apart=st.integers(1, 5),
    unit=st.sampled_from(("auto", "s", "ms", "ns")),
)
@example(
    [("line/a/flow", b"3"), ("plant/a", b'{"flow": 1}'), ("line/a/flow", b'[1, {"value": 2}]')], 2, 1, "auto"
)
@example([("plant/a", b'{"time": 1e12, "flow": 1}')] * 3, 9, 9, "s")
@example([("plant/a", b'{"flow": 1, "flow": 2}'), ("plant/a", b'{"flow": 1, "flow": null}')], 9, 9, "auto")
@example([("plant/a", b'{"values": {"flow": 1}, "x": "\xff"}')], 9, 9, "auto")
def test_typed_reading_is_lenient_reading(
    sent: list[tuple[str, bytes]], limit: int, apart: int, unit: str
) -> None:
    """Rows, their order, the readings counted and every reason are those of the lenient decoder, on any payload."""
    intake, tally = _intake(time_unit=unit)
    # Twice: what a topic's readers learnt from the first time must not matter.
    for _ in range(2):
        before, counted = Counter(tally.rejected), tally.readings
        blocks = _rows(intake, sent, limit, apart)
        rows, rejected, readings = _leniently(sent, apart, time_unit=unit)
        np.testing.assert_array_equal(
            np.array(_as_tuples(blocks)).reshape(-1, 4), np.array(rows).reshape(-1, 4)
        )
        assert Counter(tally.rejected) - before == rejected
        assert tally.readings - counted == readings
        assert all(0 < len(block) <= limit for block in blocks)


@pytest.mark.parametrize(
    ("topic", "payload"),
    [
        ("plant/a", b'{"time": 1700000000, "flow": 1.5, "pressure": 2}'),
        ("plant/a", b'{"time": "2023-11-14T22:13:20Z", "flow": 1.5}'),
        ("plant/a", b'{"time": 5, "values": {"flow": 1.5, "pressure": null}}'),
        ("plant/a", b'[{"flow": 1}, {"time": 5, "pressure": 2}]'),
        ("line/a/flow", b"1.5"),
        ("line/a/flow", b'{"time": 5, "value": 1}'),
        ("line/a/flow", b'[{"time": "2023-11-14T22:13:20Z", "value": 1}]'),
    ],
)
def test_ordinary_payloads_take_the_fast_way(
    monkeypatch: pytest.MonkeyPatch, topic: str, payload: bytes
) -> None:
    """After its first message a topic with an ordinary payload never needs the lenient decoder again."""
    intake, _ = _intake()
    _rows(intake, [(topic, payload)])
    monkeypatch.setattr(JsonDecoder, "decode", None)
    assert sum(map(len, _rows(intake, [(topic, payload)] * 3))) >= 3


def test_keys_of_the_format_are_heeded() -> None:
    """Typed readers use the input's keys, and a sensor that is named as one of them goes the lenient way."""
    intake, _ = _intake(time_key="ts", value_key="v", values_key="data")
    sent = [("plant/a", b'{"ts": 7, "data": {"flow": 1}}'), ("line/a/flow", b'{"ts": 8, "v": 2}')]
    (rows,) = _rows(intake, sent * 2)
    assert rows.time.tolist() == [7, 8, 7, 8]
    intake, tally = _intake(time_key="flow")
    assert _rows(intake, [("plant/a", b'{"flow": 7, "pressure": 1}')])[0].time.tolist() == [7]
    assert tally.readings == 1


@given(rows=st.integers(1, 20), sensor=st.booleans())
def test_binary_payloads_are_rows_like_others(rows: int, sensor: bool) -> None:
    """A binary payload gives its rows on any topic, between others, and a damaged one is counted."""
    intake, tally = _intake()
    topic = "line/a/flow" if sensor else "plant/a"
    payload = write_binary(
        ("pressure", "x", "flow"), [[10.0 + at, 2.0, 3.0, math.inf if at == 1 else at] for at in range(rows)]
    )
    sent = [
        ("plant/b", b'{"time": 5, "flow": 9}'),
        (topic, payload),
        (topic, payload[:-1]),
        ("plant/b", b'{"flow": 7}'),
    ]
    blocks = _as_tuples(_rows(intake, sent))
    assert [row[1] for row in blocks] == [5, *(10.0 + at for at in range(rows)), ARRIVAL]
    np.testing.assert_array_equal(
        [row[2] for row in blocks[1:-1]], [math.nan if at == 1 else at for at in range(rows)]
    )
    assert (tally.rejected["bad_binary"], tally.rejected["unknown_sensor"]) == (1, rows)
    assert tally.rejected["infinite"] == (rows > 1)


def test_what_is_no_reading_is_set_aside_or_counted() -> None:
    """Own topics go apart, retained readings and unknown topics are counted, and neither makes an asset known."""
    intake, tally = _intake()
    messages = Messages(arrival=ARRIVAL)
    messages.add(b"own/x", b"1", retained=True)
    messages.add(b"own/x", b"2")
    messages.add(b"plant/a", b'{"flow": 1}', retained=True)
    messages.add(b"elsewhere", b'{"flow": 1}')
    messages.add(b"plant/\xff", b'{"flow": 1}')
    for asset in b"abcde":
        messages.add(b"plant/%c" % asset, b'{"flow": 1}')
    (rows,) = intake.blocks([messages], 100)
    assert [(one.topic, one.payload, one.retained) for one in intake.own] == [
        ("own/x", b"1", True),
        ("own/x", b"2", False),
    ]
    assert rows.asset.tolist() == [0, 1, 2]
    assert (tally.messages, tally.readings) == (8, 3)
    counted = {reason: count for reason, count in tally.rejected.items() if count}
    assert counted == {"retained": 1, "unknown_topic": 2, "too_many_assets": 2}


def test_made_up_topics_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Routes are forgotten when there are too many, and found again."""
    monkeypatch.setattr("edge_agent.intake._MOST_ROUTES", 50)
    intake, tally = _intake()
    for number in range(300):
        _rows(intake, [(f"elsewhere/{number}", b"1"), ("plant/a", b'{"flow": 1}')])
    assert len(intake._routes) + len(intake._astray) <= 50
    assert (tally.rejected["unknown_topic"], tally.readings) == (300, 300)


@pytest.mark.parametrize(
    "payload",
    [
        b'{"time": 10, "flow": 1.5, "pressure": 2.5, "meter": 1e9}',
        b'{"meter": null, "pressure": 2.5, "flow": 1.5, "time": 10}',
        b'{"time": "1970-01-01T00:00:10Z", "meter": "full", "flow": 1.5, "pressure": 2.5}',
        b'{"time": 10, "values": {"flow": 1.5, "meter": {"kWh": 3}, "pressure": 2.5}}',
        b'[{"time": 10, "flow": 1.5, "meter": 7, "pressure": 2.5}]',
        write_binary(("meter", "flow", "pressure"), [[10.0, 7.0, 1.5, 2.5]]),
    ],
    ids=["flat", "null", "text", "nested", "list", "binary"],
)
def test_what_the_bundle_does_not_use_is_passed_over(payload: bytes) -> None:
    """A name that the history had and the model has not is no reason to reject anything, whatever stands there."""
    intake, tally = _intake()
    sent = [("plant/a", payload)] * 3 + [("line/a/meter", b"12.5")]
    (rows,) = _rows(intake, sent)
    assert rows.time.tolist() == [10.0] * 3
    found = rows.values[:, [SENSORS.index("flow"), SENSORS.index("pressure")]]
    np.testing.assert_array_equal(found, [[1.5, 2.5]] * 3)
    assert not any(tally.rejected.values())
    assert tally.readings == 6


def test_payloads_with_unused_names_are_read_by_their_types() -> None:
    """After the first such payload the topic's reader takes them, so that they are as quick as others."""
    intake, _ = _intake()
    _rows(intake, [("plant/a", b'{"time": 10, "flow": 1.5, "meter": 7}')] * 2)
    (route,) = intake._routes.values()
    assert len(route.read(b'{"time": 11, "flow": 2.5, "meter": 8}')) == 1 + len(SENSORS)
