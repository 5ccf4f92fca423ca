"""Where a benchmark takes place: a broker of its own, a bundle, readings, and the daemon there as deployed."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge_agent.bench.daemon import Daemon
from edge_agent.contract.bundle import Bundle
from edge_agent.contract.types import Float32
from edge_agent.detector import load_detector
from edge_agent.settings import AgentSettings
from tests.benchmarks.payloads import NO_FAULT, PREFIX, Fault
from tests.benchmarks.publisher import Stream
from tests.broker import Broker
from trainer.model import ForecasterWeights

# Boundless queues: how fast messages come is the question, and none may be lost.
_BROKER_LINES = ("max_queued_messages 0", "max_inflight_messages 1000")
_INBOX = {"inbox_messages": 1_000_000, "inbox_megabytes": 4096}
_ROWS_AT_ONCE, _ASSETS_AT_ONCE = 64, 1024


@dataclass(frozen=True)
class Subject:
    """What is measured.

    Attributes:
        bundle: with both graphs.
        weights: the same model for Keras.
        values: (n, F) readings of normal life.
    """

    bundle: Bundle
    weights: ForecasterWeights
    values: Float32


@dataclass(frozen=True)
class Site:
    """A running broker and what is sent there.

    Attributes:
        subject: what is measured.
        scratch: for files of the benchmark.
        port: the broker's.
    """

    subject: Subject
    scratch: Path
    port: int

    @property
    def warm_rows(self) -> int:
        """Return after how many rows the script's window is full and the daemon's warm-up over."""
        manifest = self.subject.bundle.manifest
        return max(manifest.window_length, manifest.warmup_ticks)

    @property
    def values(self) -> Path:
        """Return the file of the readings."""
        return self.scratch / "values.npy"

    @property
    def weights(self) -> Path:
        """Return the file of the weights."""
        return self.scratch / "weights.npz"

    def stream(self, **fields: Any) -> Stream:
        """Return a stream of readings to the broker."""
        return Stream.of(self.subject.bundle.manifest, self.port, self.values, **fields)

    def unscored(self, assets: int) -> int:
        """Return how many samples have no score because their asset warms up."""
        return assets * self.subject.bundle.manifest.warmup_ticks

    def daemon(
        self, qos: int = 0, most_assets: int = 1000, port: int | None = None, **settings: Any
    ) -> Daemon:
        """Start the daemon with its defaults, but for what a benchmark must say.

        Args:
            qos: of its subscriptions.
            most_assets: accepted.
            port: to connect to instead of the broker's.
            settings: more of them, by key with two underscores for the dot.
        """
        every: dict[str, Any] = {
            "bundle.path": str(self.subject.bundle.directory),
            "mqtt.port": port or self.port,
            "mqtt.persistent_session": False,
            "mqtt.inputs": [
                {"topic": f"{PREFIX}/{{asset}}", "qos": qos},
                {"topic": f"{PREFIX}/{{asset}}/{{sensor}}", "qos": qos},
            ],
            "agent.max_assets": max(most_assets, 1000),
        }
        known = AgentSettings.model_fields
        every |= {f"agent.{key}": value for key, value in _INBOX.items() if key in known}
        return Daemon(every | {key.replace("__", "."): value for key, value in settings.items()})

    def expected_alarms(self, assets: int, rows: int, fault: Fault = NO_FAULT) -> set[tuple[int, float]]:
        """Return asset and time of the opening of each alarm that the detector itself opens in rows 0 to `rows`."""
        load = self.stream(assets=assets, fault=fault).load
        detector = load_detector(self.subject.bundle.directory)
        found: set[tuple[int, float]] = set()
        for first in range(0, rows, _ROWS_AT_ONCE):
            count = min(_ROWS_AT_ONCE, rows - first)
            for begin in range(0, assets, _ASSETS_AT_ONCE):
                block = np.arange(begin, min(begin + _ASSETS_AT_ONCE, assets))
                asset, row = np.tile(block, count), np.repeat(np.arange(first, first + count), len(block))
                events = detector.process(load.samples(asset, row)).events
                found |= {(event.asset, event.time) for event in events if event.kind == "start"}
        return found


@contextmanager
def running_site(subject: Subject, scratch: Path) -> Iterator[Site]:
    """Start a broker in an empty directory, and end it afterwards."""
    np.save(scratch / "values.npy", subject.values)
    subject.weights.save(scratch / "weights.npz")
    broker = Broker(scratch, *_BROKER_LINES)
    broker.start()
    try:
        yield Site(subject, scratch, broker.port)
    finally:
        broker.kill()
