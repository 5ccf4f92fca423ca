"""Laws of the connection, against a real broker: it comes back, tells its state, loses nothing it was sent."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from edge_agent.back_off import LONGEST_DELAY_SECONDS, BackOff
from edge_agent.contract.errors import BrokerError, ConfigurationError
from edge_agent.mqtt import (
    MqttClient,
    ReceivedMessage,
    Subscription,
    try_broker,
)
from edge_agent.outbox import OutgoingMessage
from edge_agent.settings import MqttSettings
from tests.broker import PATIENCE_SECONDS, Broker, Listener, broker, free_port

__all__ = ["broker"]
STATUS = "forewarn/edge/status"


def _settings(port: int, **more: Any) -> MqttSettings:
    return MqttSettings.model_validate({"port": port, **more})


@contextmanager
def _client(settings: MqttSettings, capacity: int = 1000) -> Iterator[MqttClient]:
    client = MqttClient(
        settings, [Subscription("plant/+")], STATUS, lambda state, _time: state.encode(), capacity
    )
    client.start()
    try:
        yield client
    finally:
        client.stop(5.0)


def _until(client: MqttClient, enough: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not enough():
        assert time.monotonic() < deadline
        client.wait(0.05)


def _take(client: MqttClient, count: int) -> list[ReceivedMessage]:
    taken: list[ReceivedMessage] = []

    def enough() -> bool:
        taken.extend(client.take(1000))
        return len(taken) >= count

    _until(client, enough)
    return taken


@pytest.mark.parametrize("protocol", ["3.1.1", "5"])
def test_status_follows_the_life(broker: Broker, protocol: str) -> None:
    """The retained status is `online` once connected and `stopped` after a clean end, in both protocols."""
    with Listener(broker.port, STATUS) as listener:
        with _client(_settings(broker.port, protocol=protocol)) as client:
            assert client.subscribed.wait(PATIENCE_SECONDS)
            listener.wait_for(STATUS, b"online")
        listener.wait_for(STATUS, b"stopped")
    with Listener(broker.port, STATUS) as late:
        late.wait_for(STATUS, b"stopped")
        assert late.heard[0][2]


def test_messages_reach_the_main_loop_in_order(broker: Broker) -> None:
    """Messages come out in the order of their publication, with their arrival."""
    with Listener(broker.port) as sender, _client(_settings(broker.port)) as client:
        assert client.subscribed.wait(PATIENCE_SECONDS)
        for number in range(50):
            sender.publish("plant/p1", str(number).encode(), qos=0)
        taken = _take(client, 50)
    assert [int(message.payload) for message in taken] == list(range(50))
    assert abs(taken[0].arrival - time.time()) < 60


@pytest.mark.parametrize("protocol", ["3.1.1", "5"])
def test_unacknowledged_message_comes_again(broker: Broker, protocol: str) -> None:
    """What was not acknowledged when the agent died is delivered to the next one, what was is not."""
    settings = _settings(broker.port, protocol=protocol)
    with Listener(broker.port) as sender:
        with _client(settings) as client:
            assert client.subscribed.wait(PATIENCE_SECONDS)
            sender.publish("plant/p1", b"safe")
            client.acknowledge(_take(client, 1))
            sender.publish("plant/p1", b"unsafe")
            assert _take(client, 1)[0].payload == b"unsafe"
        with _client(settings) as client:
            assert [message.payload for message in _take(client, 1)] == [b"unsafe"]


def test_connection_comes_back(broker: Broker) -> None:
    """After the broker died and came back, the agent is online and subscribed again by itself."""
    with _client(_settings(broker.port)) as client:
        assert client.subscribed.wait(PATIENCE_SECONDS)
        broker.kill()
        _until(client, lambda: not client.connected.is_set())
        assert not client.publish(OutgoingMessage("a", b"b"))
        broker.start()
        assert client.subscribed.wait(PATIENCE_SECONDS)
        assert client.connects == 2
        with Listener(broker.port, STATUS) as sender:
            sender.wait_for(STATUS, b"online")
            sender.publish("plant/p1", b"1")
            assert _take(client, 1)[0].topic == "plant/p1"


def test_first_connection_is_waited_for(tmp_path: Path) -> None:
    """The agent starts without a broker and connects when there is one."""
    late = Broker(tmp_path)
    with _client(_settings(late.port)) as client:
        _until(client, lambda: client.last_error != "")
        late.start()
        assert client.connected.wait(PATIENCE_SECONDS)
    late.kill()


def test_publications_are_counted_when_confirmed(broker: Broker) -> None:
    """A publication counts once the broker has confirmed it."""
    with Listener(broker.port, "out/#") as listener, _client(_settings(broker.port)) as client:
        assert client.connected.wait(PATIENCE_SECONDS)
        for number in range(20):
            assert client.publish(OutgoingMessage("out/x", str(number).encode()))
        _until(client, lambda: client.unacknowledged == 0)
        assert client.published == 20
        listener.wait_for("out/x", b"19")
    assert [int(payload) for _, payload, _ in listener.heard] == list(range(20))


def test_full_inbox_drops_and_counts(broker: Broker) -> None:
    """A full inbox drops what comes, counts it, and does not block the broker's sending window."""
    with Listener(broker.port) as sender, _client(_settings(broker.port), capacity=5) as client:
        assert client.subscribed.wait(PATIENCE_SECONDS)
        for _ in range(60):
            sender.publish("plant/p1", b"1", qos=1)
        _until(client, lambda: client.overrun == 55)
        assert len(client.take(100)) == 5


def test_wake_ends_a_wait(broker: Broker) -> None:
    """Another thread can end the main loop's wait."""
    with _client(_settings(broker.port)) as client:
        assert client.connected.wait(PATIENCE_SECONDS)
        client.wait(0)
        threading.Timer(0.01, client.wake).start()
        assert client.wait(PATIENCE_SECONDS)


def test_back_off_grows_with_jitter_to_a_minute() -> None:
    """Delays double, differ, and never exceed a minute."""
    back_off = BackOff()
    delays = [back_off.next() for _ in range(50)]
    assert delays[0] <= 1
    assert max(delays) <= LONGEST_DELAY_SECONDS
    assert min(delays[10:]) >= LONGEST_DELAY_SECONDS / 2
    assert len(set(delays[10:])) > 20
    back_off.reset()
    assert back_off.next() <= 1


def test_trial_says_what_is_wrong(broker: Broker, tmp_path: Path) -> None:
    """A trial passes at a broker, names one that is not there, and names a certificate that is not."""
    try_broker(_settings(broker.port), 10.0)
    port = free_port()
    with pytest.raises(BrokerError, match=f"127.0.0.1:{port}: not reached"):
        try_broker(_settings(port), 5.0)
    absent = tmp_path / "ca.pem"
    with pytest.raises(ConfigurationError, match=r"ca\.pem: mqtt\.tls\.ca_file"):
        try_broker(_settings(broker.port, tls={"enabled": True, "ca_file": absent}), 5.0)
    absent.write_text("no certificate")
    with pytest.raises(ConfigurationError, match=r"mqtt\.tls: certificates cannot be used"):
        try_broker(_settings(broker.port, tls={"enabled": True, "ca_file": absent}), 5.0)
