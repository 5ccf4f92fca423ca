"""MQTT 3.1.1 packets by hand, for the bench's own clients.

A client library takes as long for a message as what is measured here; prepared packets in large writes take little.
"""

import contextlib
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from types import TracebackType

from edge_agent.contract.errors import BrokerError

CONNACK, PUBLISH, PUBACK, SUBACK, PINGRESP = 2, 3, 4, 9, 13
_PINGREQ = b"\xc0\x00"
_DISCONNECT = b"\xe0\x00"
_PACKET_IDS = 65_535
_READ_BYTES = 1 << 16
_WRITE_PACKETS = 256


def remaining_length(length: int) -> bytes:
    """Return a length as MQTT's variable byte integer (3.1.1, section 2.2.3)."""
    encoded = bytearray()
    while True:
        length, digit = divmod(length, 128)
        encoded.append(digit | 0x80 if length else digit)
        if not length:
            return bytes(encoded)


def _text(content: str | bytes) -> bytes:
    raw = content.encode() if isinstance(content, str) else content
    return struct.pack("!H", len(raw)) + raw


def publish_packet(topic: str, payload: bytes, packet_id: int = 0, retain: bool = False) -> bytes:
    """Return a PUBLISH packet of QoS 1, or of QoS 0 where `packet_id` is 0."""
    body = _text(topic) + (struct.pack("!H", packet_id) if packet_id else b"") + payload
    return bytes([PUBLISH << 4 | (2 if packet_id else 0) | retain]) + remaining_length(len(body)) + body


class PacketReader:
    """Cuts a stream of bytes into packets."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, content: bytes) -> Iterator[tuple[int, bytes]]:
        """Yield (first byte, body) of each packet that is whole now."""
        held = self._rest + content
        at = 0
        while (bounds := _bounds(held, at)) is not None:
            begin, end = bounds
            yield held[at], held[begin:end]
            at = end
        self._rest = held[at:]


def _bounds(held: bytes, at: int) -> tuple[int, int] | None:
    """Return where the body of the packet at `at` begins and ends, None while it is not whole."""
    length = shift = 0
    place = at + 1
    while place < len(held):
        length |= (held[place] & 0x7F) << shift
        place += 1
        if not held[place - 1] & 0x80:
            return (place, place + length) if place + length <= len(held) else None
        shift += 7
    return None


class Client:
    """A connection to a broker, as a context.

    Args:
        host, port: the broker's.
        name: client id.
        user: name and password, None for an anonymous client.
        patience_seconds: how long to wait for an answer.

    Raises:
        BrokerError: nobody is there, or the broker refuses.
    """

    def __init__(
        self,
        host: str,
        port: int,
        name: str,
        user: tuple[str, str] | None = None,
        patience_seconds: float = 60.0,
    ) -> None:
        self._place = f"{host}:{port}"
        self._reader = PacketReader()
        self._waiting: list[tuple[int, bytes]] = []
        try:
            self._socket = socket.create_connection((host, port), patience_seconds)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            raise BrokerError(f"{self._place}: {error.strerror or error}") from error
        flags = 0x02 | (0xC0 if user is not None else 0)
        # No sign of life is promised: the client may be silent for as long as it measures.
        body = _text("MQTT") + bytes([4, flags]) + struct.pack("!H", 0) + _text(name)
        body += b"".join(_text(part) for part in user or ())
        self.send(b"\x10" + remaining_length(len(body)) + body)
        answer = self.wait_for(CONNACK)
        if answer[1]:
            raise BrokerError(f"{self._place}: the broker refuses the connection (code {answer[1]})")

    def __enter__(self) -> "Client":
        """Return the client, which is connected."""
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """Leave the broker."""
        # The broker may have gone first.
        with contextlib.suppress(OSError):
            self._socket.sendall(_DISCONNECT)
        self._socket.close()

    def send(self, content: bytes) -> None:
        """Write packets."""
        try:
            self._socket.sendall(content)
        except OSError as error:
            raise BrokerError(f"{self._place}: {error.strerror or error}") from error

    def packets(self) -> list[tuple[int, bytes]]:
        """Return (first byte, body) of the packets that are there, at least one; raises BrokerError in the end."""
        while not self._waiting:
            try:
                content = self._socket.recv(_READ_BYTES)
            except OSError as error:
                raise BrokerError(f"{self._place}: {error.strerror or error}") from error
            if not content:
                raise BrokerError(f"{self._place}: the broker closed the connection")
            self._waiting.extend(self._reader.feed(content))
        found, self._waiting = self._waiting, []
        return found

    def wait_for(self, kind: int) -> bytes:
        """Return the body of the next packet of a kind; others are passed over."""
        while True:
            packets = self.packets()
            for number, (first, body) in enumerate(packets):
                if first >> 4 == kind:
                    self._waiting = packets[number + 1 :]
                    return body

    def subscribe(self, *filters: str) -> None:
        """Subscribe with QoS 0 and return when the broker has said yes."""
        body = struct.pack("!H", 1) + b"".join(_text(one) + b"\0" for one in filters)
        self.send(b"\x82" + remaining_length(len(body)) + body)
        if 0x80 in self.wait_for(SUBACK)[2:]:
            raise BrokerError(f"{self._place}: the broker refuses the subscription to {', '.join(filters)}")

    def publish(self, messages: Sequence[tuple[str, bytes]], qos: int = 0, window: int = 1000) -> None:
        """Publish as fast as the broker takes it, and return when it has everything.

        Args:
            messages: topic and payload.
            qos: 0 or 1.
            window: at QoS 1, most messages not acknowledged yet.
        """
        flying = 0
        for at in range(0, len(messages), _WRITE_PACKETS):
            part = messages[at : at + _WRITE_PACKETS]
            self.send(
                b"".join(
                    publish_packet(topic, payload, (at + number) % _PACKET_IDS + 1 if qos else 0)
                    for number, (topic, payload) in enumerate(part)
                )
            )
            flying += len(part) if qos else 0
            while flying > max(window - _WRITE_PACKETS, 0):
                flying -= sum(first >> 4 == PUBACK for first, _ in self.packets())
        while flying:
            flying -= sum(first >> 4 == PUBACK for first, _ in self.packets())
        # Packets are taken in their order: the answer says that everything before was.
        self.send(_PINGREQ)
        self.wait_for(PINGRESP)

    def publish_at_pace(
        self, messages: Sequence[tuple[str, bytes]], per_second: float, qos: int = 0
    ) -> list[float]:
        """Publish evenly spread, and return when each message was written, on the monotonic clock."""
        sent: list[float] = []
        begun = time.monotonic()
        for number, (topic, payload) in enumerate(messages):
            packet = publish_packet(topic, payload, number % _PACKET_IDS + 1 if qos else 0)
            time.sleep(max(begun + number / per_second - time.monotonic(), 0.0))
            sent.append(time.monotonic())
            self.send(packet)
        for _ in range(len(messages) if qos else 0):
            self.wait_for(PUBACK)
        self.send(_PINGREQ)
        self.wait_for(PINGRESP)
        return sent
