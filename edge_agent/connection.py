"""MQTT: one connection that keeps coming back, an inbox for the main loop, a way out for the outbox.

One thread does it all: whoever waits for messages drives the connection meanwhile. A hand-over to another thread costs
more than a message (docs/decisions/0011). Only the attempt to connect, which may block for seconds, has a thread of its
own. Messages of QoS 1 and 2 are acknowledged after the main loop has processed them.
"""

import contextlib
import logging
import select
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from edge_agent.back_off import BackOff
from edge_agent.batched_socket import BatchedSocket
from edge_agent.inbox import Inbox
from edge_agent.outbox import OutgoingMessage
from edge_agent.packets import Messages
from edge_agent.paho_client import (
    BatchedClient,
    PahoClient,
    ReasonCode,
    Receipt,
    ReceivedMessage,
    Subscription,
    begin_to_connect,
    client_kind,
    is_settled,
    new_client,
    publish,
    send_at_once,
    subscribe,
)
from edge_agent.settings import MqttSettings

log = logging.getLogger(__name__)

# A connection that lived shorter than this does not reset the back-off: two agents with one client id throw each
# other out for ever, and should do so slowly.
_STABLE_SECONDS = 10.0
# More than this many unacknowledged publications wait in the outbox, which is bounded, and not in paho, which is not.
_MOST_UNSETTLED = 100
# How often paho looks after the connection; no keepalive is shorter than five of these.
_MISC_SECONDS = 1.0
_MOST_PLAIN_READS = 1000
_NO_TOPIC = b"\xff"


class MqttClient:
    """The agent's connection to the broker.

    Args:
        settings: broker, credentials, session.
        subscriptions: made anew on every connect.
        status_topic: where the agent's state is retained.
        status: payload of the state, given the state and the time (None for the last will).
        inbox_capacity: most messages waiting for the main loop.
        inbox_bytes: most bytes of messages waiting for the main loop.

    Raises:
        ConfigurationError: the password or a certificate cannot be read, or `batched` does not go with this paho.
    """

    def __init__(
        self,
        settings: MqttSettings,
        subscriptions: Sequence[Subscription],
        status_topic: str,
        status: Callable[[str, float | None], bytes],
        inbox_capacity: int = 50_000,
        inbox_bytes: int = 32 << 20,
    ) -> None:
        self._settings = settings
        self._subscriptions = tuple(subscriptions)
        self._status_topic = status_topic
        self._status = status
        self._inbox = Inbox(inbox_capacity, inbox_bytes)
        self._gathered = Messages()
        self._unread = False
        self._unsettled: deque[Receipt] = deque()
        self._back_off = BackOff()
        self._connected_at = 0.0
        self._retry_at = 0.0
        self._misc_at = 0.0
        self._connector: threading.Thread | None = None
        self._attempted = False
        self._stopping = False
        self._wake_read, self._wake_write = socket.socketpair()
        self._wake_read.setblocking(False)
        self._wake_write.setblocking(False)
        self._poll = select.poll()
        self._poll.register(self._wake_read, select.POLLIN)
        # Whatever ends a pause.
        self._others = select.poll()
        self._others.register(self._wake_read, select.POLLIN)
        self._followed: dict[int, Callable[[], None]] = {}
        self._watched: Any = None
        self._watched_fd = -1
        self._watches_writing = False
        self.connected = threading.Event()
        self.subscribed = threading.Event()
        self.connects = 0
        self.published = 0
        self.last_error = ""
        self._client = self._make_client()

    def _make_client(self) -> PahoClient:
        client = new_client(self._settings, manual_ack=True, kind=client_kind(self._settings))
        client.will_set(self._status_topic, self._status("offline", None), qos=1, retain=True)
        # A callback that fails must not end the main loop; paho logs it.
        client.suppress_exceptions = True
        client.enable_logger(logging.getLogger("paho"))
        client.on_socket_open = send_at_once
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        return client

    @property
    def reader(self) -> str:
        """Return how packets are read, `batched` or `plain`."""
        return "batched" if isinstance(self._client, BatchedClient) else "plain"

    def start(self) -> None:
        """Begin to connect; `wait` drives the rest."""
        begin_to_connect(self._client, self._settings)
        self._drive(0.0)

    def stop(self, timeout: float) -> None:
        """Say `stopped`, wait up to `timeout` seconds until all is acknowledged, and disconnect."""
        deadline = time.monotonic() + timeout
        if self.connected.is_set():
            self._send(OutgoingMessage(self._status_topic, self._status("stopped", time.time()), 1, True))
        while self.connected.is_set() and self.unacknowledged and time.monotonic() < deadline:
            self._drive(0.05)
        self._stopping = True
        if self._connector is not None:
            self._connector.join(max(deadline - time.monotonic(), 0.0))
        # paho calls the end of its own socket an error.
        self._client.disable_logger()
        self._client.disconnect()
        while self._client.want_write() and time.monotonic() < deadline:
            self._drive(0.05)
        self.connected.clear()

    def wait(self, timeout: float, hungry: bool = True) -> bool:
        """Wait up to `timeout` seconds for a message, `wake` or what is followed; returns whether a message waits.

        The connection is driven meanwhile, also where there is nothing to wait for. Who is not hungry has no use for
        messages now, and does not wait for them either. After `wake` it is true, too.
        """
        woken = self._drive(0.0 if hungry and len(self._inbox) else timeout)
        return woken or len(self._inbox) > 0

    def pause(self, timeout: float) -> None:
        """Let messages come in for `timeout` seconds, then read them at once; all else ends it sooner."""
        self._others.poll(timeout * 1000.0)
        self._drive(0.0)

    def follow(self, descriptor: int, ready: Callable[[], None], writing: bool = False) -> None:
        """Call `ready` whenever a descriptor can be read, or written to, while somebody waits."""
        self._followed[descriptor] = ready
        for poll in (self._poll, self._others):
            poll.register(descriptor, select.POLLIN | (select.POLLOUT if writing else 0))

    def unfollow(self, descriptor: int) -> None:
        """Follow a descriptor no longer, if it is followed."""
        if self._followed.pop(descriptor, None) is not None:
            for poll in (self._poll, self._others):
                poll.unregister(descriptor)

    def wake(self) -> None:
        """End a `wait` of another thread, or of the one that a signal interrupted."""
        with contextlib.suppress(BlockingIOError):
            self._wake_write.send(b"\0")

    @property
    def waiting(self) -> int:
        """Return how many messages wait."""
        return len(self._inbox)

    @property
    def overrun(self) -> int:
        """Return how many messages found no room."""
        return self._inbox.overrun

    def take(self, count: int, size: int) -> list[Messages]:
        """Return the oldest waiting messages, see `Inbox.take`."""
        return self._inbox.take(count, size)

    def acknowledge(self, batch: Iterable[Messages]) -> None:
        """Tell the broker that these messages are safe; those of an earlier connection it sends again anyway."""
        for messages in batch:
            if messages.connection == self.connects and any(messages.mids):
                self._acknowledge(messages)

    def publish(self, message: OutgoingMessage) -> bool:
        """Publish a message; returns False, and does nothing, while it must wait."""
        self._settle()
        if not self.connected.is_set() or len(self._unsettled) >= _MOST_UNSETTLED:
            return False
        return self._send(message)

    @property
    def unacknowledged(self) -> int:
        """Return how many publications the broker has not confirmed yet."""
        self._settle()
        return len(self._unsettled)

    def _drive(self, timeout: float) -> bool:
        """Do what the connection needs, waiting up to `timeout` seconds for it; returns whether `wake` was called."""
        timeout = min(timeout, self._connect_when_due(), 0.0 if self._unread else _MISC_SECONDS)
        self._watch()
        woken = readable = False
        for descriptor, _ in self._poll.poll(timeout * 1000.0):
            if descriptor == self._watched_fd:
                readable = True
            elif (ready := self._followed.get(descriptor)) is not None:
                ready()
            elif descriptor == self._wake_read.fileno():
                self._wake_read.recv(4096)
                woken = True
        if self._connector is None and self._client.socket() is not None:
            if readable or self._unread:
                self._read()
            self._write()
            if (now := time.monotonic()) >= self._misc_at:
                self._misc_at = now + _MISC_SECONDS
                self._client.loop_misc()
        return woken

    def _connect_when_due(self) -> float:
        """Begin an attempt to connect if it is time for one; returns for how many seconds there is nothing to do."""
        if self._connector is not None:
            if not self._attempted:
                return _MISC_SECONDS
            self._connector = None
            if self._client.socket() is None and self._retry_at <= time.monotonic():
                self._wait_before_retry()
        if self._client.socket() is not None or self._stopping:
            return _MISC_SECONDS
        if (left := self._retry_at - time.monotonic()) > 0:
            return left
        self._attempted = False
        self._connector = threading.Thread(target=self._connect, name="connector", daemon=True)
        self._connector.start()
        return _MISC_SECONDS

    def _connect(self) -> None:
        try:
            self._client.reconnect()
        except (OSError, ValueError) as error:
            self.last_error = (
                f"not reachable ({error})" if isinstance(error, ssl.SSLError) else "not reachable"
            )
        self._attempted = True
        self.wake()

    def _watch(self) -> None:
        """Follow the socket that paho has now."""
        connection = None if self._connector is not None else self._client.socket()
        if connection is self._watched:
            return
        if self._watched is not None:
            self._poll.unregister(self._watched_fd)
        self._watched, self._unread, self._watches_writing = connection, False, False
        self._watched_fd = -1 if connection is None else connection.fileno()
        if connection is not None:
            self._poll.register(self._watched_fd, select.POLLIN)

    def _read(self) -> None:
        gathered = self._gathered = Messages(arrival=time.time(), clock=time.monotonic())
        connection: Any = self._client.socket()
        if isinstance(connection, BatchedSocket):
            self._unread = connection.read(gathered)
            while connection.has_news and self._client.socket() is connection:
                self._client.loop_read()
        else:
            self._unread = self._read_plainly(connection)
        gathered.connection = self.connects
        rest = self._inbox.store(gathered) if len(gathered) else None
        if rest is not None:
            # Unacknowledged, they would block the broker's sending window until the next connect.
            self.acknowledge([rest])

    def _read_plainly(self, connection: Any) -> bool:
        for _ in range(_MOST_PLAIN_READS):
            self._client.loop_read()
            if self._client.socket() is not connection:
                return False
            held = connection.pending() if isinstance(connection, ssl.SSLSocket) else 0
            if not held and not _is_readable(connection):
                return False
        return True

    def _write(self) -> None:
        if self._client.want_write():
            self._client.loop_write()
        connection = self._client.socket()
        wants = self._client.want_write()
        if isinstance(connection, BatchedSocket):
            connection.flush()
            wants = wants or connection.has_unsent
        if connection is self._watched and wants != self._watches_writing:
            self._watches_writing = wants
            self._poll.modify(self._watched_fd, select.POLLIN | (select.POLLOUT if wants else 0))

    def _acknowledge(self, messages: Messages) -> None:
        connection = self._client.socket()
        single = [mid for head, mid in zip(messages.heads, messages.mids, strict=True) if head & 0x02]
        if isinstance(connection, BatchedSocket) and not self._client.want_write():
            connection.send_soon(b"".join([b"\x40\x02" + mid.to_bytes(2, "big") for mid in single]))
        elif connection is not None:
            for mid in single:
                self._client.ack(mid, 1)
        if len(single) < len(messages):
            for index in range(len(messages)):
                if messages.qos(index) == 2:
                    self._client.ack(messages.mids[index], 2)

    def _send(self, message: OutgoingMessage) -> bool:
        taken, receipt = publish(self._client, message)
        if receipt is not None:
            self._unsettled.append(receipt)
        return taken

    def _settle(self) -> None:
        while self._unsettled and is_settled(self._unsettled[0]):
            self._unsettled.popleft()
            self.published += 1

    def _on_connect(
        self, client: PahoClient, _data: Any, _flags: Any, reason: ReasonCode, _properties: Any
    ) -> None:
        if reason.is_failure:
            self.last_error = f"refused: {reason}"
            log.warning("broker %s:%d refused: %s", self._settings.host, self._settings.port, reason)
            return
        self.connects += 1
        self._connected_at = time.monotonic()
        self.last_error = ""
        client.publish(self._status_topic, self._status("online", time.time()), qos=1, retain=True)
        subscribe(client, self._settings, self._subscriptions)
        self.connected.set()
        log.info("connected to broker %s:%d", self._settings.host, self._settings.port)

    def _on_subscribe(
        self, _client: PahoClient, _data: Any, _mid: int, reasons: list[ReasonCode], _properties: Any
    ) -> None:
        for entry, reason in zip(self._subscriptions, reasons, strict=False):
            if reason.is_failure:
                log.error("broker refused the subscription to %s: %s", entry.topic, reason)
        self.subscribed.set()

    def _on_disconnect(
        self, _client: PahoClient, _data: Any, _flags: Any, reason: ReasonCode, _properties: Any
    ) -> None:
        if self.connected.is_set() and time.monotonic() - self._connected_at > _STABLE_SECONDS:
            self._back_off.reset()
        self.connected.clear()
        self.subscribed.clear()
        if self._stopping:
            return
        if reason.is_failure:
            self.last_error = self.last_error or f"connection lost: {reason}"
        self._wait_before_retry()

    def _wait_before_retry(self) -> None:
        delay = self._back_off.next()
        self._retry_at = time.monotonic() + delay
        log.warning("no broker (%s); next attempt in %.1f s", self.last_error or "disconnected", delay)

    def _on_message(self, _client: PahoClient, _data: Any, message: ReceivedMessage) -> None:
        try:
            topic = message.topic.encode()
        except UnicodeDecodeError:
            topic = _NO_TOPIC
        self._gathered.add(topic, bytes(message.payload), message.qos, message.mid, message.retain)


def _is_readable(connection: Any) -> bool:
    return bool(select.select([connection], [], [], 0.0)[0])
