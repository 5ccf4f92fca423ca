"""Between the detector and whoever is told: each alarm event meets what operators said, and becomes notices.

An alarm is *shown* (start and updates are published, the active alarm is retained) or *hidden*, with a reason: its
asset is muted, or it looks like a marked false alarm. What is hidden is said too, as an event of its own kind, and an
alarm that comes out of hiding while it lasts is published then. Every start that was published gets its end.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from edge_agent.contract.types import AlarmEvent
from edge_agent.events import alarm_identity
from edge_agent.feedback import AlarmRecord, Feedback, Mark, Remark

MUTED, LOOK_ALIKE = "muted", "look_alike"
REASONS = (MUTED, LOOK_ALIKE)
"""Why an alarm is hidden."""


@dataclass(frozen=True, slots=True)
class Notice:
    """One thing to publish of an alarm.

    Attributes:
        event: what happened; of kind start, update or end as it is to be published.
        asset, alarm_id: its ids.
        hidden: `start` or `end` of a time in which the alarm is hidden; None is an event of a shown alarm.
        reason: why it is or was hidden.
        look_alike_of: the marked alarm that it looks like.
        acknowledged: who has seen the alarm.
    """

    event: AlarmEvent
    asset: str
    alarm_id: str
    hidden: str | None = None
    reason: str | None = None
    look_alike_of: str | None = None
    acknowledged: Remark | None = None


@dataclass(slots=True)
class _Open:
    """An alarm that lasts: its last event, what is kept of it, and why it is hidden now."""

    event: AlarmEvent
    record: AlarmRecord
    reason: str | None = None
    look_alike_of: str | None = None


class AlarmDesk:
    """Turns alarm events into notices.

    Args:
        feedback: what operators said; alarms are noted in it.
        sensors: names behind the columns of the events' signatures.
        bundle_sha256: of the bundle that raises the events; alarm ids follow from it.
    """

    def __init__(self, feedback: Feedback, sensors: Sequence[str], bundle_sha256: str) -> None:
        self.feedback = feedback
        self._sensors = tuple(sensors)
        self._sha256 = bundle_sha256
        self._open: dict[str, _Open] = {}

    def take(self, event: AlarmEvent, asset: str, now: float) -> list[Notice]:
        """Return what is to be published of an event.

        Args:
            event: of the detector.
            asset: the asset's id.
            now: by which mutes run out, seconds since the epoch; infinity heeds none.
        """
        alarm_id = alarm_identity(self._sha256, asset, event)
        record = self.feedback.take(event, alarm_id, asset, self._sensors)
        one = self._open.get(asset)
        if one is None or one.record.alarm_id != alarm_id:
            one = self._open[asset] = _Open(event, record)
        one.event = event
        if event.kind == "end":
            return self._ended(one)
        return self._judged(one, now, news=True)

    def refresh(self, asset: str, now: float) -> list[Notice]:
        """Return what follows for the asset's open alarm from something that operators said, or from time."""
        one = self._open.get(asset)
        return [] if one is None else self._judged(one, now, news=False)

    def refresh_all(self, now: float) -> list[Notice]:
        """Do so for every asset with an open alarm."""
        return [notice for asset in tuple(self._open) for notice in self.refresh(asset, now)]

    def acknowledge(self, alarm_id: str, remark: Remark) -> list[Notice]:
        """Note that an active alarm was seen, and say so.

        Raises:
            FeedbackError: the alarm is not known or is over.
        """
        record = self.feedback.acknowledge(alarm_id, remark)
        one = self._open.get(record.asset)
        if one is None or one.record.alarm_id != alarm_id or one.reason is not None:
            return []
        return [self._shown(one, "update")]

    def mark(self, alarm_id: str, mark: Mark | None, now: float) -> list[Notice]:
        """Note what an alarm was, and return what follows for the asset's open alarm.

        Raises:
            FeedbackError: the alarm is not known.
        """
        return self.refresh(self.feedback.mark(alarm_id, mark).asset, now)

    def end(self, asset: str, time: float, reason: str) -> list[Notice]:
        """End the asset's open alarm for a reason that the detector does not know of."""
        one = self._open.get(asset)
        if one is None:
            return []
        self.feedback.end(one.record.alarm_id, time)
        one.event = replace(one.event, kind="end", time=max(time, one.event.time), end_reason=reason)
        return self._ended(one)

    @property
    def hidden(self) -> frozenset[str]:
        """Return the assets whose open alarm is hidden."""
        return frozenset(asset for asset, one in self._open.items() if one.reason is not None)

    def _judged(self, one: _Open, now: float, news: bool) -> list[Notice]:
        """Show or hide an open alarm; `news` says whether its last event is still to be told."""
        before, before_of = one.reason, one.look_alike_of
        one.reason, one.look_alike_of = self._why_hidden(one, now)
        notices = []
        if before is not None and before != one.reason:
            notices.append(self._hidden(one, "end", before, before_of))
        if one.reason is not None:
            return (
                notices
                if one.reason == before
                else [
                    *notices,
                    self._hidden(one, "start", one.reason, one.look_alike_of),
                ]
            )
        if not one.record.announced:
            one.record.announced = True
            return [*notices, self._shown(one, "start")]
        return [*notices, self._shown(one, "update")] if news or before is not None else notices

    def _why_hidden(self, one: _Open, now: float) -> tuple[str | None, str | None]:
        record = one.record
        if self.feedback.is_muted(record.asset, now):
            return MUTED, None
        marked = record.mark is not None and record.mark.label == "false_alarm"
        if one.record.announced and not marked and one.reason is None:
            # What was told of stays so: in its course an alarm comes to look like many another.
            return None, None
        like = self.feedback.look_alike(record, one.event.score)
        return (None, None) if like is None else (LOOK_ALIKE, like)

    def _ended(self, one: _Open) -> list[Notice]:
        del self._open[one.record.asset]
        notices = [] if one.reason is None else [self._hidden(one, "end", one.reason, one.look_alike_of)]
        return [*notices, self._shown(one, "end")] if one.record.announced else notices

    def _shown(self, one: _Open, kind: str) -> Notice:
        event = replace(one.event, kind=kind)
        seen = one.record.acknowledged
        return Notice(event, one.record.asset, one.record.alarm_id, acknowledged=seen)

    def _hidden(self, one: _Open, phase: str, reason: str | None, look_alike_of: str | None) -> Notice:
        record = one.record
        return Notice(one.event, record.asset, record.alarm_id, phase, reason, look_alike_of)
