"""The door to paho: a client made from the settings, its socket read in batches where this paho allows it."""

import logging
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from edge_agent.batched_socket import BatchedSocket
from edge_agent.contract.errors import ConfigurationError
from edge_agent.outbox import OutgoingMessage
from edge_agent.packets import Messages
from edge_agent.settings import MqttSettings

__all__ = [
    "BatchedClient",
    "PahoClient",
    "ReasonCode",
    "Receipt",
    "ReceivedMessage",
    "Subscription",
    "batched_reading_works",
    "begin_to_connect",
    "client_kind",
    "is_settled",
    "loop_once",
    "new_client",
    "publish",
    "send_at_once",
    "subscribe",
]

log = logging.getLogger(__name__)
PahoClient = paho.Client
Receipt = paho.MQTTMessageInfo
ReceivedMessage = paho.MQTTMessage
_CONNACK_AND_READING = b"\x20\x02\x00\x00\x30\x04\x00\x01a1"


@dataclass(frozen=True, slots=True)
class Subscription:
    """One filter; `retained` says whether what the broker keeps there is wanted."""

    topic: str
    qos: int = 1
    retained: bool = False


class BatchedClient(paho.Client):
    """paho with its socket read in batches."""

    batched: BatchedSocket | None = None

    def _open(self) -> socket.socket:
        return super()._create_socket()  # type: ignore[return-value]  # without websockets it is one

    def _create_socket(self) -> Any:
        self.batched = BatchedSocket(self._open(), self.protocol == paho.MQTTv5)
        return self.batched


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


def client_kind(settings: MqttSettings) -> type[paho.Client]:
    """Return the class whose socket is read as the settings want it.

    Raises:
        ConfigurationError: `batched` does not go with this paho.
    """
    if settings.reader == "plain":
        return paho.Client
    why_not = batched_reading_works()
    if not why_not:
        return BatchedClient
    if settings.reader == "batched":
        raise ConfigurationError(f"mqtt.reader: batched does not go with this paho: {why_not}")
    log.warning("packets are read one by one, which is slower: this paho is another one: %s", why_not)
    return paho.Client


def begin_to_connect(client: paho.Client, settings: MqttSettings) -> None:
    """Tell a client where to connect and with which session; its loop does the rest."""
    options: dict[str, Any] = {}
    if settings.protocol == "5":
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = (
            settings.session_expiry_seconds if settings.persistent_session else 0
        )
        options = {"clean_start": not settings.persistent_session, "properties": properties}
    client.connect_async(settings.host, settings.port, settings.keepalive_seconds, **options)


def subscribe(client: paho.Client, settings: MqttSettings, subscriptions: Sequence[Subscription]) -> None:
    """Subscribe to every filter; what the broker keeps is asked for only where it is wanted."""
    filters: list[Any] = [(entry.topic, entry.qos) for entry in subscriptions]
    if settings.protocol == "5":
        send, leave = SubscribeOptions.RETAIN_SEND_ON_SUBSCRIBE, SubscribeOptions.RETAIN_DO_NOT_SEND
        filters = [
            (entry.topic, SubscribeOptions(entry.qos, retainHandling=send if entry.retained else leave))
            for entry in subscriptions
        ]
    client.subscribe(filters)


def publish(client: paho.Client, message: OutgoingMessage) -> tuple[bool, Receipt | None]:
    """Hand a message to a client; returns whether it has it, and how to ask for its confirmation."""
    info = client.publish(message.topic, message.payload, message.qos, message.retain)
    if info.rc == MQTTErrorCode.MQTT_ERR_SUCCESS:
        return True, info
    # The connection broke this moment: paho keeps what has a QoS and sends it after the next connect.
    return message.qos > 0 and info.rc == MQTTErrorCode.MQTT_ERR_NO_CONN, None


def loop_once(client: paho.Client, timeout: float) -> bool:
    """Drive a client that nothing else drives; returns whether the connection still stands."""
    return client.loop(timeout) == MQTTErrorCode.MQTT_ERR_SUCCESS


def is_settled(info: paho.MQTTMessageInfo) -> bool:
    """Return whether a publication needs no waiting for any more: confirmed, or given up."""
    try:
        return info.is_published()
    except (RuntimeError, ValueError):
        # paho gave a QoS 0 message up with its connection.
        return True


def send_at_once(_client: paho.Client, _data: Any, connection: Any) -> None:
    """Send what is small at once, as a client's `on_socket_open`."""
    # Otherwise the second of two events waits for the other side to confirm the first, which it delays by 40 ms.
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


class _Rehearsal(BatchedClient):
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
