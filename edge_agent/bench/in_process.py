"""The agent's work without its broker: payloads to scores and the detector alone, in this process."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge_agent.bench.daemon import resident_megabytes
from edge_agent.bench.load import Load, load_of
from edge_agent.contract.types import Outcomes
from edge_agent.detector import Detector, load_detector, open_detector
from edge_agent.intake import Intake
from edge_agent.packets import Messages
from edge_agent.pipeline import Pipeline
from edge_agent.settings import MqttInput
from edge_agent.tally import Tally

TOPIC = "bench/asset-"
CHUNK = 256
# The daemon's main loop takes no more messages than this at a time.
_MOST_AT_ONCE = 4096
_PARTS = 5

Step = Callable[[str], None]


@dataclass(slots=True)
class Spent:
    """What one measurement counted.

    Attributes:
        samples, scored: sent, and those of them with a score.
        alarms: that began.
        cpu_seconds, seconds: of this process, and by the clock.
    """

    samples: int = 0
    scored: int = 0
    alarms: int = 0
    cpu_seconds: float = 0.0
    seconds: float = 0.0

    def take(self, outcomes: Outcomes, samples: int) -> None:
        """Count what one call scored."""
        self.samples += samples
        self.scored += int(np.isfinite(outcomes.score).sum())
        self.alarms += sum(event.kind == "start" for event in outcomes.events)

    @property
    def per_cpu_second(self) -> float:
        """Return samples per CPU-second."""
        return self.samples / self.cpu_seconds


class WholePath:
    """The way from a payload to its score that the daemon's main loop goes, for assets that are warm.

    Args:
        detector: fresh.
        load: the readings.
        most_assets: how many `grow` may ask for.
    """

    def __init__(self, detector: Detector, load: Load, most_assets: int) -> None:
        self._load = load
        self._warm_rows = max(detector.bundle.manifest.warmup_ticks, detector.bundle.manifest.window_length)
        self._pipeline = Pipeline(detector, max_assets=most_assets)
        self._intake = Intake((MqttInput(topic="bench/{asset}"),), self._pipeline, Tally())
        self._next_row: list[int] = []

    def grow(self, assets: int) -> None:
        """Let so many assets be there, and warm."""
        first = len(self._next_row)
        for asset in range(first, assets):
            self._pipeline.asset_row(_topic(asset).partition("/")[2])
        for begin in range(first, assets, _MOST_AT_ONCE):
            block = np.arange(begin, min(begin + _MOST_AT_ONCE, assets))
            for row in range(self._warm_rows):
                rows = self._load.rows(block, np.full(len(block), row))
                self._pipeline.feed(rows, time.time())
        self._next_row += [self._warm_rows] * (assets - first)

    def batches(self, count: int) -> Iterator[Messages]:
        """Yield the next messages, one of each asset, `count` at a time at most."""
        assets = len(self._next_row)
        for begin in range(0, assets, count):
            block = range(begin, min(begin + count, assets))
            messages = Messages(arrival=time.time(), clock=time.monotonic())
            for asset in block:
                messages.add(_topic(asset).encode(), self._load.item(asset, self._next_row[asset]).encode())
                self._next_row[asset] += 1
            yield messages

    def score(self, messages: Messages) -> list[Outcomes]:
        """Decode messages and score what they hold."""
        return [
            self._pipeline.feed(rows, time.time()) for rows in self._intake.blocks([messages], _MOST_AT_ONCE)
        ]

    def throughput(self, seconds: float) -> Spent:
        """Score one message of each asset again and again for so long."""
        spent = Spent()
        while spent.seconds < seconds:
            for batch in self.batches(_MOST_AT_ONCE):
                begun, cpu = time.perf_counter(), time.process_time()
                found = self.score(batch)
                spent.cpu_seconds += time.process_time() - cpu
                spent.seconds += time.perf_counter() - begun
                for outcomes in found:
                    spent.take(outcomes, len(outcomes))
        return spent

    def latencies(self, seconds: float) -> list[float]:
        """Score message after message for so long, each alone, and return the seconds of each."""
        found: list[float] = []
        while sum(found) < seconds:
            for batch in self.batches(1):
                begun = time.perf_counter()
                self.score(batch)
                found.append(time.perf_counter() - begun)
        return found


def _topic(asset: int) -> str:
    return f"{TOPIC}{asset}"


def detector_alone(detector: Detector, load: Load, assets: int, rows: int, seconds: float) -> Spent:
    """Score `rows` samples of each of `assets` warm assets in one call, again and again for so long.

    Args:
        detector: fresh.
        load: the readings.
        assets: how many are in one call.
        rows: samples of each in one call.
        seconds: how long, once the assets are warm.
    """
    asset = np.tile(np.arange(assets), rows)
    row = np.repeat(np.arange(rows), assets)
    warm = detector.bundle.manifest.warmup_ticks
    spent, done = Spent(), 0
    while spent.seconds < seconds:
        samples = load.samples(asset, row + done)
        begun, cpu = time.perf_counter(), time.process_time()
        outcomes = detector.process(samples)
        used, took = time.process_time() - cpu, time.perf_counter() - begun
        if done > warm:
            spent.cpu_seconds += used
            spent.seconds += took
            spent.take(outcomes, len(asset))
        done += rows
    return spent


def measure(directory: Path, assets: Sequence[int], seconds: float, step: Step) -> dict[str, Any]:
    """Measure a bundle on this device.

    Args:
        directory: of the bundle.
        assets: numbers of assets that send, ascending; the last is what the record is of.
        seconds: how long all parts together take with one number of assets, beside warming up.
        step: told what comes next.

    Returns:
        The record that `edge-agent bench --json` prints, without what needs a broker.

    Raises:
        BundleError: the bundle is damaged or does not give what its golden samples say.
    """
    part = seconds / _PARTS
    step("loading the bundle")
    bundle = load_detector(directory).bundle
    load = load_of(bundle)
    start_megabytes = resident_megabytes()
    detector = open_detector(bundle)
    path = WholePath(detector, load, assets[-1])
    sweep = []
    for count in assets:
        step(f"warming up, {count} assets")
        path.grow(count)
        step(f"messages to scores, {count} assets")
        whole = path.throughput(part)
        sweep.append(
            {
                "assets": count,
                "samples_per_cpu_second": whole.per_cpu_second,
                "rss_mb": resident_megabytes(),
            }
        )
    step("one message at a time")
    latency = np.percentile(np.array(path.latencies(part)) * 1e3, [50.0, 99.0, 99.9]).tolist()
    step("the detector alone")
    return {
        "bundle": {"name": bundle.manifest.name, "version": bundle.manifest.version},
        "provider": detector.forecaster.provider,
        "inference": detector.forecaster.inference,
        "sensors": len(bundle.manifest.sensors),
        "assets": assets[-1],
        "samples": whole.samples,
        "samples_scored": whole.scored,
        "alarms": whole.alarms,
        "samples_per_second": whole.samples / whole.seconds,
        "samples_per_cpu_second": whole.per_cpu_second,
        "latency_p50_ms": latency[0],
        "latency_p99_ms": latency[1],
        "latency_p999_ms": latency[2],
        "rss_at_start_mb": start_megabytes,
        "rss_mb": sweep[-1]["rss_mb"],
        "detector_samples_per_cpu_second": {
            name: detector_alone(open_detector(bundle), load, *shape, part).per_cpu_second
            for name, shape in (
                ("all_assets", (assets[-1], 1)),
                ("one_asset_chunks", (1, CHUNK)),
                ("one_asset_row_by_row", (1, 1)),
            )
        },
        "sweep": sweep if len(sweep) > 1 else None,
    }
