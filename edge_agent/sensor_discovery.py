"""Which sensors messages speak of, where no bundle says which there are."""

from collections.abc import Iterable, Sequence

from edge_agent.binary_payload import MAGIC, column_names
from edge_agent.codecs import JsonDecoder, PayloadFormat
from edge_agent.packets import Messages
from edge_agent.settings import MqttInput
from edge_agent.topics import compile_template

MOST_NAMES = 1000
"""A publisher that makes up names must not fill the memory."""


class _Growing(dict[str, int]):
    """Gives every name a position, until there are too many."""

    def get(self, name: str, _default: object = None) -> int | None:  # type: ignore[override]  # it never has a default
        """Return the position of a name, a new one if it was never heard."""
        if name not in self and len(self) < MOST_NAMES:
            self[name] = len(self)
        return super().get(name)


class SensorDiscovery:
    """Finds the names of sensors in messages.

    Args:
        inputs: the configured inputs; the first that fits a topic has it.
    """

    def __init__(self, inputs: Sequence[MqttInput]) -> None:
        self._positions = _Growing()
        self._inputs = [
            (
                compile_template(entry.topic),
                JsonDecoder(
                    self._positions,
                    PayloadFormat(entry.time_key, entry.value_key, entry.values_key, entry.time_unit),
                ),
            )
            for entry in inputs
        ]

    def names(self, batch: Iterable[Messages]) -> list[str]:
        """Return the sensors that have a reading in these messages, in the order in which they were first heard."""
        found: set[int] = set()
        for messages in batch:
            for topic, payload in zip(messages.topics, messages.payloads, strict=True):
                found |= self._positions_in(topic.decode(errors="replace"), payload)
        return [name for name, place in self._positions.items() if place in found]

    def _positions_in(self, topic: str, payload: bytes) -> set[int]:
        for template, decoder in self._inputs:
            parts = template.match(topic)
            if parts is None:
                continue
            if payload.startswith(MAGIC):
                places = (self._positions.get(name) for name in column_names(payload))
                return {place for place in places if place is not None}
            # The time of arrival stands for one that is not told; here it is of no account.
            return {place for row in decoder.decode(payload, 0.0, parts[1]).rows for place in row.values}
        return set()
