"""What operators said of assets and alarms: mute, maintenance, acknowledgements, marks; and what follows from a mark.

A mark as false alarm suppresses *look-alikes*: later alarms of the same asset whose direction (see
`edge_agent.contract.signature`) has a cosine similarity of at least `SIMILAR` to that of the marked one, and whose
score is at most `STRONGER` times its peak. An alarm that also looks like one marked as a true fault is never
suppressed. No clock, no file, no network: times are seconds since the epoch and come in as arguments.
"""

from collections.abc import Iterator, Sequence
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from edge_agent.contract.errors import ForewarnError
from edge_agent.contract.types import AlarmEvent

SCHEMA = "forewarn.feedback/1"
SIMILAR = 0.9
"""On the simulated pump half of the look-alikes are known by it, and at most a ninth of any other kind of fault."""
STRONGER = 1.5
"""An alarm that is more than half again as strong as the marked one at its peak is told of, whatever it looks like."""
MOST_ALARMS = 300
"""Alarms that are remembered without a mark, and as many with one; the oldest give way."""
MOST_DIRECTIONS = 4
"""Of one alarm: that of its start and those of its latest updates."""
MOST_COMMANDS = 1000
MOST_ASSETS = 10_000
LONGEST_TEXT = 500
LONGEST_SECONDS = 31 * 86400.0
"""Nothing is muted or in maintenance for longer: what is forgotten comes back by itself."""

Label = Literal["false_alarm", "true_fault"]
LABELS: tuple[Label, ...] = ("false_alarm", "true_fault")
Text = Annotated[str, Field(max_length=LONGEST_TEXT)]


class FeedbackError(ForewarnError):
    """What an operator asked for cannot be done; the text is one line."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Remark(_Part):
    """Who said something, when, and a note."""

    by: Text | None = None
    at: float
    note: Text | None = None


class Mark(Remark):
    """What an alarm really was."""

    label: Label


class AlarmRecord(_Part):
    """One alarm, as far as it is needed to acknowledge it, mark it, know its like and make a label of it.

    Attributes:
        alarm_id, asset: its ids.
        onset, start, last: seconds since the epoch; `last` is that of its last event.
        ended: whether `last` is its end.
        severity, peak_score: so far; the peak is None where it is beyond measure.
        score_basis: see `AlarmEvent`.
        named: the sensors that were blamed first, at most three.
        sensors: names of the sensors, in the order in which the directions were made.
        directions: of its start and of its latest updates.
        announced: whether its start was published.
        acknowledged, mark: what operators said of it.
    """

    alarm_id: str
    asset: str
    onset: float
    start: float
    last: float
    ended: bool = False
    severity: str
    peak_score: float | None
    score_basis: str
    named: tuple[str, ...]
    sensors: tuple[str, ...]
    directions: list[tuple[float, ...]]
    announced: bool = False
    acknowledged: Remark | None = None
    mark: Mark | None = None


class AssetFeedback(_Part):
    """What is in force for one asset; 0 is never. Times are seconds since the epoch."""

    muted_until: float = 0.0
    maintenance_since: float = 0.0
    maintenance_until: float = 0.0


class CommandResult(_Part):
    """How a command ended; `reason` says why it failed."""

    at: float
    reason: Text | None = None


class FeedbackState(_Part):
    """Everything that is kept, as it stands in the file."""

    version: Literal["forewarn.feedback/1"] = Field(default="forewarn.feedback/1", alias="schema")
    assets: dict[str, AssetFeedback] = {}
    alarms: dict[str, AlarmRecord] = {}
    commands: dict[str, CommandResult] = {}


class Feedback:
    """The state with its rules.

    Args:
        state: as it was kept; None is nothing yet.
    """

    def __init__(self, state: FeedbackState | None = None) -> None:
        self.state = FeedbackState() if state is None else state
        self.changed = False
        """Whether something changed since it was last kept; whoever keeps it takes it back."""
        # An alarm of the life before has no end of its own any more.
        for record in self.state.alarms.values():
            record.ended = True

    # Assets.

    def mute(self, asset: str, until: float) -> None:
        """Tell of no alarm of the asset until a time."""
        self._asset(asset).muted_until = until
        self.changed = True

    def unmute(self, asset: str) -> None:
        """Tell of the asset's alarms again."""
        self.mute(asset, 0.0)

    def is_muted(self, asset: str, now: float) -> bool:
        """Return whether alarms of the asset are not told of."""
        known = self.state.assets.get(asset)
        return known is not None and now < known.muted_until

    def maintain(self, asset: str, since: float, until: float) -> None:
        """Note that the asset is worked on from one time to another; the latest such time is kept."""
        entry = self._asset(asset)
        entry.maintenance_since, entry.maintenance_until = since, until
        self.changed = True

    def end_maintenance(self, asset: str, now: float) -> None:
        """Note that the work on the asset is over before its time."""
        entry = self._asset(asset)
        entry.maintenance_until = min(entry.maintenance_until, now)
        self.changed = True

    def maintenance(self, asset: str) -> tuple[float, float]:
        """Return from when to when the asset is or was last worked on; (0, 0) is never."""
        known = self.state.assets.get(asset, AssetFeedback())
        return known.maintenance_since, known.maintenance_until

    def in_maintenance(self, asset: str, now: float) -> bool:
        """Return whether the asset is worked on."""
        since, until = self.maintenance(asset)
        return since <= now < until

    def knows(self, asset: str) -> bool:
        """Return whether anything was ever said of the asset."""
        known = self.state.assets.get(asset)
        return known is not None or any(one.asset == asset for one in self.state.alarms.values())

    def _asset(self, asset: str) -> AssetFeedback:
        if asset not in self.state.assets:
            if len(self.state.assets) >= MOST_ASSETS:
                del self.state.assets[next(iter(self.state.assets))]
            self.state.assets[asset] = AssetFeedback()
        return self.state.assets[asset]

    # Alarms.

    def take(self, event: AlarmEvent, alarm_id: str, asset: str, sensors: Sequence[str]) -> AlarmRecord:
        """Note an event of an alarm and return what is known of that alarm.

        Args:
            event: start, update or end.
            alarm_id: its id.
            asset: the asset's id.
            sensors: names behind the columns of the signature.
        """
        record = self.state.alarms.get(alarm_id)
        peak = float(event.peak_score) if np.isfinite(event.peak_score) else None
        direction = tuple(round(float(part), 3) for part in event.signature)
        if record is None:
            self._keep_newest(marked=False, most=MOST_ALARMS - 1)
            record = self.state.alarms[alarm_id] = AlarmRecord(
                alarm_id=alarm_id,
                asset=asset,
                onset=float(event.onset_time),
                start=float(event.start_time),
                last=float(event.time),
                severity=event.severity,
                peak_score=peak,
                score_basis=event.score_basis,
                named=tuple(share.name for share in event.sensors[:3]),
                sensors=tuple(sensors),
                directions=[direction] if any(direction) else [],
            )
        elif event.kind != "end" and any(direction):
            # What an alarm looks like while it ends says nothing of it.
            record.directions = [
                *record.directions[:1],
                *record.directions[1:][-(MOST_DIRECTIONS - 2) :],
                direction,
            ]
        if event.kind == "start":
            # The same alarm may come once more, as when its readings are replayed.
            record.announced = False
        record.last, record.severity, record.peak_score = float(event.time), event.severity, peak
        record.ended = event.kind == "end"
        self.changed = True
        return record

    def end(self, alarm_id: str, time: float) -> None:
        """Note that an alarm was ended from outside."""
        record = self.alarm(alarm_id)
        record.last, record.ended = max(time, record.start), True
        self.changed = True

    def alarm(self, alarm_id: str) -> AlarmRecord:
        """Return what is known of an alarm.

        Raises:
            FeedbackError: nothing is.
        """
        record = self.state.alarms.get(alarm_id)
        if record is None:
            raise FeedbackError(f"alarm {alarm_id[:64]!r} is not known")
        return record

    def acknowledge(self, alarm_id: str, remark: Remark) -> AlarmRecord:
        """Note that somebody has seen an active alarm.

        Raises:
            FeedbackError: the alarm is not known or is over.
        """
        record = self.alarm(alarm_id)
        if record.ended:
            raise FeedbackError(f"alarm {alarm_id} is over; only an active one is acknowledged")
        record.acknowledged = remark
        self.changed = True
        return record

    def mark(self, alarm_id: str, mark: Mark | None) -> AlarmRecord:
        """Note what an alarm, active or over, really was; None takes the mark back.

        Raises:
            FeedbackError: the alarm is not known.
        """
        record = self.alarm(alarm_id)
        record.mark = mark
        self._keep_newest(marked=True, most=MOST_ALARMS)
        self.changed = True
        return record

    def look_alike(self, record: AlarmRecord, score: float) -> str | None:
        """Return the id of the false alarm that an alarm looks like; None where it must be told of.

        Args:
            record: the alarm; its last direction is the one that is judged.
            score: at that time.
        """
        if not record.directions:
            return None
        marked = list(self._marked(record.asset))
        direction = record.directions[-1]
        if any(
            _similar(one, record, direction) for one in marked if one.mark and one.mark.label == "true_fault"
        ):
            return None
        for one in marked:
            if one.mark is None or one.mark.label != "false_alarm" or one.score_basis != record.score_basis:
                continue
            peak = one.peak_score
            if (peak is None or score <= STRONGER * peak) and _similar(one, record, direction):
                return one.alarm_id
        return None

    def _marked(self, asset: str) -> Iterator[AlarmRecord]:
        return (one for one in self.state.alarms.values() if one.mark is not None and one.asset == asset)

    def _keep_newest(self, marked: bool, most: int) -> None:
        """Forget the oldest alarms with or without a mark beyond a number; those that are over go first."""
        alarms = self.state.alarms
        chosen = [key for key, one in alarms.items() if (one.mark is not None) == marked]
        chosen.sort(key=lambda key: (not alarms[key].ended, alarms[key].start))
        for key in chosen[: max(len(chosen) - most, 0)]:
            del alarms[key]

    # Commands.

    def result_of(self, command: str) -> CommandResult | None:
        """Return how a command ended, None where it is not known."""
        return self.state.commands.get(command)

    def remember(self, command: str, result: CommandResult) -> list[str]:
        """Note how a command ended, and return the commands that are forgotten for it."""
        commands = self.state.commands
        commands[command] = result
        self.changed = True
        forgotten = list(commands)[: max(len(commands) - MOST_COMMANDS, 0)]
        for old in forgotten:
            del commands[old]
        return forgotten


def _similar(known: AlarmRecord, record: AlarmRecord, direction: Sequence[float]) -> bool:
    """Return whether a direction of `record` is that of a known alarm at any of its moments."""
    if known.sensors != record.sensors:
        # Another bundle: its columns stand for other sensors.
        return False
    one = np.asarray(direction)
    return any(_cosine(np.asarray(other), one) >= SIMILAR for other in known.directions)


def _cosine(
    a: np.ndarray[tuple[int], np.dtype[np.float64]], b: np.ndarray[tuple[int], np.dtype[np.float64]]
) -> float:
    if a.shape != b.shape:
        return 0.0
    return float(a @ b) / max(float(np.linalg.norm(a) * np.linalg.norm(b)), 1e-12)
