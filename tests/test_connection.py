"""Laws of the connection, against a real broker: it comes back, tells its state, loses nothing it was sent."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from edge_agent import paho_client
from edge_agent.back_off import LONGEST_DELAY_SECONDS, BackOff
from edge_agent.connection import MqttClient
from edge_agent.contract.errors import ConfigurationError
from edge_agent.outbox import OutgoingMessage
from edge_agent.packets import Messages
from edge_agent.paho_client import Subscription, batched_reading_works
from edge_agent.settings import MqttSettings
from tests.broker import PATIENCE_SECONDS, Broker, Listener, broker

__all__ = ["broker"]
STATUS = "forewarn/edge/status"


def _settings(port: int, **more: Any) -> MqttSettings:
    return MqttSettings.model_validate({"port": port, **more})


@contextmanager
def _client(settings: MqttSettings, capacity: int = 1000, size: int = 1 << 20) -> Iterator[MqttClient]:
    subscriptions = [Subscription("plant/+"), Subscription("twice/+", 2)]
    client = MqttClient(settings, subscriptions, STATUS, lambda state, _time: state.encode(), capacity, size)
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


def _subscribed(client: MqttClient) -> None:
    _until(client, client.subscribed.is_set)


def _take(client: MqttClient, count: int) -> Messages:
    """Return the next `count` messages, not acknowledged."""
    taken = Messages()

    def enough() -> bool:
        for messages in client.take(1000, 1 << 20):
            for index, topic in enumerate(messages.topics):
                taken.add(topic, messages.payloads[index], messages.qos(index), messages.mids[index])
            taken.arrival, taken.connection = messages.arrival, messages.connection
        return len(taken) >= count

    _until(client, enough)
    return taken


EVERY_WAY = pytest.mark.parametrize(
    "how", [{"protocol": protocol, "reader": reader} for protocol in ("3.1.1", "5") for reader in ("batched", "plain")],
    ids=lambda how: "-".join(how.values()),
)  # fmt: skip


@EVERY_WAY
def test_status_follows_the_life(broker: Broker, how: dict[str, str]) -> None:
    """The retained status is `online` once connected and `stopped` after a clean end, in both protocols."""
    with Listener(broker.port, STATUS) as listener:
        with _client(_settings(broker.port, **how)) as client:
            _subscribed(client)
            listener.wait_for(STATUS, b"online")
        listener.wait_for(STATUS, b"stopped")
    with Listener(broker.port, STATUS) as late:
        late.wait_for(STATUS, b"stopped")
        assert late.heard[0][2]


@EVERY_WAY
def test_messages_reach_the_main_loop_in_order(broker: Broker, how: dict[str, str]) -> None:
    """Messages come out in the order of their publication, with their arrival."""
    with Listener(broker.port) as sender, _client(_settings(broker.port, **how)) as client:
        assert client.reader == how["reader"]
        _subscribed(client)
        for number in range(50):
            sender.publish("plant/p1", str(number).encode(), qos=0)
        taken = _take(client, 50)
    assert [int(payload) for payload in taken.payloads] == list(range(50))
    assert abs(taken.arrival - time.time()) < 60


@EVERY_WAY
def test_unacknowledged_message_comes_again(broker: Broker, how: dict[str, str]) -> None:
    """What was not acknowledged when the agent died is delivered to the next one, what was is not."""
    settings = _settings(broker.port, **how)
    with Listener(broker.port) as sender:
        with _client(settings) as client:
            _subscribed(client)
            sender.publish("plant/p1", b"safe")
            client.acknowledge([_take(client, 1)])
            sender.publish("plant/p1", b"unsafe")
            assert _take(client, 1).payloads == [b"unsafe"]
        with _client(settings) as client:
            assert _take(client, 1).payloads == [b"unsafe"]


def test_connection_comes_back(broker: Broker) -> None:
    """After the broker died and came back, the agent is online and subscribed again by itself."""
    with _client(_settings(broker.port)) as client:
        _subscribed(client)
        broker.kill()
        _until(client, lambda: not client.connected.is_set())
        assert not client.publish(OutgoingMessage("a", b"b"))
        broker.start()
        _subscribed(client)
        assert client.connects == 2
        with Listener(broker.port, STATUS) as sender:
            sender.wait_for(STATUS, b"online")
            sender.publish("plant/p1", b"1")
            assert _take(client, 1).topics == [b"plant/p1"]


def test_first_connection_is_waited_for(tmp_path: Path) -> None:
    """The agent starts without a broker and connects when there is one."""
    late = Broker(tmp_path)
    with _client(_settings(late.port)) as client:
        _until(client, lambda: client.last_error != "")
        late.start()
        _until(client, client.connected.is_set)
    late.kill()


def test_publications_are_counted_when_confirmed(broker: Broker) -> None:
    """A publication counts once the broker has confirmed it."""
    with Listener(broker.port, "out/#") as listener, _client(_settings(broker.port)) as client:
        _until(client, client.connected.is_set)
        for number in range(20):
            assert client.publish(OutgoingMessage("out/x", str(number).encode()))
        _until(client, lambda: client.unacknowledged == 0)
        assert client.published == 20
        listener.wait_for("out/x", b"19")
    assert [int(payload) for _, payload, _ in listener.heard] == list(range(20))


def test_full_inbox_drops_and_counts(broker: Broker) -> None:
    """A full inbox drops what comes, counts it, and does not block the broker's sending window."""
    with Listener(broker.port) as sender, _client(_settings(broker.port), capacity=5) as client:
        _subscribed(client)
        for _ in range(60):
            sender.publish("plant/p1", b"1", qos=1)
        _until(client, lambda: client.overrun == 55)
        assert sum(map(len, client.take(100, 1 << 20))) == 5


def test_an_inbox_is_full_by_bytes_too(broker: Broker) -> None:
    """Large messages fill the inbox before many do, but one that comes alone is always taken."""
    with Listener(broker.port) as sender, _client(_settings(broker.port), size=1000) as client:
        _subscribed(client)
        for _ in range(4):
            sender.publish("plant/p1", b"x" * 400)
        _until(client, lambda: client.overrun == 2)
        assert sum(map(len, client.take(100, 1 << 20))) == 2
        sender.publish("plant/p1", b"x" * 5000)
        assert len(_take(client, 1).payloads[0]) == 5000


def test_a_batch_is_cut_by_count_and_by_bytes(broker: Broker) -> None:
    """At most so many messages are taken, and so many bytes unless one message alone has more."""
    with Listener(broker.port) as sender, _client(_settings(broker.port)) as client:
        _subscribed(client)
        for number in range(6):
            sender.publish("plant/p1", str(number).encode() * 100)
        _until(client, lambda: client.waiting == 6)
        cuts = [(2, 10_000), (10, 250), (10, 1), (10, 10_000)]
        taken = [[m.payloads[i][:1] for m in client.take(*cut) for i in range(len(m))] for cut in cuts]
        assert taken == [[b"0", b"1"], [b"2", b"3"], [b"4"], [b"5"]]
        assert client.waiting == 0


@EVERY_WAY
def test_messages_of_qos_2_come_once_and_are_completed(broker: Broker, how: dict[str, str]) -> None:
    """What is sent exactly once is received once, and once acknowledged it does not come again after a restart."""
    settings = _settings(broker.port, **how)
    with Listener(broker.port) as sender:
        with _client(settings) as client:
            _subscribed(client)
            for number in range(30):
                sender.publish("twice/p1", str(number).encode(), qos=2)
                taken = _take(client, 1)
                assert (taken.payloads, taken.qos(0)) == ([str(number).encode()], 2)
                client.acknowledge([taken])
        with _client(settings) as client:
            _subscribed(client)
            sender.publish("twice/p1", b"new", qos=2)
            assert _take(client, 1).payloads == [b"new"]


@EVERY_WAY
def test_a_full_sending_window_opens_with_acknowledgements(broker: Broker, how: dict[str, str]) -> None:
    """Many more messages of QoS 1 than the broker sends unconfirmed come, in order, as batches are acknowledged."""
    with Listener(broker.port) as sender, _client(_settings(broker.port, **how)) as client:
        _subscribed(client)
        for number in range(100):
            sender._client.publish("plant/p1", str(number).encode(), 1)
        heard: list[int] = []

        def enough() -> bool:
            batch = client.take(1000, 1 << 20)
            client.acknowledge(batch)
            heard.extend(int(payload) for messages in batch for payload in messages.payloads)
            return len(heard) == 100

        _until(client, enough)
    assert heard == list(range(100))


def test_a_large_message_comes_whole(broker: Broker) -> None:
    """A message of many reads is put together, and those after it are cut at the right place."""
    payload = bytes(range(256)) * 4000
    with Listener(broker.port) as sender, _client(_settings(broker.port), size=1 << 22) as client:
        _subscribed(client)
        sender.publish("plant/p1", payload, qos=0)
        sender.publish("plant/p1", b"after", qos=0)
        taken = _take(client, 2)
    assert taken.payloads == [payload, b"after"]


@EVERY_WAY
def test_a_quiet_connection_is_kept_alive(
    broker: Broker, how: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    """Pings go out where nothing else does, their answers come back, and the connection stays the same."""
    caplog.set_level("DEBUG", "paho")
    settings = _settings(broker.port, **how).model_copy(update={"keepalive_seconds": 1})
    with _client(settings) as client:
        _until(client, lambda: sum("PINGRESP" in record.message for record in caplog.records) == 2)
        assert (client.connects, client.connected.is_set()) == (1, True)


def test_this_paho_is_read_in_batches(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The rehearsal passes with the installed paho; where one does not, `auto` reads plainly, `batched` is refused."""
    assert batched_reading_works() == ""
    monkeypatch.setattr(paho_client.BatchedClient, "_create_socket", lambda client: client._open())
    assert "socket" in batched_reading_works()
    with _client(_settings(1)) as client:
        assert client.reader == "plain"
    assert len([record for record in caplog.records if "one by one" in record.message]) == 1
    with pytest.raises(ConfigurationError, match=r"mqtt\.reader"), _client(_settings(1, reader="batched")):
        pass


def test_wake_ends_a_wait(broker: Broker) -> None:
    """Another thread can end the main loop's wait."""
    with _client(_settings(broker.port)) as client:
        _until(client, client.connected.is_set)
        _subscribed(client)
        threading.Timer(0.01, client.wake).start()
        assert client.wait(PATIENCE_SECONDS)


def test_what_is_followed_is_served_while_somebody_waits(broker: Broker) -> None:
    """A descriptor that can be read ends a wait and a pause at once and is no message; unfollowed it ends none."""
    with _client(_settings(broker.port)) as client:
        _subscribed(client)
        near, far = socket.socketpair()
        with near, far:
            heard: list[bytes] = []
            client.follow(near.fileno(), lambda: heard.append(near.recv(10)))
            far.send(b"x")
            assert not client.wait(PATIENCE_SECONDS)
            _until(client, lambda: len(heard) == 1)
            far.send(b"x")
            client.pause(PATIENCE_SECONDS)
            _until(client, lambda: len(heard) == 2)
            client.follow(near.fileno(), lambda: heard.append(b"room"), writing=True)
            _until(client, lambda: heard[-1] == b"room")
            client.unfollow(near.fileno())
            client.unfollow(near.fileno())
            far.send(b"y")
            client.wait(0.01)
            assert b"y" not in heard


def test_who_is_not_hungry_waits_for_all_else(broker: Broker) -> None:
    """Messages that wait do not end the wait of somebody who cannot take them; what is followed does."""
    with _client(_settings(broker.port)) as client:
        _subscribed(client)
        with Listener(broker.port) as publisher:
            publisher.publish("plant/p1", b"1")
        _until(client, lambda: client.waiting == 1)
        near, far = socket.socketpair()
        with near, far:
            heard: list[bytes] = []
            client.follow(near.fileno(), lambda: heard.append(near.recv(10)))
            threading.Timer(0.05, far.send, (b"x",)).start()
            deadline = time.monotonic() + PATIENCE_SECONDS
            while not heard:
                assert time.monotonic() < deadline
                client.wait(PATIENCE_SECONDS, hungry=False)
            client.unfollow(near.fileno())
        assert client.waiting == 1


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
