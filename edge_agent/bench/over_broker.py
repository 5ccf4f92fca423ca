"""The daemon as a process at a real broker: what scoring costs it there, and how long a published sample waits."""

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge_agent.bench.closed_loop import PATIENCE_SECONDS, ClosedLoop
from edge_agent.bench.daemon import Daemon
from edge_agent.bench.in_process import Step
from edge_agent.bench.load import Load, load_of
from edge_agent.bench.relay import Relay
from edge_agent.bench.wire import Client, publish_packet
from edge_agent.contract.bundle import read_bundle

BASE_TOPIC = "forewarn-bench"
_AT_ONCE = 400


@dataclass(frozen=True)
class Site:
    """Where and what is measured.

    Attributes:
        host, port: the broker's.
        user: name and password at the broker, None for an anonymous client.
        configuration: of the agent, None for its defaults.
        bundle: directory.
        assets: how many send.
    """

    host: str
    port: int
    user: tuple[str, str] | None
    configuration: Path | None
    bundle: Path
    assets: int


def latency_record(prefix: str, seconds: Any) -> dict[str, float]:
    """Return p50, p99 and p99.9 of durations as milliseconds, by keys that begin with `prefix`."""
    found = np.percentile(np.asarray(seconds, np.float64) * 1e3, [50.0, 99.0, 99.9]).tolist()
    return dict(zip((f"{prefix}_p50_ms", f"{prefix}_p99_ms", f"{prefix}_p999_ms"), found, strict=True))


def measure_over_broker(site: Site, seconds: float, pace: float, step: Step) -> dict[str, Any]:
    """Measure the daemon at a broker; what it published there is cleared afterwards.

    Args:
        site: see there.
        seconds: how long messages are sent, as fast as they go and at the pace, each half of it.
        pace: messages a second of the second half.
        step: told what comes next.

    Raises:
        BrokerError: the broker is not there, or refuses.
        ForewarnError: the daemon does not start, or does not score what was sent.
    """
    bundle = read_bundle(site.bundle)
    manifest = bundle.manifest
    load = load_of(bundle)
    root = f"{BASE_TOPIC}/{os.getpid()}"
    warm_rows = max(manifest.warmup_ticks, manifest.window_length)
    sender = _Sender(load, f"{root}/in", site.assets)
    step("starting the daemon")
    with (
        Client(site.host, site.port, f"{BASE_TOPIC}-{os.getpid()}", site.user) as client,
        Relay(site.host, site.port, f"{root}/in/") as relay,
        Daemon(_settings(site, root, relay.port), site.configuration) as daemon,
    ):
        daemon.wait_until_subscribed()
        step("warming up at the broker")
        loop = ClosedLoop(client, relay)
        loop.send(sender.next(warm_rows * site.assets))
        loop.drain()
        begun_cpu = daemon.cpu_seconds()
        first = sender.sent
        step("as fast as it goes")
        wall = _as_fast_as_it_goes(loop, sender, seconds / 2)
        cpu = daemon.cpu_seconds() - begun_cpu
        scored = sender.sent - first
        step(f"at {pace:g} messages a second")
        answers = relay.answers
        sent = client.publish_at_pace(sender.next(max(int(pace * seconds / 2), 1)), pace, qos=1)
        relay.wait_for_answers(answers + len(sent), PATIENCE_SECONDS)
        waited = np.array(relay.acknowledged()[-len(sent) :]) - np.array(sent)
        rejected = daemon.metric("forewarn_readings_rejected_total")
        megabytes = daemon.resident_megabytes()
        start_seconds = daemon.start_seconds
    with Client(site.host, site.port, f"{BASE_TOPIC}-{os.getpid()}", site.user) as client:
        _clear(client, root, site.assets)
    return {
        "samples": scored,
        "readings_rejected": int(rejected),
        "samples_per_second": scored / wall,
        "samples_per_cpu_second": scored / cpu,
        "pace": pace,
        **latency_record("publish_to_score", waited),
        "rss_mb": megabytes,
        "start_seconds": start_seconds,
    }


class _Sender:
    """The messages of all assets, which take turns."""

    def __init__(self, load: Load, prefix: str, assets: int) -> None:
        self._load = load
        self._prefix = prefix
        self._assets = assets
        self.sent = 0

    def next(self, count: int) -> list[tuple[str, bytes]]:
        """Return topic and payload of the next messages."""
        found = []
        for number in range(self.sent, self.sent + count):
            row, asset = divmod(number, self._assets)
            found.append((f"{self._prefix}/{asset}", self._load.item(asset, row).encode()))
        self.sent += count
        return found


def _as_fast_as_it_goes(loop: ClosedLoop, sender: _Sender, seconds: float) -> float:
    """Keep the daemon busy for so long, and return the seconds until all is scored."""
    begun = time.monotonic()
    while time.monotonic() - begun < seconds:
        loop.send(sender.next(_AT_ONCE))
    loop.drain()
    return time.monotonic() - begun


def _settings(site: Site, root: str, port: int) -> dict[str, Any]:
    """Return what the daemon is told beside its file: to hear and speak under topics of the bench alone."""
    node = root.rpartition("/")[2]
    return {
        "bundle.path": str(site.bundle.absolute()),
        "agent.max_assets": max(site.assets, 1000),
        "mqtt.host": "127.0.0.1",
        "mqtt.port": port,
        "mqtt.client_id": f"{BASE_TOPIC}-agent-{node}",
        "mqtt.persistent_session": False,
        "mqtt.base_topic": BASE_TOPIC,
        "mqtt.node": node,
        "mqtt.inputs": [{"topic": f"{root}/in/{{asset}}", "qos": 1}],
        "control.enabled": False,
        "metrics.max_series_assets": 0,
    }


def _clear(client: Client, root: str, assets: int) -> None:
    """Take away what the daemon left retained: its status, and alarms that are still open."""
    topics = [f"{root}/status", *(f"{root}/alarm/{asset}" for asset in range(assets))]
    client.send(b"".join(publish_packet(topic, b"", retain=True) for topic in topics))
    client.publish([])
