"""A relay between the agent and its broker that notes when messages pass and when the agent acknowledges them.

The agent acknowledges a message of QoS 1 once its readings are scored, so the acknowledgement tells, from outside
and without a change to the agent, when the score was there. The relay's own time is part of what it measures.
"""

import contextlib
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Iterator
from types import TracebackType

from edge_agent.bench.wire import PUBACK, PUBLISH, PacketReader
from edge_agent.contract.errors import BrokerError

_READ_BYTES = 1 << 16
_QOS_BITS = 0x06


class Relay:
    """Listens on a loopback port for one client and passes everything on; as a context it ends with it.

    Args:
        host, port: the broker's.
        prefix: of the topics whose messages are noted.

    Attributes:
        port: where the agent connects to.
    """

    def __init__(self, host: str, port: int, prefix: str) -> None:
        self._broker = (host, port)
        self._prefix = prefix.encode()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._serve, daemon=True)]
        self._down: list[tuple[float, bytes]] = []
        self._up: list[tuple[float, bytes]] = []
        self._answers = 0
        self._news = threading.Condition()

    def __enter__(self) -> "Relay":
        """Begin to listen."""
        self._threads[0].start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """Close both connections."""
        for one in (self._listener, *self._sockets):
            # It may never have been connected, or be closed already.
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        for thread in self._threads:
            thread.join()

    def _serve(self) -> None:
        try:
            agent, _ = self._listener.accept()
            broker = socket.create_connection(self._broker)
        except OSError:
            return
        for one in (agent, broker):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sockets += [agent, broker]
        up = threading.Thread(target=self._upwards, args=(agent, broker), daemon=True)
        self._threads.append(up)
        up.start()
        for passed in _pass_on(broker, agent):
            self._down.append(passed)

    def _upwards(self, agent: socket.socket, broker: socket.socket) -> None:
        reader = PacketReader()
        for passed in _pass_on(agent, broker):
            self._up.append(passed)
            found = sum(first >> 4 == PUBACK for first, _ in reader.feed(passed[1]))
            if found:
                with self._news:
                    self._answers += found
                    self._news.notify_all()

    @property
    def answers(self) -> int:
        """Return how many acknowledgements of the agent have passed."""
        return self._answers

    def wait_for_answers(self, count: int, patience_seconds: float) -> None:
        """Return when the agent has acknowledged so many messages in all; raises BrokerError if it does not."""
        with self._news:
            if not self._news.wait_for(lambda: self._answers >= count, patience_seconds):
                raise BrokerError(f"the agent acknowledged {self._answers} messages, not {count}")

    def acknowledged(self) -> list[float]:
        """Return when the agent acknowledged each noted message, monotonic clock, in the order of the messages.

        Raises:
            BrokerError: a message was not acknowledged; ask when everything is scored.
        """
        waiting: dict[int, deque[int]] = {}
        count = 0
        for _, (first, body) in _packets(self._down):
            found = _packet_id(first, body, self._prefix)
            if found is not None:
                waiting.setdefault(found, deque()).append(count)
                count += 1
        times = [0.0] * count
        open_ids = count
        for moment, (first, body) in _packets(self._up):
            if first >> 4 == PUBACK and (queue := waiting.get(struct.unpack_from("!H", body)[0])):
                times[queue.popleft()] = moment
                open_ids -= 1
        if open_ids:
            raise BrokerError(f"{open_ids} of {count} messages were not acknowledged by the agent")
        return times


def _pass_on(source: socket.socket, target: socket.socket) -> Iterator[tuple[float, bytes]]:
    """Pass on until either end closes, and yield which bytes passed when."""
    try:
        while content := source.recv(_READ_BYTES):
            target.sendall(content)
            yield time.monotonic(), content
    except OSError:
        # One end was closed under the other's call: the measurement is over.
        return


def _packets(passed: list[tuple[float, bytes]]) -> list[tuple[float, tuple[int, bytes]]]:
    reader = PacketReader()
    return [(moment, packet) for moment, content in list(passed) for packet in reader.feed(content)]


def _packet_id(first: int, body: bytes, prefix: bytes) -> int | None:
    """Return the packet id of a PUBLISH of QoS 1 on a noted topic, in MQTT 3.1.1 and 5 alike."""
    if first >> 4 != PUBLISH or not first & _QOS_BITS:
        return None
    (length,) = struct.unpack_from("!H", body)
    if not body[2 : 2 + length].startswith(prefix):
        return None
    found: int = struct.unpack_from("!H", body, 2 + length)[0]
    return found
