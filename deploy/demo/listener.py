"""A subscriber: hears the alarm events as anyone on the plant's network would."""

import json
import queue
import threading
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from deploy.demo.processes import DemoError

_PATIENCE_SECONDS = 20.0


class Listener:
    """Subscribed from construction to `close`.

    Args:
        port: of the broker on loopback.
        topics: the MQTT filter to hear.

    Raises:
        DemoError: the broker does not confirm the subscription.
    """

    def __init__(self, port: int, topics: str) -> None:
        self._events: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._topics = topics
        self._subscribed = threading.Event()
        self._client = paho.Client(CallbackAPIVersion.VERSION2, client_id="demo-listener")
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = lambda *_arguments: self._subscribed.set()
        self._client.on_message = self._on_message
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        if not self._subscribed.wait(_PATIENCE_SECONDS):
            self.close()
            raise DemoError(f"broker: the subscription to {topics} was not confirmed")

    def _on_connect(self, client: paho.Client, *_arguments: object) -> None:
        client.subscribe(self._topics, qos=1)

    def _on_message(self, _client: paho.Client, _data: object, message: paho.MQTTMessage) -> None:
        self._events.put(json.loads(message.payload))

    def next_event(self, seconds: float) -> dict[str, Any] | None:
        """Return the next event, or None if none comes within `seconds`."""
        try:
            return self._events.get(timeout=seconds)
        except queue.Empty:
            return None

    def close(self) -> None:
        """Leave the broker."""
        self._client.disconnect()
        self._client.loop_stop()
