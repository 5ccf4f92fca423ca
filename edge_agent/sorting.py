"""Which worker gets which message: topic → asset → worker, and commands to the worker of what they name.

What leads to no worker (unknown topics, retained readings, one asset too many) is counted here, as a worker would.
"""

import json
import logging
from collections.abc import Iterable
from dataclasses import dataclass

from edge_agent.commands import LARGEST_BYTES
from edge_agent.packets import Messages
from edge_agent.partition import owner
from edge_agent.settings import Settings
from edge_agent.tally import Tally
from edge_agent.topics import OutputTopics, compile_template, unescape_level

log = logging.getLogger(__name__)

# As many as a worker remembers; then they are forgotten and found again.
_MOST_ROUTES = 100_000
_ASTRAY = -1


@dataclass(frozen=True, slots=True)
class Question:
    """A command about an alarm, of which only the worker that raised it knows.

    Attributes:
        alarm_id: which alarm.
        message: the command, alone.
        fallback: the worker that says so if no worker knows the alarm.
    """

    alarm_id: str
    message: Messages
    fallback: int


class Sorter:
    """Divides batches among workers.

    Args:
        settings: of the agent.
        tally: where messages that no worker gets are counted.
    """

    def __init__(self, settings: Settings, tally: Tally) -> None:
        topics = OutputTopics(settings.mqtt.base_topic, settings.mqtt.node)
        self._workers = settings.agent.workers
        self._most_assets = settings.agent.max_assets
        self._tally = tally
        self._inputs = [(compile_template(entry.topic), entry.asset) for entry in settings.mqtt.inputs]
        self._alarms, self._commands = topics.alarm(""), topics.commands
        self._routes: dict[bytes, int] = {}
        self._astray: dict[bytes, str] = {}
        self.assets: dict[str, int] = {}
        """The worker of each asset, in the order in which they were first heard of."""
        self.questions: list[Question] = []
        """Commands whose worker must be asked for; whoever takes them empties this."""

    def sort(self, batch: Iterable[Messages]) -> list[list[Messages]]:
        """Return each worker's part of a batch, the messages of each topic in their order."""
        parts: list[list[Messages]] = [[] for _ in range(self._workers)]
        routes = self._routes
        for messages in batch:
            mine = [Messages(arrival=messages.arrival, clock=messages.clock) for _ in parts]
            columns = [(one.topics.append, one.payloads.append, one.heads.append) for one in mine]
            for topic, payload, head in zip(messages.topics, messages.payloads, messages.heads, strict=True):
                worker = routes.get(topic)
                if worker is None or head & 1:
                    worker = self._look(topic, payload, head, messages)
                    if worker < 0:
                        continue
                add_topic, add_payload, add_head = columns[worker]
                add_topic(topic)
                add_payload(payload)
                add_head(head)
            for part, one in zip(parts, mine, strict=True):
                if len(one):
                    part.append(one)
        return parts

    def _look(self, topic: bytes, payload: bytes, head: int, messages: Messages) -> int:
        """Return the worker of a message that is not known or is retained; `_ASTRAY` where none gets it."""
        name = topic.decode(errors="replace")
        if name.startswith(self._alarms):
            return owner(unescape_level(name.removeprefix(self._alarms)), self._workers)
        if name.startswith(self._commands):
            return self._command(topic, name, payload, head, messages)
        reason = "retained" if head & 1 else self._astray.get(topic)
        if reason is None:
            if len(self._routes) + len(self._astray) >= _MOST_ROUTES:
                self._routes.clear()
                self._astray.clear()
            found = "unknown_topic" if "\ufffd" in name else self._find(name)
            if isinstance(found, int):
                self._routes[topic] = found
                return found
            reason = self._astray[topic] = found
        self._tally.messages += 1
        self._tally.rejected[reason] += 1
        return _ASTRAY

    def _find(self, topic: str) -> int | str:
        """Return the worker of a topic, or the reason why its messages are not used."""
        for template, asset in self._inputs:
            parts = template.match(topic)
            name = None if parts is None else parts[0] if parts[0] is not None else asset
            if name is None:
                continue
            if name not in self.assets:
                if len(self.assets) >= self._most_assets:
                    log.warning(
                        "asset %r is not followed: agent.max_assets: %d assets are followed already",
                        name,
                        self._most_assets,
                    )
                    return "too_many_assets"
                self.assets[name] = owner(name, self._workers)
            return self.assets[name]
        return "unknown_topic"

    def _command(self, topic: bytes, name: str, payload: bytes, head: int, messages: Messages) -> int:
        """Return the worker of a command; one about an alarm becomes a question."""
        # The same command must come to the same worker each time, also one that makes no sense.
        fallback = owner(name, self._workers)
        content = _object(payload)
        asset, alarm_id = content.get("asset"), content.get("alarm_id")
        if isinstance(asset, str):
            return owner(asset, self._workers)
        if not isinstance(alarm_id, str):
            return fallback
        alone = Messages([topic], [payload], [head], [0], 0, messages.arrival, messages.clock)
        self.questions.append(Question(alarm_id, alone, fallback))
        return _ASTRAY


def _object(payload: bytes) -> dict[str, object]:
    if len(payload) > LARGEST_BYTES:
        return {}
    try:
        content = json.loads(payload)
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
