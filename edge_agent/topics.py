"""MQTT topics: what to subscribe to, which asset and sensor an arriving topic names, where events go.

An input template is a topic whose levels may hold `{asset}` and `{sensor}`, such as `plant/{asset}/{sensor}`;
`+` and a final `#` stay what they are in MQTT.
"""

import re
from dataclasses import dataclass

from edge_agent.contract.errors import ConfigurationError

_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_KNOWN = ("asset", "sensor")
# `%` is escaped as well, so that two different ids never meet in one topic.
_UNSAFE = re.compile(r"[%/+#\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class TopicTemplate:
    """One input template, compiled.

    Attributes:
        text: the template as written.
        subscription: the MQTT filter that covers it.
        pattern: matches exactly the topics of the template.
    """

    text: str
    subscription: str
    pattern: re.Pattern[str]

    @property
    def names_asset(self) -> bool:
        """Return whether the topic tells the asset."""
        return "{asset}" in self.text

    @property
    def names_sensor(self) -> bool:
        """Return whether the topic tells the sensor, one reading per message."""
        return "{sensor}" in self.text

    def match(self, topic: str) -> tuple[str | None, str | None] | None:
        """Return (asset, sensor) as far as the topic names them, or None if it is not of this template."""
        found = self.pattern.fullmatch(topic)
        if found is None:
            return None
        parts = found.groupdict()
        return parts.get("asset"), parts.get("sensor")


def _level_pattern(level: str) -> str:
    pieces: list[str] = []
    end = 0
    for found in _PLACEHOLDER.finditer(level):
        pieces.append(re.escape(level[end : found.start()]))
        pieces.append(f"(?P<{found.group(1)}>[^/]+)")
        end = found.end()
    pieces.append(re.escape(level[end:]))
    return "".join(pieces)


def _check(text: str) -> None:
    names = _PLACEHOLDER.findall(text)
    unknown = [name for name in names if name not in _KNOWN]
    rest = _PLACEHOLDER.sub("", text)
    levels = text.split("/")
    if not text or "\0" in text:
        raise ConfigurationError("topic template: must not be empty")
    if unknown or "{" in rest or "}" in rest:
        raise ConfigurationError(f"topic template {text!r}: only {{asset}} and {{sensor}} stand in braces")
    if len(names) != len(set(names)):
        raise ConfigurationError(f"topic template {text!r}: each placeholder stands once")
    if "#" in text and (text.count("#") > 1 or levels[-1] != "#"):
        raise ConfigurationError(f"topic template {text!r}: `#` stands alone in the last level")
    if any("+" in level and level != "+" for level in levels):
        raise ConfigurationError(f"topic template {text!r}: `+` stands alone in its level")


def compile_template(text: str) -> TopicTemplate:
    """Compile an input template.

    Args:
        text: such as `plant/{asset}` or `plant/{asset}/{sensor}`.

    Raises:
        ConfigurationError: an unknown or doubled placeholder, or a misplaced wildcard.
    """
    _check(text)
    filters: list[str] = []
    patterns: list[str] = []
    for level in text.split("/"):
        if level == "#":
            filters.append("#")
            continue
        filters.append("+" if _PLACEHOLDER.search(level) else level)
        patterns.append("[^/]*" if level == "+" else _level_pattern(level))
    pattern = "/".join(patterns)
    if text.split("/")[-1] == "#":
        pattern = f"{pattern}(?:/.*)?" if patterns else ".*"
    return TopicTemplate(text, "/".join(filters), re.compile(pattern, re.DOTALL))


def escape_level(name: str) -> str:
    """Return `name` as one topic level: `/`, `+`, `#`, `%` and control characters percent-encoded."""
    return _UNSAFE.sub(lambda found: f"%{ord(found.group()):02X}", name)


def unescape_level(level: str) -> str:
    """Return the name that `escape_level` was given."""
    return re.sub(r"%([0-9A-F]{2})", lambda found: chr(int(found.group(1), 16)), level)


@dataclass(frozen=True, slots=True)
class OutputTopics:
    """Where the agent publishes: `<base>/<node>/…`."""

    base: str
    node: str

    @property
    def root(self) -> str:
        """Return `<base>/<node>`."""
        return f"{self.base}/{escape_level(self.node)}"

    @property
    def status(self) -> str:
        """Return the retained topic of the agent's own state."""
        return f"{self.root}/status"

    def event(self, asset: str) -> str:
        """Return the topic of starts, updates and ends of one asset's alarms."""
        return f"{self.root}/event/{escape_level(asset)}"

    def alarm(self, asset: str) -> str:
        """Return the retained topic of one asset's active alarm; empty when there is none."""
        return f"{self.root}/alarm/{escape_level(asset)}"

    @property
    def commands(self) -> str:
        """Return what the topics of commands begin with, `<base>/<node>/cmd/`."""
        return f"{self.root}/cmd/"

    def command(self, name: str, command_id: str) -> str:
        """Return the topic of one command: its request, and what became of it."""
        return f"{self.commands}{escape_level(name)}/{escape_level(command_id)}"
