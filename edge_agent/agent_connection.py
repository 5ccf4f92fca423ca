"""The agent's connection: what it subscribes to, what it says of itself, and when it owes the broker a receipt."""

from collections import deque

from edge_agent.connection import MqttClient
from edge_agent.events import BundleIdentity, status_payload, to_json
from edge_agent.outbox import Outbox
from edge_agent.packets import Messages
from edge_agent.paho_client import Subscription
from edge_agent.settings import Settings
from edge_agent.tally import Tally
from edge_agent.topics import OutputTopics, compile_template


class AgentConnection:
    """The connection with the outbox before it.

    Args:
        settings: of the agent.
        bundle: named in the status.
        outbox: what waits to be handed over.

    Raises:
        ConfigurationError: a secret or certificate cannot be read.
    """

    def __init__(self, settings: Settings, bundle: BundleIdentity, outbox: Outbox) -> None:
        mqtt, agent = settings.mqtt, settings.agent
        topics = OutputTopics(mqtt.base_topic, mqtt.node)

        def status(state: str, now: float | None) -> bytes:
            return to_json(status_payload(state, mqtt.node, bundle, now))

        self._outbox = outbox
        self.client = MqttClient(
            mqtt,
            subscriptions(settings, topics),
            topics.status,
            status,
            agent.inbox_messages,
            agent.inbox_megabytes << 20,
        )
        self._owed: deque[tuple[int, list[Messages]]] = deque()

    def owe(self, batch: list[Messages]) -> None:
        """Note messages that are safe once what was put into the outbox up to now is handed over."""
        if any(any(messages.mids) for messages in batch):
            self._owed.append((self._outbox.accepted, batch))

    def deliver(self) -> None:
        """Hand over what waits, and acknowledge the messages whose events are all handed over.

        So a crash repeats a message and loses no event: what was not acknowledged comes again.
        """
        self._outbox.drain(self.client.publish)
        gone = self._outbox.accepted - len(self._outbox)
        while self._owed and self._owed[0][0] <= gone:
            self.client.acknowledge(self._owed.popleft()[1])

    def refresh(self, tally: Tally) -> None:
        """Bring the connection's counts up to date."""
        client = self.client
        tally.connected = client.connected.is_set()
        tally.connects = client.connects
        tally.outbox_pending = len(self._outbox) + client.unacknowledged
        tally.outbox_dropped = self._outbox.dropped
        tally.published = client.published
        tally.rejected["overrun"] = client.overrun


def subscriptions(settings: Settings, topics: OutputTopics) -> list[Subscription]:
    """Return the filters of the inputs and of the agent's own topics."""
    wanted = [
        Subscription(compile_template(entry.topic).subscription, entry.qos) for entry in settings.mqtt.inputs
    ]
    # The agent reads its own retained alarms back, to clear those of a life that ended without doing so.
    wanted.append(Subscription(f"{topics.alarm('')}+", 1, retained=True))
    if settings.control.enabled:
        # What was asked for while the agent was away is retained; its age and its id decide.
        wanted.append(Subscription(f"{topics.commands}+/+", 1, retained=True))
    return wanted
