"""MQTT packets out of a stream of bytes: readings by the batch, all else as it is.

paho reads each packet with one select and three recv and makes an object of it, 16 to 30 µs a message. This takes what
one large recv brought apart in one loop. It knows PUBLISH of QoS 0 and 1 (MQTT 3.1.1 and 5.0, section 3.3) and leaves
every other packet, whole, to paho.
"""

from dataclasses import dataclass, field

_PUBLISH = 0x30
_RETAIN = 0x01
_QOS_BITS = 0x06


@dataclass(slots=True)
class Messages:
    """Messages that arrived together, one entry each.

    Attributes:
        topics, payloads: as they arrived.
        heads: first byte of each packet: its QoS and whether it was retained.
        mids: packet identifiers; 0 with QoS 0.
        size: bytes of all payloads and topics.
        arrival: seconds since the epoch.
        clock: the same moment on the monotonic clock.
        connection: the number of the connection that they came by.
    """

    topics: list[bytes] = field(default_factory=list)
    payloads: list[bytes] = field(default_factory=list)
    heads: list[int] = field(default_factory=list)
    mids: list[int] = field(default_factory=list)
    size: int = 0
    arrival: float = 0.0
    clock: float = 0.0
    connection: int = 0

    def __len__(self) -> int:
        """Return how many messages there are."""
        return len(self.topics)

    def add(self, topic: bytes, payload: bytes, qos: int = 0, mid: int = 0, retained: bool = False) -> None:
        """Append one message."""
        self.topics.append(topic)
        self.payloads.append(payload)
        self.heads.append(_PUBLISH | qos << 1 | retained)
        self.mids.append(mid)
        self.size += len(topic) + len(payload)

    def retained(self, index: int) -> bool:
        """Return whether the broker kept a message from before the subscription."""
        return bool(self.heads[index] & _RETAIN)

    def qos(self, index: int) -> int:
        """Return the quality of service of a message."""
        return (self.heads[index] & _QOS_BITS) >> 1

    def split(self, count: int) -> "Messages":
        """Take the first `count` messages away and return them."""
        first = Messages(
            self.topics[:count], self.payloads[:count], self.heads[:count], self.mids[:count],
            0, self.arrival, self.clock, self.connection,
        )  # fmt: skip
        first.size = sum(map(len, first.topics)) + sum(map(len, first.payloads))
        del self.topics[:count], self.payloads[:count], self.heads[:count], self.mids[:count]
        self.size -= first.size
        return first

    def fitting(self, count: int, size: int) -> int:
        """Return how many of the first messages are at most `count` and together at most `size` bytes."""
        if len(self) <= count and self.size <= size:
            return len(self)
        total, fit = 0, 0
        for topic, payload in zip(self.topics[:count], self.payloads[:count], strict=True):
            total += len(topic) + len(payload)
            if total > size:
                break
            fit += 1
        return fit


class PacketSplitter:
    """Cuts one connection's stream into packets.

    Args:
        newest: whether the protocol is MQTT 5, where packets carry properties.
    """

    def __init__(self, newest: bool) -> None:
        self._newest = newest
        self._pieces: list[bytes] = []
        self._have = 0
        self._need = 0

    def feed(self, data: bytes, messages: Messages) -> list[bytes]:
        """Take in what a read brought.

        Args:
            data: in order.
            messages: PUBLISH packets of QoS 0 and 1 are added to it.

        Returns:
            All other packets that are complete now, and whatever is no packet at all, as they are.
        """
        if self._pieces:
            self._pieces.append(data)
            self._have += len(data)
            if self._have < self._need:
                return []
            data = b"".join(self._pieces)
        others: list[bytes] = []
        rest = self._cut(data, messages, others)
        self._pieces = [data[rest:]] if rest < len(data) else []
        self._have = len(data) - rest
        return others

    def _cut(self, data: bytes, messages: Messages, others: list[bytes]) -> int:
        """Cut whole packets off and return where the first incomplete one begins."""
        topics, payloads, heads, mids = messages.topics, messages.payloads, messages.heads, messages.mids
        newest, start, end, size = self._newest, 0, len(data), 0
        self._need = 0
        while start + 2 <= end:
            head, length = data[start], data[start + 1]
            body = start + 2
            if length >= 0x80:
                if body < end and data[body] < 0x80:
                    length = length & 0x7F | data[body] << 7
                    body += 1
                else:
                    length, body = _long_number(data, start + 1)
                    if body == 0:
                        break
                    if body < 0:
                        others.append(data[start:])
                        start = end
                        break
            stop = body + length
            if stop > end:
                self._need = stop - start
                break
            if head & 0xF4 == _PUBLISH and length > 2:
                at = body + 2 + (data[body] << 8 | data[body + 1])
                named, mid = at, 0
                if head & 0x02 and at + 2 <= stop:
                    mid = data[at] << 8 | data[at + 1]
                    at += 2
                if newest:
                    if at < stop and data[at] < 0x80:
                        at += 1 + data[at]
                    else:
                        skipped, after = _long_number(data, at)
                        at = after + skipped if after > 0 else end + 1
                if at <= stop and bool(mid) == bool(head & 0x02):
                    topics.append(data[body + 2 : named])
                    payloads.append(data[at:stop])
                    heads.append(head)
                    mids.append(mid)
                    size += stop - body
                    start = stop
                    continue
            others.append(data[start:stop])
            start = stop
        messages.size += size
        return start


def _long_number(data: bytes, at: int) -> tuple[int, int]:
    """Return a variable byte integer (MQTT 5.0, section 1.5.5) and where it ends: 0 if it goes on, -1 if it is none."""
    value, shift = 0, 0
    for place in range(at, min(at + 4, len(data))):
        byte = data[place]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place + 1
        shift += 7
    return 0, -1 if len(data) >= at + 4 else 0
