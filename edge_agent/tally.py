"""What the main loop counts."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from math import isnan


@dataclass(slots=True)
class Tally:
    """What the main loop counts; only it writes here.

    Attributes:
        connected, connects: the connection to the broker, now and how often.
        messages, readings: received, the unusable readings included.
        rejected: readings and messages not used, by reason.
        scored: samples with a score.
        unscored: samples without, by reason.
        held_back: excursions that did not become an alarm at once, by reason.
        alarm_events: by (severity, kind).
        advised: events that advise to train anew.
        suppressed: alarms that were not told of, by reason.
        commands: of operators, by (name, result).
        last_reading: when the last reading arrived, seconds since the epoch; NaN before the first.
        outbox_pending, outbox_dropped, published: events on their way out.
    """

    connected: bool = False
    connects: int = 0
    messages: int = 0
    readings: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    scored: int = 0
    unscored: Counter[str] = field(default_factory=Counter)
    held_back: Counter[str] = field(default_factory=Counter)
    alarm_events: Counter[tuple[str, str]] = field(default_factory=Counter)
    advised: int = 0
    suppressed: Counter[str] = field(default_factory=Counter)
    commands: Counter[tuple[str, str]] = field(default_factory=Counter)
    last_reading: float = float("nan")
    outbox_pending: int = 0
    outbox_dropped: int = 0
    published: int = 0

    def add(self, other: "Tally") -> None:
        """Add what was counted elsewhere; connected is who has a connection, the last reading is the later one."""
        for item in fields(self):
            mine, theirs = getattr(self, item.name), getattr(other, item.name)
            if isinstance(mine, Counter):
                # Not `+`, which forgets what was named and not counted yet.
                mine.update(theirs)
            elif item.name == "connected":
                self.connected |= theirs
            elif item.name == "last_reading":
                self.last_reading = theirs if isnan(mine) or theirs > mine else mine
            else:
                setattr(self, item.name, mine + theirs)

    def seed(self, suppressed: Iterable[str]) -> None:
        """Name the series that come later, so that a rate over a counter sees its first step.

        Args:
            suppressed: reasons why an alarm is not told of.
        """
        for severity in ("warning", "critical"):
            for kind in ("start", "update", "end"):
                self.alarm_events[severity, kind] = 0
        self.unscored.update({"warming_up": 0, "no_reading": 0, "off": 0})
        self.suppressed.update(dict.fromkeys(suppressed, 0))
