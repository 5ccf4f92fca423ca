"""Laws of `edge-agent bench`: every figure is there, the load is what it says, the packets are MQTT's."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.bench.in_process import WholePath, detector_alone
from edge_agent.bench.load import Load, load_of
from edge_agent.bench.relay import Relay
from edge_agent.bench.wire import PUBLISH, Client, PacketReader, publish_packet, remaining_length
from edge_agent.cli import main
from edge_agent.contract.bundle import read_bundle
from edge_agent.contract.errors import BrokerError
from edge_agent.contract.grid import Axis
from edge_agent.detector import open_detector
from tests.broker import PATIENCE_SECONDS, Broker, Listener, broker, free_port
from tests.commands import run
from tests.tiny_machine import SENSORS, TINY_BUNDLE

__all__ = ["broker"]
QUICK = ("--bundle", TINY_BUNDLE, "--assets", 3, "--seconds", 0.05)
RATES = ("samples_per_second", "samples_per_cpu_second")
LATENCIES = ("latency_p50_ms", "latency_p99_ms", "latency_p999_ms")


def _load(rows: int = 5, interval: float = 1.0) -> Load:
    return Load(np.arange(2.0 * rows, dtype=np.float32).reshape(rows, 2), ("a", "b"), Axis(interval, 0.25))


def _numbers(content: Any) -> Iterator[float]:
    if isinstance(content, (dict, list)):
        for part in content.values() if isinstance(content, dict) else content:
            yield from _numbers(part)
    elif isinstance(content, (int, float)):
        yield content


# The command.


def test_bench_json_is_one_object_with_the_promised_figures(capsys: pytest.CaptureFixture[str]) -> None:
    """Throughput, latency and memory are finite and positive, every sample has a score, and nothing else is said."""
    said = run(main, capsys, "bench", *QUICK, "--json")
    found = said.record()
    assert (said.code, said.err) == (0, "")
    assert {*RATES, *LATENCIES, "rss_mb", "rss_at_start_mb"} <= found.keys()
    assert found["samples"] == found["samples_scored"] > 0
    assert found["latency_p50_ms"] <= found["latency_p99_ms"] <= found["latency_p999_ms"]
    assert (found["broker"], found["sweep"]) == (None, None)
    assert found.pop("alarms") >= 0
    assert all(math.isfinite(number) and number > 0 for number in _numbers(found))


def test_bench_speaks_to_a_person(capsys: pytest.CaptureFixture[str]) -> None:
    """Without `--json` there is a table that names the bundle, and with `--sweep` a line a number of assets."""
    said = run(main, capsys, "bench", *QUICK, "--sweep")
    assert said.out.startswith("tiny 1, 3 sensors, step on cpu, 3 assets\n")
    for text in ("a CPU-second", "one message alone, p50", " MB", "  1 assets ", "  3 assets "):
        assert text in said.out


def test_bench_at_a_broker_measures_the_daemon_and_leaves_nothing(
    broker: Broker, capsys: pytest.CaptureFixture[str]
) -> None:
    """The daemon's own figures come with a broker; afterwards the broker keeps no message of the bench."""
    found = run(main, capsys, "bench", *QUICK, "--port", broker.port, "--json").record()["broker"]
    assert found.pop("readings_rejected") == 0
    assert {*RATES, "publish_to_score_p50_ms", "publish_to_score_p99_ms", "rss_mb"} <= found.keys()
    assert all(math.isfinite(number) and number > 0 for number in _numbers(found))
    with Listener(broker.port, "#") as listener:
        listener.publish("end", b"x")
        listener.wait_for("end")
        assert [topic for topic, _, retained in listener.heard if retained] == []


def test_bench_takes_bundle_and_broker_from_the_configuration(
    broker: Broker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With `--config` alone the agent's own file says what is measured and where."""
    path = tmp_path / "edge-agent.toml"
    path.write_text(f"[bundle]\npath = {json.dumps(str(TINY_BUNDLE))}\n[mqtt]\nport = {broker.port}\n")
    words = ("--config", path, "--assets", 2, "--seconds", 0.05, "--json")
    assert run(main, capsys, "bench", *words).record()["broker"]["samples_per_second"] > 0
    path.write_text(path.read_text() + "[mqtt.tls]\nenabled = true\n")
    said = run(main, capsys, "bench", *words)
    assert (said.code, "mqtt.tls.enabled" in said.refusal()) == (78, True)


@pytest.mark.parametrize(
    ("words", "code", "rule"),
    [
        ((), 2, "--bundle DIR must be given"),
        (("--bundle", TINY_BUNDLE, "--assets", "0"), 2, "--assets: is 0"),
        (("--bundle", TINY_BUNDLE, "--seconds", "nan"), 2, "--seconds: is nan"),
        (("--bundle", TINY_BUNDLE, "--seconds", "0"), 2, "--seconds: is 0"),
        (("--bundle", TINY_BUNDLE, "--assets", "many"), 2, "--assets: invalid"),
        (("--bundle", "nowhere"), 78, "no bundle there"),
    ],
)
def test_what_cannot_be_measured_is_one_line(
    words: tuple[Any, ...], code: int, rule: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a bundle, or with a number that means nothing, the command says so in one line."""
    said = run(main, capsys, "bench", *words)
    assert (said.code, rule in said.refusal()) == (code, True)


def test_a_broker_that_is_not_there_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """It is named with its port, exit code 1."""
    port = free_port()
    said = run(main, capsys, "bench", *QUICK, "--port", port)
    assert (said.code, f"127.0.0.1:{port}: " in said.refusal()) == (1, True)


def test_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    """`--help` ends with 0 and shows lines that could be typed."""
    said = run(main, capsys, "bench", "--help")
    assert (said.code, "examples:\n  edge-agent bench --bundle bundle\n" in said.out) == (0, True)


# The load.


@given(st.integers(3, 40), st.integers(0, 10**6), st.integers(0, 10**5))
def test_a_load_never_leaps(rows: int, asset: int, row: int) -> None:
    """However long it is played, two readings that follow each other are neighbours in the stretch."""
    load = _load(rows)
    first, second = load.values(np.array([asset, asset]), np.array([row, row + 1]))
    assert np.abs(second - first).tolist() == [2.0, 2.0]


@pytest.mark.parametrize("interval", [1.0, 0.1, 60.0])
def test_payload_rows_and_samples_of_a_load_say_the_same(interval: float) -> None:
    """Text, rows and samples hold the same readings at the same tick, on the model's axis."""
    load = _load(interval=interval)
    asset, row = np.array([0, 3, 7]), np.array([0, 11, 5])
    rows, samples = load.rows(asset, row), load.samples(asset, row)
    assert Axis(interval, 0.25).tick_of(rows.time).tolist() == samples.tick.tolist()
    for number in range(3):
        item = json.loads(load.item(int(asset[number]), int(row[number])))
        assert item.pop("time") == rows.time[number]
        assert list(item.values()) == rows.values[number].tolist() == samples.values[number].tolist()


def test_the_load_of_a_bundle_is_its_own_normal_life() -> None:
    """It is made of the golden rows that have every sensor, under the sensors' names."""
    load = load_of(read_bundle(TINY_BUNDLE))
    assert load.sensors == SENSORS
    assert np.isfinite(load.values(np.arange(50), np.arange(50))).all()


def test_every_message_of_the_whole_path_becomes_a_scored_sample() -> None:
    """Assets that came later are warm as well, and each message leads to one score, alone or with others."""
    bundle = read_bundle(TINY_BUNDLE)
    path = WholePath(open_detector(bundle), load_of(bundle), 5)
    path.grow(2)
    path.grow(5)
    for count in (1, 3, 100):
        sizes = []
        for batch in path.batches(count):
            scores = np.concatenate([outcomes.score for outcomes in path.score(batch)])
            assert np.isfinite(scores).sum() == len(batch)
            sizes.append(len(batch))
        assert sum(sizes) == 5


@pytest.mark.parametrize(("assets", "rows"), [(1, 1), (1, 16), (4, 1)])
def test_the_detector_alone_is_measured_warm(assets: int, rows: int) -> None:
    """Only calls after the warm-up count, and each of their samples has a score."""
    bundle = read_bundle(TINY_BUNDLE)
    spent = detector_alone(open_detector(bundle), load_of(bundle), assets, rows, 0.01)
    assert spent.samples == spent.scored > 0
    assert spent.samples % (assets * rows) == 0


# The wire.


@pytest.mark.parametrize(
    ("length", "encoded"),
    [(0, b"\0"), (127, b"\x7f"), (128, b"\x80\x01"), (16_383, b"\xff\x7f"), (2_097_152, b"\x80\x80\x80\x01")],
)
def test_lengths_are_written_as_the_standard_says(length: int, encoded: bytes) -> None:
    """The table of MQTT 3.1.1, section 2.2.3."""
    assert remaining_length(length) == encoded


@given(st.lists(st.binary(max_size=300), max_size=8), st.integers(1, 50))
def test_a_stream_of_packets_is_cut_as_it_was_joined(payloads: list[bytes], size: int) -> None:
    """However the bytes arrive, every packet comes out once, whole and in order."""
    packets = [publish_packet("t", payload, number) for number, payload in enumerate(payloads)]
    stream = b"".join(packets)
    reader = PacketReader()
    found = [packet for at in range(0, len(stream), size) for packet in reader.feed(stream[at : at + size])]
    assert [first >> 4 for first, _ in found] == [PUBLISH] * len(payloads)
    assert [body[5 if number else 3 :] for number, (_, body) in enumerate(found)] == payloads


@pytest.mark.parametrize("qos", [0, 1])
def test_what_the_client_publishes_arrives_once_and_in_order(broker: Broker, qos: int) -> None:
    """More messages than the window and one write hold reach a subscriber whole, at both qualities of service."""
    messages = [(f"bench/{number % 7}", str(number).encode()) for number in range(700)]
    with Client("127.0.0.1", broker.port, "hears") as hears, Client("127.0.0.1", broker.port, "says") as says:
        hears.subscribe("bench/#")
        says.publish(messages, qos, window=300)
        heard: list[bytes] = []
        while len(heard) < len(messages):
            heard += [body for first, body in hears.packets() if first >> 4 == PUBLISH]
    assert [body[9:] for body in heard] == [payload for _, payload in messages]


def test_a_client_at_a_pace_says_when_it_wrote(broker: Broker) -> None:
    """The times are those of the messages, in order, no earlier than the pace allows."""
    with Client("127.0.0.1", broker.port, "says") as says:
        sent = says.publish_at_pace([("bench/a", b"1")] * 5, 100.0, qos=1)
    assert all(later - sent[0] >= number / 100.0 - 1e-3 for number, later in enumerate(sent))


def test_the_relay_tells_when_the_agent_acknowledged_each_message(broker: Broker) -> None:
    """Acknowledgements are matched to messages by their ids, on the noted topics alone."""
    with Relay("127.0.0.1", broker.port, "in/") as relay:
        with Listener(relay.port, "#") as listener, Client("127.0.0.1", broker.port, "says") as says:
            sent = says.publish_at_pace([("in/a", b"1"), ("in/b", b"2")], 1000.0, qos=1)
            says.publish([("elsewhere", b"3")], qos=1)
            listener.wait_for("elsewhere")
            relay.wait_for_answers(3, PATIENCE_SECONDS)
        acknowledged = relay.acknowledged()
    assert len(acknowledged) == 2
    assert all(after > before for before, after in zip(sent, acknowledged, strict=True))


def test_a_relay_says_what_was_not_acknowledged(broker: Broker) -> None:
    """A message of which no acknowledgement passed is an error, never a time of zero."""
    with Relay("127.0.0.1", broker.port, "in/") as relay:
        relay._down.append((1.0, publish_packet("in/a", b"1", 5)))
        with pytest.raises(BrokerError, match="1 of 1 messages were not acknowledged"):
            relay.acknowledged()
