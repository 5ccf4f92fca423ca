"""Laws of cutting a stream into packets: nothing is lost, however reads cut it, and what is no reading is paho's."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.packets import Messages, PacketSplitter

PINGRESP = b"\xd0\x00"
Reading = tuple[bytes, bytes, int, int, bool]
READINGS = st.tuples(
    st.binary(min_size=1, max_size=20),
    st.binary(max_size=300),
    st.integers(0, 1),
    st.integers(1, 65535),
    st.booleans(),
)
OTHERS = st.sampled_from(
    (PINGRESP, b"\x40\x02\x00\x07", b"\x34\x07\x00\x01a\x00\x09\x00x", b"\x90\x03\x00\x01\x01")
)


def _number(value: int) -> bytes:
    digits = bytearray()
    while True:
        value, digit = divmod(value, 128)
        digits.append(digit | (0x80 if value else 0))
        if not value:
            return bytes(digits)


def publish(reading: Reading, newest: bool, properties: bytes = b"") -> bytes:
    """Return a PUBLISH packet as a broker writes it."""
    topic, payload, qos, mid, retained = reading
    body = len(topic).to_bytes(2, "big") + topic
    body += mid.to_bytes(2, "big") if qos else b""
    body += _number(len(properties)) + properties if newest else b""
    body += payload
    return bytes([0x30 | qos << 1 | retained]) + _number(len(body)) + body


def _cut(stream: bytes, newest: bool, cuts: list[int]) -> tuple[Messages, list[bytes]]:
    splitter, messages, others = PacketSplitter(newest), Messages(), []
    edges = [0, *sorted({cut for cut in cuts if cut < len(stream)}), len(stream)]
    for start, end in pairwise(edges):
        others += splitter.feed(stream[start:end], messages)
    return messages, others


@settings(deadline=None)
@given(
    packets=st.lists(READINGS | OTHERS, max_size=12),
    newest=st.booleans(),
    properties=st.binary(max_size=200),
    cuts=st.lists(st.integers(1, 4000), max_size=10),
)
def test_every_packet_comes_out_once_and_in_order(
    packets: list[Reading | bytes], newest: bool, properties: bytes, cuts: list[int]
) -> None:
    """However reads cut the stream, each reading has its topic, payload, QoS and mid, and other packets stay whole."""
    stream = b"".join(one if isinstance(one, bytes) else publish(one, newest, properties) for one in packets)
    messages, others = _cut(stream, newest, cuts)
    sent = [one for one in packets if not isinstance(one, bytes)]
    assert [
        (messages.topics[i], messages.payloads[i], messages.qos(i), messages.retained(i))
        for i in range(len(messages))
    ] == [(topic, payload, qos, retained) for topic, payload, qos, _, retained in sent]
    assert messages.mids == [mid if qos else 0 for _, _, qos, mid, _ in sent]
    assert others == [one for one in packets if isinstance(one, bytes)]


@given(stream=st.binary(max_size=200), newest=st.booleans(), cuts=st.lists(st.integers(1, 200), max_size=5))
def test_any_bytes_are_cut_alike(stream: bytes, newest: bool, cuts: list[int]) -> None:
    """No bytes raise, and where the reads cut them changes nothing."""
    whole, whole_others = _cut(stream, newest, [])
    parts, part_others = _cut(stream, newest, cuts)
    assert (parts.topics, parts.payloads, parts.mids) == (whole.topics, whole.payloads, whole.mids)
    assert b"".join(part_others) == b"".join(whole_others)


@pytest.mark.parametrize(
    ("packet", "newest"),
    [
        (b"\x30\x00", False),
        (b"\x30\x04\x00\x09ab", False),
        (b"\x32\x04\x00\x01a\x01", False),
        (b"\x32\x05\x00\x01a\x00\x00", False),
        (b"\x36\x06\x00\x01a\x00\x01x", False),
        (b"\x30\x03\x00\x01a", True),
        (b"\x30\x05\x00\x01a\x09x", True),
        (b"\x30\xff\xff\xff\xff\x01abc", False),
    ],
)
def test_a_malformed_packet_is_left_to_paho(packet: bytes, newest: bool) -> None:
    """A PUBLISH that breaks the protocol is no reading and is handed on as it came, for paho to end the connection."""
    messages, others = _cut(packet, newest, [])
    assert (len(messages), b"".join(others)) == (0, packet)


def test_messages_split_and_fit_by_count_and_size() -> None:
    """The first messages can be taken away, and how many fit is told by count and by bytes."""
    messages = Messages()
    for number in range(5):
        messages.add(b"t", b"x" * 9, qos=1, mid=number + 1)
    assert [messages.fitting(*limit) for limit in ((9, 99), (2, 99), (9, 29), (9, 9))] == [5, 2, 2, 0]
    first = messages.split(2)
    assert (first.mids, messages.mids, first.size, messages.size) == ([1, 2], [3, 4, 5], 20, 30)
