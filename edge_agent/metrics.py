"""The door to Prometheus: what the agent counted, and what the board knows, put into words at scrape time.

Asset- and sensor-labelled series are read from the board's arrays for at most a configured number of assets; there
are no label children to grow or to forget.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate

import numpy as np
from prometheus_client import CollectorRegistry, ProcessCollector, exposition
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from edge_agent.board import REASONS, AssetBoard, BoardState
from edge_agent.contract.types import Float32, Float64
from edge_agent.events import BundleIdentity
from edge_agent.tally import Tally
from edge_agent.version import VERSION

CONTENT_TYPE: str = exposition.CONTENT_TYPE_LATEST
_LATENCY_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_SERIES_PER_ASSET = 9
_SERIES_PER_SENSOR = 2

Family = CounterMetricFamily | GaugeMetricFamily


@dataclass(frozen=True)
class Facts:
    """What does not change while the agent runs.

    Attributes:
        bundle: the bundle that runs.
        provider: the execution provider that the session really got.
        sensors: their names, in the order of the board's columns.
        statistic_threshold: of the fused statistic.
        grace_seconds: how long readings may arrive without a score before that is worth a word.
        started: seconds since the epoch.
        max_series_assets: assets that get series of their own.
    """

    bundle: BundleIdentity
    provider: str
    sensors: tuple[str, ...]
    statistic_threshold: float
    grace_seconds: float
    started: float
    max_series_assets: int


class AgentMetrics:
    """The agent's metrics in a registry of their own.

    Args:
        facts: see there.
        tally: what the main loop counts.
        board: what is known of each asset.
        assets: their ids by row; may grow.
        rejected: gives the counts of the pipeline's own rejections, by reason.
        quality: gives what the pipeline found wrong with the readings, by reason.
        workers: ids of the processes that belong to this one.
    """

    def __init__(
        self,
        facts: Facts,
        tally: Tally,
        board: AssetBoard,
        assets: Sequence[str],
        rejected: Callable[[], dict[str, int]],
        quality: Callable[[], dict[str, int]] = dict,
        workers: Sequence[int] = (),
    ) -> None:
        self._registry = CollectorRegistry()
        self.latency = Latency()
        self._registry.register(self.latency)
        if workers:
            self._registry.register(_Processes(workers))
        else:
            ProcessCollector(registry=self._registry)
        self._registry.register(_AgentCollector(facts, tally, rejected, quality))
        self._registry.register(_AssetCollector(facts, board, assets))

    def observe_latency(self, seconds: float, messages: int = 1) -> None:
        """Count messages whose readings were scored `seconds` after they arrived."""
        self.latency.observe(seconds, messages)

    def exposition(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return exposition.generate_latest(self._registry)


def _gauge(name: str, text: str, value: float) -> Family:
    return GaugeMetricFamily(f"forewarn_{name}", text, value=float(value))


def _counter(name: str, text: str, value: float) -> Family:
    return CounterMetricFamily(f"forewarn_{name}", text, value=float(value))


def _info(name: str, text: str, labels: dict[str, str]) -> Family:
    family = GaugeMetricFamily(f"forewarn_{name}", text, labels=list(labels))
    family.add_metric(list(labels.values()), 1.0)
    return family


def _by_reason(name: str, text: str, counts: dict[str, int]) -> Family:
    family = CounterMetricFamily(f"forewarn_{name}", text, labels=["reason"])
    for reason, count in sorted(counts.items()):
        family.add_metric([reason], float(count))
    return family


class Latency(Collector):
    """A histogram that takes messages by the batch; prometheus_client's own takes a microsecond for each."""

    def __init__(self) -> None:
        self._counts = [0] * (len(_LATENCY_BUCKETS) + 1)
        self._sum = 0.0

    def observe(self, seconds: float, messages: int) -> None:
        """Count messages."""
        self._counts[bisect_left(_LATENCY_BUCKETS, seconds)] += messages
        self._sum += seconds * messages

    def add(self, other: "Latency") -> None:
        """Add what was counted elsewhere."""
        self._counts = [mine + theirs for mine, theirs in zip(self._counts, other._counts, strict=True)]
        self._sum += other._sum

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """Return the histogram as it is now."""
        bounds = [*map(str, _LATENCY_BUCKETS), "+Inf"]
        yield HistogramMetricFamily(
            "forewarn_score_latency_seconds",
            "From the arrival of a message to the scores that it led to.",
            buckets=list(zip(bounds, map(float, accumulate(self._counts)), strict=True)),
            sum_value=self._sum,
        )


class _Processes(Collector):
    """What this process and its workers take together; started, and the most files of one, are this process's."""

    _OWN = ("process_start_time_seconds", "process_max_fds")

    def __init__(self, workers: Sequence[int]) -> None:
        self._own = ProcessCollector(registry=None)
        self._workers = [ProcessCollector(pid=partial(int, worker), registry=None) for worker in workers]

    def collect(self) -> Iterator[Metric]:
        others = [family for worker in self._workers for family in worker.collect()]
        for family in self._own.collect():
            total = sum(
                sample.value
                for other in others
                if other.name == family.name and family.name not in self._OWN
                for sample in other.samples
            )
            family.samples = [one._replace(value=one.value + total) for one in family.samples]
            yield family


class _AgentCollector(Collector):
    """The agent as a whole."""

    def __init__(
        self,
        facts: Facts,
        tally: Tally,
        rejected: Callable[[], dict[str, int]],
        quality: Callable[[], dict[str, int]],
    ) -> None:
        self._facts = facts
        self._tally = tally
        self._rejected = rejected
        self._quality = quality

    def collect(self) -> Iterator[Family]:
        yield from self._identity()
        yield from self._connection()
        yield from self._readings()
        yield from self._events()

    def _identity(self) -> Iterator[Family]:
        bundle = self._facts.bundle
        yield _info("build_info", "The agent's version.", {"version": VERSION})
        labels = {"name": bundle.name, "version": bundle.version, "sha256": bundle.sha256}
        yield _info("bundle_info", "The bundle that runs.", labels)
        yield _info(
            "inference_provider_info", "The provider really in use.", {"provider": self._facts.provider}
        )
        yield _gauge("start_timestamp_seconds", "When the agent started.", self._facts.started)
        yield _gauge("score_threshold", "Score at which an alarm opens.", 1.0)
        yield _gauge(
            "statistic_threshold", "Threshold of the fused statistic.", self._facts.statistic_threshold
        )

    def _connection(self) -> Iterator[Family]:
        tally = self._tally
        yield _gauge("mqtt_connected", "1 while the broker is connected.", tally.connected)
        yield _counter("mqtt_connects", "Connections made to the broker.", tally.connects)
        yield _gauge("outbox_pending", "Messages not confirmed by the broker yet.", tally.outbox_pending)
        yield _counter("outbox_dropped", "Messages lost because the outbox was full.", tally.outbox_dropped)
        yield _counter("events_published", "Messages that the broker confirmed.", tally.published)

    def _readings(self) -> Iterator[Family]:
        tally = self._tally
        # Copies, because the main loop goes on counting.
        rejected = Counter(dict(tally.rejected))
        rejected.update(self._rejected())
        yield _counter("messages_received", "Messages with readings.", tally.messages)
        yield _counter("readings_received", "Readings, the unusable ones included.", tally.readings)
        yield _by_reason("readings_rejected", "Readings not used, by reason.", rejected)
        yield _by_reason(
            "data_quality_events", "What was wrong with readings, used or not, by reason.", self._quality()
        )
        yield _counter("samples_scored", "Samples with a score.", tally.scored)
        yield _by_reason("samples_unscored", "Samples without a score, by reason.", dict(tally.unscored))
        yield _gauge("last_reading_timestamp_seconds", "When a reading last arrived.", tally.last_reading)

    def _events(self) -> Iterator[Family]:
        family = CounterMetricFamily(
            "forewarn_alarm_events", "Alarm events, by severity and kind.", labels=["severity", "kind"]
        )
        for (severity, kind), count in sorted(dict(self._tally.alarm_events).items()):
            family.add_metric([severity, kind], float(count))
        yield family
        yield _by_reason(
            "alarms_held_back", "Excursions that did not become an alarm at once, by reason.",
            dict(self._tally.held_back),
        )  # fmt: skip
        yield _counter("retrain_advised", "Events that advise to train anew.", self._tally.advised)
        yield _by_reason(
            "events_suppressed", "Alarms not told of because of what operators said, by reason.",
            dict(self._tally.suppressed),
        )  # fmt: skip
        commands = CounterMetricFamily(
            "forewarn_commands", "Commands of operators, by name and result.", labels=["name", "result"]
        )
        for (name, result), count in sorted(dict(self._tally.commands).items()):
            commands.add_metric([name, result], float(count))
        yield commands


class _AssetCollector(Collector):
    """Each asset, up to the cap."""

    def __init__(self, facts: Facts, board: AssetBoard, assets: Sequence[str]) -> None:
        self._facts = facts
        self._board = board
        self._assets = assets

    def collect(self) -> Iterator[Family]:
        known = len(self._assets)
        names = list(self._assets[: self._facts.max_series_assets])
        state = self._board.snapshot(len(names))
        per_asset = _SERIES_PER_ASSET + _SERIES_PER_SENSOR * len(self._facts.sensors)
        yield _gauge("assets", "Assets that sent readings.", known)
        yield _gauge("assets_warming_up", "Assets whose samples have no score yet.", self._board.warming_up())
        yield _gauge(
            "not_scoring",
            "Assets whose readings arrive and lead to no score.",
            self._board.not_scoring(self._facts.grace_seconds),
        )
        yield _gauge(
            "asset_series_dropped",
            "Series not shown because of the cap.",
            (known - len(names)) * per_asset + self._board.dead_series(len(names)),
        )
        yield self._dead(names, state)
        yield from self._per_asset(names, state)
        yield self._per_sensor("value", "The last reading.", names, state.value)
        yield self._per_sensor("expected", "The last forecast.", names, state.expected)

    def _per_asset(self, names: list[str], state: BoardState) -> Iterator[Family]:
        columns: tuple[tuple[str, str, Float64], ...] = (
            ("asset_score", "Score of the last sample; 1 is the threshold.", state.score),
            ("asset_statistic", "Fused statistic of the last sample.", state.statistic),
            ("threshold_factor", "What the threshold is multiplied by to keep the budget.", state.factor),
            (
                "drift",
                "How far normal operation is from that of the calibration; 1 is the limit.",
                state.drift,
            ),
            (
                "asset_off",
                "1 while the machine is off or settles, and has no score.",
                state.off.astype(np.float64),
            ),
            (
                "alarm_active",
                "1 while the asset is in an alarm that is not suppressed.",
                (state.alarm & ~state.hidden).astype(np.float64),
            ),
            ("muted", "1 while alarms of the asset are not told of.", state.muted.astype(np.float64)),
            ("maintenance", "1 while the asset is in maintenance.", state.maintained.astype(np.float64)),
            ("asset_last_sample_timestamp_seconds", "Time of the last sample.", state.sample_time),
        )
        for name, text, values in columns:
            family = GaugeMetricFamily(f"forewarn_{name}", text, labels=["asset"])
            for asset, value in zip(names, values.tolist(), strict=True):
                family.add_metric([asset], value)
            yield family

    def _dead(self, names: list[str], state: BoardState) -> Family:
        """Return one series for each sensor that cannot be used; an empty sensor is the whole asset."""
        family = GaugeMetricFamily(
            "forewarn_data_quality_active",
            "1 while readings of the sensor cannot be used; without a sensor, those of the asset.",
            labels=["asset", "sensor", "reason"],
        )
        sensors = (*self._facts.sensors, "")
        for asset, sensor in zip(*np.nonzero(state.quality), strict=True):
            reason = REASONS[state.quality[asset, sensor] - 1]
            family.add_metric([names[asset], sensors[sensor], reason], 1.0)
        return family

    def _per_sensor(self, name: str, text: str, names: list[str], values: Float32) -> Family:
        family = GaugeMetricFamily(f"forewarn_asset_sensor_{name}", text, labels=["asset", "sensor"])
        for asset, row in zip(names, values.tolist(), strict=True):
            for sensor, value in zip(self._facts.sensors, row, strict=True):
                family.add_metric([asset, sensor], value)
        return family
