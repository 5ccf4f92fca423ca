"""Messages become rows: each topic leads to its asset, its sensor and the readers of its input."""

import logging
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from edge_agent.binary_payload import MAGIC, BinaryReader
from edge_agent.codecs import (
    REASONS,
    REFUSED,
    JsonDecoder,
    PayloadFormat,
    Reader,
    astuple,
    cell_readers,
    row_readers,
)
from edge_agent.contract.errors import ConfigurationError
from edge_agent.contract.types import Rows
from edge_agent.packets import Messages
from edge_agent.row_collector import WHOLE_ROW, RowCollector
from edge_agent.settings import MqttInput
from edge_agent.tally import Tally
from edge_agent.topics import TopicTemplate, compile_template

log = logging.getLogger(__name__)

# A publisher that makes up topics must not fill the memory; the routes are forgotten and found again.
_MOST_ROUTES = 100_000
OWN_REASONS = ("bad_binary", "unknown_topic", "retained", "too_many_assets", "overrun")


class Registry(Protocol):
    """Whoever takes the rows: a pipeline, or what only records them."""

    @property
    def sensors(self) -> Sequence[str]:
        """Return the names of the columns of a row."""

    @property
    def unused(self) -> Sequence[str]:
        """Return the names that messages may have beside them and that are passed over."""

    def asset_row(self, asset: str) -> int:
        """Return the row of an asset, a new one if it was never seen; ConfigurationError if they are too many."""


@dataclass(frozen=True, slots=True)
class OwnMessage:
    """A message that holds no readings: of the agent's own topics."""

    topic: str
    payload: bytes
    retained: bool


@dataclass(frozen=True, slots=True)
class _Input:
    template: TopicTemplate
    qos: int
    asset: str | None
    decoder: JsonDecoder
    row_readers: tuple[Reader, ...]
    cell_readers: tuple[Reader, ...]


@dataclass(slots=True)
class _Route:
    """Where a topic leads.

    Attributes:
        asset: row of the asset.
        column: position of the sensor that the topic names, or `WHOLE_ROW`.
        sensor: its name, if the topic names one.
        read: the reader that fitted the topic's last messages.
        readers: those that may fit.
        decoder: says what every payload means.
        misses: how many payloads no typed reader took.
    """

    asset: int
    column: int
    sensor: str | None
    read: Reader
    readers: tuple[Reader, ...]
    decoder: JsonDecoder
    misses: int = 0


class Intake:
    """Decodes batches of messages and counts what is not usable.

    Args:
        inputs: the configured inputs; the first that fits a topic has it.
        registry: gives the sensors and the rows of the assets.
        tally: where messages, readings and rejections are counted.
        own: what the topics begin with that are the agent's own; their messages are put into `own`.
    """

    def __init__(
        self, inputs: Sequence[MqttInput], registry: Registry, tally: Tally, own: tuple[str, ...] = ()
    ) -> None:
        self._registry = registry
        self._tally = tally
        self._binary = BinaryReader(registry.sensors, registry.unused)
        self._read_binary = self._binary.read
        self._column = {name: index for index, name in enumerate(registry.sensors)}
        self._width = len(registry.sensors)
        self._inputs = [self._compiled(entry) for entry in inputs]
        self._own = own
        self.own: list[OwnMessage] = []
        self._routes: dict[bytes, _Route] = {}
        self._astray: dict[bytes, str] = {}
        # Named from the start, so that a rate over a counter sees its first step.
        tally.rejected.update(dict.fromkeys((*REASONS, *OWN_REASONS), 0))

    def subscriptions(self) -> list[tuple[str, int]]:
        """Return (filter, QoS) of every input."""
        return [(entry.template.subscription, entry.qos) for entry in self._inputs]

    def blocks(self, batch: Iterable[Messages], limit: int) -> Iterator[Rows]:
        """Yield the usable readings in the order of their arrival, at most `limit` rows at a time."""
        collector = RowCollector(self._width)
        for messages in batch:
            collector.arrive(messages.arrival)
            self._tally.messages += len(messages)
            at = 0
            while at < len(messages):
                at = self._gather(messages, at, collector, limit)
                if len(collector) >= limit:
                    yield from self._cut(collector, limit)
                    collector = RowCollector(self._width)
                    collector.arrive(messages.arrival)
        if len(collector):
            yield from self._cut(collector, limit)

    def _gather(self, messages: Messages, at: int, collector: RowCollector, limit: int) -> int:
        """Decode messages from `at` on until there are `limit` rows; returns where it stopped."""
        assets, columns, rows = collector.assets, collector.columns, collector.rows
        values, times, routes = collector.values, collector.times, self._routes
        # Most messages hold one row; those that hold many are looked at one by one.
        last = min(at + limit - len(assets), len(messages))
        arrived = zip(
            messages.topics[at:last], messages.payloads[at:last], messages.heads[at:last], strict=True
        )
        for place, (topic, payload, head) in enumerate(arrived, at + 1):
            route = routes.get(topic)
            if route is None or head & 1:
                route = self._look(topic, payload, head)
                if route is None:
                    continue
            try:
                item = route.read(payload)
            except REFUSED:
                self._read_otherwise(route, payload, messages.arrival, collector)
                continue
            kind = type(item)
            if kind is list or kind is np.ndarray:
                self._many(route, item, collector)
                if len(assets) >= limit:
                    return place
                continue
            assets.append(route.asset)
            columns.append(route.column)
            if route.column < 0:
                rows.append(item if kind is tuple else astuple(item))
            elif kind is float:
                values.append(item)
                times.append(np.nan)
            else:
                time, value = item if kind is tuple else astuple(item)
                values.append(value)
                times.append(time)
        return last

    def _many(self, route: _Route, items: Any, collector: RowCollector) -> None:
        """Take in the rows or readings of one message."""
        if isinstance(items, np.ndarray):
            collector.add_block(route.asset, items)
            return
        whole = route.column < 0 or route.read is self._read_binary
        collector.assets += [route.asset] * len(items)
        collector.columns += [WHOLE_ROW if whole else route.column] * len(items)
        if whole:
            collector.rows += items if items and type(items[0]) is tuple else map(astuple, items)
            return
        pairs = [
            (math.nan, item) if type(item) is float else item if type(item) is tuple else astuple(item)
            for item in items
        ]
        collector.times += [time for time, _ in pairs]
        collector.values += [value for _, value in pairs]

    def _read_otherwise(self, route: _Route, payload: bytes, arrival: float, collector: RowCollector) -> None:
        """Decode a payload that is another one than the topic's last."""
        if payload.startswith(MAGIC):
            try:
                items = self._read_binary(payload)
            except ValueError:
                self._reject(Counter(bad_binary=1))
                return
            route.read = self._read_binary
            self._many(route, items, collector)
            return
        decoded = route.decoder.decode(payload, arrival, route.sensor)
        self._reject(decoded.rejected)
        for row in decoded.rows:
            cells = [math.nan] * self._width
            for position, value in row.values.items():
                cells[position] = value
            collector.assets.append(route.asset)
            collector.columns.append(WHOLE_ROW)
            collector.rows.append((row.time, *cells))
        if not decoded.rejected:
            _learn(route, payload)

    def _cut(self, collector: RowCollector, limit: int) -> Iterator[Rows]:
        rejected = Counter[str]()
        rows = collector.take(rejected)
        if self._binary.unknown:
            rejected["unknown_sensor"], self._binary.unknown = self._binary.unknown, 0
        if rejected:
            self._reject(rejected)
        self._tally.readings += int(np.count_nonzero(~np.isnan(rows.values)))
        for at in range(0, len(rows), limit):
            part = slice(at, at + limit)
            yield rows if len(rows) <= limit else Rows(rows.asset[part], rows.time[part], rows.values[part])

    def _reject(self, rejected: Counter[str]) -> None:
        self._tally.readings += rejected.total()
        self._tally.rejected.update(rejected)

    def _look(self, topic: bytes, payload: bytes, head: int) -> _Route | None:
        """Return the route of a message that is not known or is retained; None where it holds no readings to use."""
        name = topic.decode(errors="replace")
        if name.startswith(self._own):
            self.own.append(OwnMessage(name, payload, bool(head & 1)))
            self._tally.messages -= 1
            return None
        # What the broker kept is old, and without a time of its own it would pass as new.
        reason = "retained" if head & 1 else self._astray.get(topic)
        if reason is None:
            if len(self._routes) + len(self._astray) >= _MOST_ROUTES:
                self._routes.clear()
                self._astray.clear()
            found = "unknown_topic" if "\ufffd" in name else self._find(name)
            if isinstance(found, _Route):
                self._routes[topic] = found
                return found
            reason = self._astray[topic] = found
        self._tally.rejected[reason] += 1
        return None

    def _find(self, topic: str) -> _Route | str:
        """Return the route of a topic, or the reason why its messages are not used."""
        for entry in self._inputs:
            parts = entry.template.match(topic)
            if parts is None:
                continue
            asset, sensor = parts
            name = asset if asset is not None else entry.asset
            if name is None:
                continue
            try:
                row = self._registry.asset_row(name)
            except ConfigurationError as error:
                log.warning("asset %r is not followed: %s", name, error)
                return "too_many_assets"
            readers = entry.row_readers
            if sensor is not None:
                readers = entry.cell_readers if sensor in self._column else ()
            column = WHOLE_ROW if sensor is None else self._column.get(sensor, WHOLE_ROW)
            return _Route(row, column, sensor, readers[0] if readers else _refuse, readers, entry.decoder)
        return "unknown_topic"

    def _compiled(self, entry: MqttInput) -> _Input:
        fmt = PayloadFormat(entry.time_key, entry.value_key, entry.values_key, entry.time_unit)
        sensors, unused = self._registry.sensors, self._registry.unused
        return _Input(
            compile_template(entry.topic), entry.qos, entry.asset, JsonDecoder(sensors, fmt, unused),
            row_readers(sensors, fmt, unused), cell_readers(fmt),
        )  # fmt: skip


def _refuse(_payload: bytes) -> None:
    raise ValueError("no types for this one")


def _learn(route: _Route, payload: bytes) -> None:
    """Look for the reader that takes a good payload; the more rarely, the more often there was none."""
    route.misses += 1
    if route.misses & (route.misses - 1):
        return
    for reader in route.readers:
        try:
            reader(payload)
        except REFUSED:
            continue
        route.read = reader
        return
