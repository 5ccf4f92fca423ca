"""The door to MQTT: one connection that keeps coming back, an inbox for the main loop, a way out for the outbox.

paho's own thread does the network; what arrives is only put aside, so nothing a message holds can stop that thread.
Messages of QoS 1 and 2 are acknowledged after the main loop has processed them.
"""

import logging
import ssl
import threading
import time
import uuid
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
from edge_agent.contract.errors import BrokerError, ConfigurationError
from edge_agent.outbox import OutgoingMessage
from edge_agent.settings import MqttSettings

log = logging.getLogger(__name__)

# A connection that lived shorter than this does not reset the back-off: two agents with one client id throw each
# other out for ever, and should do so slowly.
_STABLE_SECONDS = 10.0
# More than this many unacknowledged publications wait in the outbox, which is bounded, and not in paho, which is not.
_MOST_UNSETTLED = 100


@dataclass(frozen=True, slots=True)
class Subscription:
    """One filter; `retained` says whether what the broker keeps there is wanted."""

    topic: str
    qos: int = 1
    retained: bool = False


@dataclass(frozen=True, slots=True)
class ReceivedMessage:
    """One message as it arrived; `arrival` in seconds since the epoch, `clock` on the monotonic clock."""

    topic: str
    payload: bytes
    retained: bool
    arrival: float
    clock: float
    qos: int
    mid: int
    connection: int


class MqttClient:
    """The agent's connection to the broker.

    Args:
        settings: broker, credentials, session.
        subscriptions: made anew on every connect.
        status_topic: where the agent's state is retained.
        status: payload of the state, given the state and the time (None for the last will).
        inbox_capacity: most messages waiting for the main loop.

    Raises:
        ConfigurationError: the password or a certificate cannot be read.
    """

    def __init__(
        self,
        settings: MqttSettings,
        subscriptions: Sequence[Subscription],
        status_topic: str,
        status: Callable[[str, float | None], bytes],
        inbox_capacity: int = 50_000,
    ) -> None:
        self._settings = settings
        self._subscriptions = tuple(subscriptions)
        self._status_topic = status_topic
        self._status = status
        self._capacity = inbox_capacity
        self._inbox: deque[ReceivedMessage] = deque()
        self._arrived = threading.Event()
        self._unsettled: deque[paho.MQTTMessageInfo] = deque()
        self._back_off = BackOff()
        self._connected_at = 0.0
        self._stopping = False
        self.connected = threading.Event()
        self.subscribed = threading.Event()
        self.connects = 0
        self.overrun = 0
        self.published = 0
        self.last_error = ""
        self._client = self._make_client()

    def _make_client(self) -> paho.Client:
        client = _new_client(self._settings, manual_ack=True)
        client.will_set(self._status_topic, self._status("offline", None), qos=1, retain=True)
        # A callback that fails must not end paho's thread; paho logs it.
        client.suppress_exceptions = True
        client.enable_logger(logging.getLogger("paho"))
        client.on_connect = self._on_connect
        client.on_connect_fail = self._on_connect_fail
        client.on_disconnect = self._on_disconnect
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        return client

    def start(self) -> None:
        """Connect in the background, and keep trying."""
        mqtt = self._settings
        options: dict[str, Any] = {}
        if mqtt.protocol == "5":
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            properties.SessionExpiryInterval = mqtt.session_expiry_seconds if mqtt.persistent_session else 0
            options = {"clean_start": not mqtt.persistent_session, "properties": properties}
        self._client.connect_async(mqtt.host, mqtt.port, mqtt.keepalive_seconds, **options)
        self._client.loop_start()

    def stop(self, timeout: float) -> None:
        """Say `stopped`, wait up to `timeout` seconds until all is acknowledged, and disconnect."""
        deadline = time.monotonic() + timeout
        if self.connected.is_set():
            self._send(OutgoingMessage(self._status_topic, self._status("stopped", time.time()), 1, True))
            for info in tuple(self._unsettled):
                _wait(info, deadline - time.monotonic())
        self._settle()
        self._stopping = True
        # paho calls the end of its own socket an error.
        self._client.disable_logger()
        self._client.disconnect()
        self._client.loop_stop()
        self.connected.clear()

    def wait(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds for a message or `wake`; returns whether there was one."""
        woken = self._arrived.wait(timeout)
        self._arrived.clear()
        return woken

    def wake(self) -> None:
        """End a `wait` of another thread."""
        self._arrived.set()

    @property
    def waiting(self) -> int:
        """Return how many messages wait."""
        return len(self._inbox)

    def take(self, limit: int) -> list[ReceivedMessage]:
        """Return the oldest waiting messages, at most `limit`."""
        taken = [self._inbox.popleft() for _ in range(min(limit, len(self._inbox)))]
        if self._inbox:
            self._arrived.set()
        return taken

    def acknowledge(self, messages: Iterable[ReceivedMessage]) -> None:
        """Tell the broker that these messages are safe; those of an earlier connection it sends again anyway."""
        for message in messages:
            if message.qos and message.connection == self.connects:
                self._client.ack(message.mid, message.qos)

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
        self._arrived.set()
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

    def _on_connect_fail(self, client: paho.Client, _data: Any) -> None:
        self.last_error = "not reachable"
        self._wait_before_retry(client)

    def _on_disconnect(
        self, client: paho.Client, _data: Any, _flags: Any, reason: ReasonCode, _properties: Any
    ) -> None:
        if self.connected.is_set() and time.monotonic() - self._connected_at > _STABLE_SECONDS:
            self._back_off.reset()
        self.connected.clear()
        self.subscribed.clear()
        if self._stopping:
            return
        if reason.is_failure:
            self.last_error = self.last_error or f"connection lost: {reason}"
        self._wait_before_retry(client)

    def _wait_before_retry(self, client: paho.Client) -> None:
        delay = self._back_off.next()
        log.warning("no broker (%s); next attempt in %.1f s", self.last_error or "disconnected", delay)
        # paho doubles by itself but has no jitter; with both limits equal it waits exactly this long.
        client.reconnect_delay_set(delay, delay)  # type: ignore[arg-type]  # any number will do

    def _on_message(self, client: paho.Client, _data: Any, message: paho.MQTTMessage) -> None:
        if len(self._inbox) >= self._capacity:
            self.overrun += 1
            # Unacknowledged, it would block the broker's sending window until the next connect.
            client.ack(message.mid, message.qos)
            return
        self._inbox.append(
            ReceivedMessage(
                message.topic,
                bytes(message.payload),
                message.retain,
                time.time(),
                time.monotonic(),
                message.qos,
                message.mid,
                self.connects,
            )
        )
        self._arrived.set()


def _new_client(settings: MqttSettings, manual_ack: bool) -> paho.Client:
    newest = settings.protocol == "5"
    client = paho.Client(
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


def _wait(info: paho.MQTTMessageInfo, timeout: float) -> None:
    try:
        info.wait_for_publish(max(timeout, 0.0))
    except (RuntimeError, ValueError):
        return


def try_broker(settings: MqttSettings, timeout: float) -> None:
    """Connect once and leave again, under another client id so that a running agent keeps its session.

    Raises:
        BrokerError: the broker refused, or was not reached in `timeout` seconds.
        ConfigurationError: the password or a certificate cannot be read.
    """
    trial = settings.model_copy(
        update={"client_id": f"{settings.effective_client_id}-check", "persistent_session": False}
    )
    client = _new_client(trial, manual_ack=False)
    answer: list[ReasonCode] = []
    client.on_connect = lambda _client, _data, _flags, reason, _properties: answer.append(reason)
    where = f"broker {trial.host}:{trial.port}"
    deadline = time.monotonic() + timeout
    client.connect_timeout = timeout
    try:
        client.connect(trial.host, trial.port)
        while not answer and time.monotonic() < deadline:
            if client.loop(0.1) != MQTTErrorCode.MQTT_ERR_SUCCESS and not answer:
                raise BrokerError(f"{where}: closed the connection (does it ask for TLS or a certificate?)")
    except (OSError, ValueError) as error:
        raise BrokerError(f"{where}: not reached ({error})") from error
    finally:
        client.disconnect()
    if not answer:
        raise BrokerError(f"{where}: no answer in {timeout:g} s")
    if answer[0].is_failure:
        raise BrokerError(f"{where}: refused ({answer[0]})")


def ask(
    settings: MqttSettings, topic: str, payload: bytes, is_answer: Callable[[bytes], bool], timeout: float
) -> bytes:
    """Publish a request and return the answer that comes on the same topic, which is cleared afterwards.

    Args:
        settings: broker and credentials; another client id is used, so that a running agent keeps its session.
        topic: of request and answer.
        payload: of the request.
        is_answer: tells the last answer from everything else on the topic.
        timeout: seconds for all of it.

    Raises:
        BrokerError: the broker refused or was not reached, or no answer came.
        ConfigurationError: the password or a certificate cannot be read.
    """
    own_id = f"{settings.effective_client_id}-ask-{uuid.uuid4().hex[:12]}"
    client = _new_client(
        settings.model_copy(update={"client_id": own_id, "persistent_session": False}), False
    )
    refusal: list[str] = []
    answers: list[bytes] = []

    def on_connect(
        _client: paho.Client, _data: Any, _flags: Any, reason: ReasonCode, _properties: Any
    ) -> None:
        if reason.is_failure:
            refusal.append(f"refused ({reason})")
        else:
            client.subscribe(topic, 1)

    def on_subscribe(
        _client: paho.Client, _data: Any, _mid: int, reasons: list[ReasonCode], _properties: Any
    ) -> None:
        if reasons[0].is_failure:
            refusal.append(f"refused to let {topic} be read ({reasons[0]})")
        else:
            client.publish(topic, payload, 1)

    def on_publish(_client: paho.Client, _data: Any, _mid: int, reason: ReasonCode, _properties: Any) -> None:
        if reason.is_failure:
            refusal.append(f"refused to let {topic} be written ({reason})")

    client.on_connect, client.on_subscribe, client.on_publish = on_connect, on_subscribe, on_publish
    client.on_message = lambda _client, _data, message: (
        answers.append(bytes(message.payload)) if is_answer(bytes(message.payload)) else None
    )
    where = f"broker {settings.host}:{settings.port}"
    deadline = time.monotonic() + timeout
    client.connect_timeout = timeout
    try:
        client.connect(settings.host, settings.port)
        while not (answers or refusal) and time.monotonic() < deadline:
            if client.loop(0.1) != MQTTErrorCode.MQTT_ERR_SUCCESS and not (answers or refusal):
                raise BrokerError(f"{where}: closed the connection (does it ask for TLS or a certificate?)")
        if answers:
            cleared = client.publish(topic, b"", 1, retain=True)
            while not cleared.is_published() and time.monotonic() < deadline:
                if client.loop(0.1) != MQTTErrorCode.MQTT_ERR_SUCCESS:
                    break
    except (OSError, ValueError) as error:
        raise BrokerError(f"{where}: not reached ({error})") from error
    finally:
        client.disconnect()
    if answers:
        return answers[0]
    why = (
        refusal[0]
        if refusal
        else f"no answer of the agent in {timeout:g} s; does it run, with control.enabled?"
    )
    raise BrokerError(f"{where}: {why}")
