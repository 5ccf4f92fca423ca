"""The door to MQTT: one connection that keeps coming back, an inbox for the main loop, a way out for the outbox.

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
from dataclasses import dataclass
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from edge_agent.back_off import BackOff
from edge_agent.batched_socket import BatchedSocket
from edge_agent.contract.errors import ConfigurationError
from edge_agent.outbox import OutgoingMessage
from edge_agent.packets import Messages
from edge_agent.settings import MqttSettings

__all__ = [
    "MqttClient",
    "PahoClient",
    "ReasonCode",
    "Subscription",
    "batched_reading_works",
    "loop_once",
    "new_client",
]

log = logging.getLogger(__name__)
PahoClient = paho.Client

# A connection that lived shorter than this does not reset the back-off: two agents with one client id throw each
# other out for ever, and should do so slowly.
_STABLE_SECONDS = 10.0
# More than this many unacknowledged publications wait in the outbox, which is bounded, and not in paho, which is not.
_MOST_UNSETTLED = 100
# How often paho looks after the connection; no keepalive is shorter than five of these.
_MISC_SECONDS = 1.0
_MOST_PLAIN_READS = 1000
_NO_TOPIC = b"\xff"
_CONNACK_AND_READING = b"\x20\x02\x00\x00\x30\x04\x00\x01a1"


@dataclass(frozen=True, slots=True)
class Subscription:
    """One filter; `retained` says whether what the broker keeps there is wanted."""

    topic: str
    qos: int = 1
    retained: bool = False


class _BatchedClient(paho.Client):
    """paho with its socket read in batches."""

    batched: BatchedSocket | None = None

    def _open(self) -> socket.socket:
        return super()._create_socket()  # type: ignore[return-value]  # without websockets it is one

    def _create_socket(self) -> Any:
        self.batched = BatchedSocket(self._open(), self.protocol == paho.MQTTv5)
        return self.batched


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
        self._capacity, self._capacity_bytes = inbox_capacity, inbox_bytes
        self._inbox: deque[Messages] = deque()
        self._waiting = self._waiting_bytes = 0
        self._gathered = Messages()
        self._unread = False
        self._unsettled: deque[paho.MQTTMessageInfo] = deque()
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
        self._watched: Any = None
        self._watched_fd = -1
        self._watches_writing = False
        self.connected = threading.Event()
        self.subscribed = threading.Event()
        self.connects = 0
        self.overrun = 0
        self.published = 0
        self.last_error = ""
        self._client = self._make_client()

    def _make_client(self) -> paho.Client:
        client = new_client(self._settings, manual_ack=True, kind=self._kind())
        client.will_set(self._status_topic, self._status("offline", None), qos=1, retain=True)
        # A callback that fails must not end the main loop; paho logs it.
        client.suppress_exceptions = True
        client.enable_logger(logging.getLogger("paho"))
        client.on_socket_open = _send_at_once
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        return client

    def _kind(self) -> type[paho.Client]:
        if self._settings.reader == "plain":
            return paho.Client
        why_not = batched_reading_works()
        if not why_not:
            return _BatchedClient
        if self._settings.reader == "batched":
            raise ConfigurationError(f"mqtt.reader: batched does not go with this paho: {why_not}")
        log.warning("packets are read one by one, which is slower: this paho is another one: %s", why_not)
        return paho.Client

    @property
    def reader(self) -> str:
        """Return how packets are read, `batched` or `plain`."""
        return "batched" if isinstance(self._client, _BatchedClient) else "plain"

    def start(self) -> None:
        """Begin to connect; `wait` drives the rest."""
        mqtt = self._settings
        options: dict[str, Any] = {}
        if mqtt.protocol == "5":
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            properties.SessionExpiryInterval = mqtt.session_expiry_seconds if mqtt.persistent_session else 0
            options = {"clean_start": not mqtt.persistent_session, "properties": properties}
        self._client.connect_async(mqtt.host, mqtt.port, mqtt.keepalive_seconds, **options)
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

    def wait(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds for a message or `wake`; returns whether there was one.

        The connection is driven meanwhile, also where there is nothing to wait for.
        """
        woken = self._drive(0.0 if self._inbox else timeout)
        return woken or bool(self._inbox)

    def pause(self, timeout: float) -> None:
        """Let messages come in for `timeout` seconds, then read them at once; `wake` ends it sooner."""
        _is_readable(self._wake_read, timeout)
        self._drive(0.0)

    def wake(self) -> None:
        """End a `wait` of another thread, or of the one that a signal interrupted."""
        with contextlib.suppress(BlockingIOError):
            self._wake_write.send(b"\0")

    @property
    def waiting(self) -> int:
        """Return how many messages wait."""
        return self._waiting

    def take(self, count: int, size: int) -> list[Messages]:
        """Return the oldest waiting messages, at most `count`, and at most `size` bytes unless one alone has more."""
        taken: list[Messages] = []
        while self._inbox and count > 0:
            fit = self._inbox[0].fitting(count, size)
            if not fit and not taken:
                fit = 1
            if not fit:
                break
            whole = fit == len(self._inbox[0])
            part = self._inbox.popleft() if whole else self._inbox[0].split(fit)
            taken.append(part)
            count -= len(part)
            size -= part.size
            self._waiting -= len(part)
            self._waiting_bytes -= part.size
        return taken

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
            else:
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
        if len(gathered):
            self._store(gathered)

    def _read_plainly(self, connection: Any) -> bool:
        for _ in range(_MOST_PLAIN_READS):
            self._client.loop_read()
            if self._client.socket() is not connection:
                return False
            held = connection.pending() if isinstance(connection, ssl.SSLSocket) else 0
            if not held and not _is_readable(connection):
                return False
        return True

    def _store(self, gathered: Messages) -> None:
        fit = gathered.fitting(self._capacity - self._waiting, self._capacity_bytes - self._waiting_bytes)
        if not fit and not self._inbox:
            fit = 1
        if fit < len(gathered):
            kept = gathered.split(fit)
            self.overrun += len(gathered)
            # Unacknowledged, they would block the broker's sending window until the next connect.
            self.acknowledge([gathered])
            gathered = kept
        if len(gathered):
            self._inbox.append(gathered)
            self._waiting += len(gathered)
            self._waiting_bytes += gathered.size

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
        info = self._client.publish(message.topic, message.payload, message.qos, message.retain)
        if info.rc == MQTTErrorCode.MQTT_ERR_SUCCESS:
            self._unsettled.append(info)
            return True
        # The connection broke this moment: paho keeps what has a QoS and sends it after the next connect.
        return message.qos > 0 and info.rc == MQTTErrorCode.MQTT_ERR_NO_CONN

    def _settle(self) -> None:
        while self._unsettled and _is_settled(self._unsettled[0]):
            self._unsettled.popleft()
            self.published += 1

    def _on_connect(
        self, client: paho.Client, _data: Any, _flags: Any, reason: ReasonCode, _properties: Any
    ) -> None:
        if reason.is_failure:
            self.last_error = f"refused: {reason}"
            log.warning("broker %s:%d refused: %s", self._settings.host, self._settings.port, reason)
            return
        self.connects += 1
        self._connected_at = time.monotonic()
        self.last_error = ""
        client.publish(self._status_topic, self._status("online", time.time()), qos=1, retain=True)
        client.subscribe(self._filters())
        self.connected.set()
        log.info("connected to broker %s:%d", self._settings.host, self._settings.port)

    def _filters(self) -> list[Any]:
        if self._settings.protocol != "5":
            return [(entry.topic, entry.qos) for entry in self._subscriptions]
        send, leave = SubscribeOptions.RETAIN_SEND_ON_SUBSCRIBE, SubscribeOptions.RETAIN_DO_NOT_SEND
        return [
            (entry.topic, SubscribeOptions(entry.qos, retainHandling=send if entry.retained else leave))
            for entry in self._subscriptions
        ]

    def _on_subscribe(
        self, _client: paho.Client, _data: Any, _mid: int, reasons: list[ReasonCode], _properties: Any
    ) -> None:
        for entry, reason in zip(self._subscriptions, reasons, strict=False):
            if reason.is_failure:
                log.error("broker refused the subscription to %s: %s", entry.topic, reason)
        self.subscribed.set()

    def _on_disconnect(
        self, _client: paho.Client, _data: Any, _flags: Any, reason: ReasonCode, _properties: Any
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

    def _on_message(self, _client: paho.Client, _data: Any, message: paho.MQTTMessage) -> None:
        try:
            topic = message.topic.encode()
        except UnicodeDecodeError:
            topic = _NO_TOPIC
        self._gathered.add(topic, bytes(message.payload), message.qos, message.mid, message.retain)


def _send_at_once(_client: paho.Client, _data: Any, connection: Any) -> None:
    # Otherwise the second of two events waits for the other side to confirm the first, which it delays by 40 ms.
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _is_readable(connection: Any, timeout: float = 0.0) -> bool:
    return bool(select.select([connection], [], [], timeout)[0])


class _Rehearsal(_BatchedClient):
    """Connects to a socket of our own."""

    near: socket.socket

    def _open(self) -> socket.socket:
        return self.near


def batched_reading_works() -> str:
    """Try, without a broker, whether this paho lets its socket be read in batches; returns what is wrong with it."""
    near, far = socket.socketpair()
    heard: list[ReasonCode] = []
    with near, far:
        client = _Rehearsal(CallbackAPIVersion.VERSION2)
        client.near = near
        client.on_connect = lambda _client, _data, _flags, reason, _properties: heard.append(reason)
        messages = Messages()
        try:
            client.connect_async("rehearsal")
            client.reconnect()
            far.sendall(_CONNACK_AND_READING)
            connection = client.batched
            if connection is None or client.socket() is None:
                return "it opens its socket in another way"
            connection.read(messages)
            client.loop_read()
        except Exception as error:  # noqa: BLE001 - whatever a later version does differently
            return f"{type(error).__name__}: {error}"
    return "" if heard and messages.payloads == [b"1"] else "it reads its socket in another way"


def loop_once(client: paho.Client, timeout: float) -> bool:
    """Drive a client that nothing else drives; returns whether the connection still stands."""
    return client.loop(timeout) == MQTTErrorCode.MQTT_ERR_SUCCESS


def new_client(
    settings: MqttSettings, manual_ack: bool, kind: type[paho.Client] = paho.Client
) -> paho.Client:
    """Return a client that is not connected yet.

    Raises:
        ConfigurationError: the password or a certificate cannot be read.
    """
    newest = settings.protocol == "5"
    client = kind(
        CallbackAPIVersion.VERSION2,
        client_id=settings.effective_client_id,
        clean_session=None if newest else not settings.persistent_session,
        protocol=paho.MQTTv5 if newest else paho.MQTTv311,
        manual_ack=manual_ack,
    )
    if settings.username is not None:
        client.username_pw_set(settings.username, settings.read_password())
    if settings.tls.enabled:
        _encrypt(client, settings)
    return client


def _encrypt(client: paho.Client, settings: MqttSettings) -> None:
    tls = settings.tls
    named = {"ca_file": tls.ca_file, "certificate_file": tls.certificate_file, "key_file": tls.key_file}
    for key, path in named.items():
        if path is not None and not path.is_file():
            raise ConfigurationError(f"{path}: mqtt.tls.{key}: must be a readable file")
    authority, certificate, private = (str(path) if path else None for path in named.values())
    try:
        client.tls_set(authority, certificate, private)
    except (OSError, ValueError, ssl.SSLError) as error:
        raise ConfigurationError(f"mqtt.tls: certificates cannot be used ({error})") from error
    client.tls_insecure_set(not tls.verify_host_name)


def _is_settled(info: paho.MQTTMessageInfo) -> bool:
    try:
        return info.is_published()
    except (RuntimeError, ValueError):
        # paho gave a QoS 0 message up with its connection.
        return True
