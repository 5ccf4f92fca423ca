"""Laws of when the broker gets its receipts: after the events of a message are handed to the connection."""

from pathlib import Path

import pytest

from edge_agent.agent_connection import AgentConnection
from edge_agent.events import BundleIdentity
from edge_agent.outbox import Outbox, OutgoingMessage
from edge_agent.packets import Messages
from edge_agent.settings import Settings


class _Wire:
    """A connection with room for some publications, recording what passes in which order."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.passed: list[str] = []

    def publish(self, message: OutgoingMessage) -> bool:
        """Take a publication while there is room."""
        if not self.room:
            return False
        self.room -= 1
        self.passed.append(message.topic)
        return True

    def acknowledge(self, batch: list[Messages]) -> None:
        """Note a receipt."""
        self.passed += [f"receipt {mid}" for messages in batch for mid in messages.mids]


def _connection(
    monkeypatch: pytest.MonkeyPatch, wire: _Wire, capacity: int
) -> tuple[AgentConnection, Outbox]:
    settings = Settings.model_validate({"bundle": {"path": Path("bundle")}})
    outbox = Outbox(capacity)
    connection = AgentConnection(settings, BundleIdentity("pump", "1", "00"), outbox)
    monkeypatch.setattr(connection.client, "publish", wire.publish)
    monkeypatch.setattr(connection.client, "acknowledge", wire.acknowledge)
    return connection, outbox


def _batch(mid: int) -> list[Messages]:
    messages = Messages()
    messages.add(b"plant/p1", b"1", qos=1 if mid else 0, mid=mid)
    return [messages]


def test_a_message_is_acknowledged_after_its_events(monkeypatch: pytest.MonkeyPatch) -> None:
    """While one event waits, neither its message nor any after it gets a receipt; then all do, in order."""
    wire = _Wire(room=1)
    connection, outbox = _connection(monkeypatch, wire, capacity=10)
    outbox.put(OutgoingMessage("first", b""))
    connection.owe(_batch(1))
    outbox.put(OutgoingMessage("second", b""))
    connection.owe(_batch(2))
    connection.owe(_batch(3))
    connection.deliver()
    assert wire.passed == ["first", "receipt 1"]
    wire.room = 1
    connection.deliver()
    assert wire.passed == ["first", "receipt 1", "second", "receipt 2", "receipt 3"]


def test_an_event_that_gave_way_holds_no_receipt_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a full outbox drops is counted and not waited for."""
    wire = _Wire(room=0)
    connection, outbox = _connection(monkeypatch, wire, capacity=1)
    outbox.put(OutgoingMessage("lost", b""))
    connection.owe(_batch(1))
    outbox.put(OutgoingMessage("kept", b""))
    connection.deliver()
    assert (wire.passed, outbox.dropped) == (["receipt 1"], 1)


def test_nothing_is_owed_for_qos_0(monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages that want no receipt are not kept until their events are handed over."""
    wire = _Wire(room=0)
    connection, outbox = _connection(monkeypatch, wire, capacity=5)
    outbox.put(OutgoingMessage("event", b""))
    connection.owe(_batch(0))
    assert len(connection._owed) == 0
