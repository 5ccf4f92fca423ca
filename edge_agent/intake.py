"""Messages become rows: each topic leads to its asset, its sensor and the decoder of its input."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edge_agent.codecs import REASONS, JsonDecoder, PayloadFormat
from edge_agent.contract.errors import ConfigurationError
from edge_agent.contract.types import Rows
from edge_agent.metrics import Tally
from edge_agent.mqtt import ReceivedMessage
from edge_agent.pipeline import Pipeline
from edge_agent.settings import MqttInput
from edge_agent.topics import TopicTemplate, compile_template

log = logging.getLogger(__name__)

# A publisher that makes up topics must not fill the memory; the routes are forgotten and found again.
_MOST_ROUTES = 100_000
OWN_REASONS = ("unknown_topic", "retained", "too_many_assets", "overrun")


@dataclass(frozen=True, slots=True)
class Route:
    """Where a topic leads: the asset's row, the sensor if the topic names it, and the decoder."""

    asset: int
    sensor: str | None
    decoder: JsonDecoder


@dataclass(frozen=True, slots=True)
class _Input:
    template: TopicTemplate
    qos: int
    asset: str | None
    decoder: JsonDecoder


class Intake:
    """Decodes batches of messages for one pipeline and counts what is not usable.

    Args:
        inputs: the configured inputs; the first that fits a topic has it.
        pipeline: gives the sensors and the rows of the assets.
        tally: where messages, readings and rejections are counted.
    """

    def __init__(self, inputs: Sequence[MqttInput], pipeline: Pipeline, tally: Tally) -> None:
        self._pipeline = pipeline
        self._tally = tally
        self._inputs = [_compiled(entry, pipeline.sensors) for entry in inputs]
        self._routes: dict[str, Route | str] = {}
        # Named from the start, so that a rate over a counter sees its first step.
        tally.rejected.update(dict.fromkeys((*REASONS, *OWN_REASONS), 0))

    def subscriptions(self) -> list[tuple[str, int]]:
        """Return (filter, QoS) of every input."""
        return [(entry.template.subscription, entry.qos) for entry in self._inputs]

    def rows(self, messages: Sequence[ReceivedMessage]) -> Rows:
        """Return the usable readings in the order of their arrival."""
        assets: list[int] = []
        times: list[float] = []
        cells: list[dict[int, float]] = []
        for message in messages:
            self._tally.messages += 1
            route = self._usable_route(message)
            if isinstance(route, str):
                self._tally.rejected[route] += 1
                continue
            decoded = route.decoder.decode(message.payload, message.arrival, route.sensor)
            usable = sum(len(row.values) for row in decoded.rows)
            self._tally.readings += usable + decoded.rejected.total()
            self._tally.rejected.update(decoded.rejected)
            for row in decoded.rows:
                assets.append(route.asset)
                times.append(row.time)
                cells.append(row.values)
        return _assembled(assets, times, cells, len(self._pipeline.sensors))

    def _usable_route(self, message: ReceivedMessage) -> Route | str:
        """Return the route, or the reason why the message is not used."""
        if message.retained:
            # What the broker kept is old, and without a time of its own it would pass as new.
            return "retained"
        route = self._routes.get(message.topic)
        if route is None:
            if len(self._routes) >= _MOST_ROUTES:
                self._routes.clear()
            route = self._routes[message.topic] = self._find(message.topic)
        return route

    def _find(self, topic: str) -> Route | str:
        for entry in self._inputs:
            parts = entry.template.match(topic)
            if parts is None:
                continue
            asset, sensor = parts
            name = asset if asset is not None else entry.asset
            if name is None:
                continue
            try:
                return Route(self._pipeline.asset_row(name), sensor, entry.decoder)
            except ConfigurationError as error:
                log.warning("asset %r is not followed: %s", name, error)
                return "too_many_assets"
        return "unknown_topic"


def _compiled(entry: MqttInput, sensors: Sequence[str]) -> _Input:
    fmt = PayloadFormat(entry.time_key, entry.value_key, entry.values_key, entry.time_unit)
    return _Input(compile_template(entry.topic), entry.qos, entry.asset, JsonDecoder(sensors, fmt))


def _assembled(assets: list[int], times: list[float], cells: list[dict[int, float]], width: int) -> Rows:
    values = np.full((len(cells), width), np.nan, np.float32)
    for row, readings in enumerate(cells):
        values[row, list(readings)] = list(readings.values())
    return Rows(np.array(assets, np.int64), np.array(times, np.float64), values)
