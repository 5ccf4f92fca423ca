"""Tells of what scoring found: events and retained alarms to publish, the board for the metrics, and the counts."""

import logging
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from edge_agent.alarm_desk import AlarmDesk, Notice
from edge_agent.board import AssetBoard
from edge_agent.contract.types import DriftEvent, Outcomes, QualityEvent
from edge_agent.events import BundleIdentity, EventWriter, rfc3339, to_json
from edge_agent.feedback import Remark
from edge_agent.intake import OwnMessage
from edge_agent.outbox import OutgoingMessage
from edge_agent.pipeline import Pipeline
from edge_agent.tally import Tally
from edge_agent.topics import OutputTopics

log = logging.getLogger(__name__)


class Announcer:
    """Turns outcomes and notices into messages.

    Args:
        topics: where they go.
        qos: with which they are published.
        bundle: named in every event.
        desk: says which alarms are told of.
        pipeline: its assets.
        board: what is known of each asset.
        tally: where events are counted.
        put: takes what is to be published, in order.
    """

    def __init__(
        self,
        topics: OutputTopics,
        qos: int,
        bundle: BundleIdentity,
        desk: AlarmDesk,
        pipeline: Pipeline,
        board: AssetBoard,
        tally: Tally,
        put: Callable[[OutgoingMessage], None],
    ) -> None:
        self._topics = topics
        self._qos = qos
        self._writer = EventWriter(bundle)
        self._desk = desk
        self._pipeline = pipeline
        self._board = board
        self._tally = tally
        self._put = put
        self.active: set[str] = set()
        """Topics of the alarms that are retained at the broker."""

    def take(self, outcomes: Outcomes) -> None:
        """Note what scoring said, and put its events into the outbox."""
        now = time.time()
        for event in outcomes.events:
            self.publish(self._desk.take(event, self._pipeline.assets[event.asset], now))
        if outcomes.events:
            self.refresh_board()
        self._board.take_outcomes(outcomes)
        self._count(outcomes)
        for found in outcomes.quality:
            self._quality(found)
        for advice in outcomes.advice:
            self._advise(advice)

    def publish(self, notices: list[Notice]) -> None:
        """Publish what is to be said of alarms."""
        for notice in notices:
            if notice.hidden is None:
                self._publish_alarm(notice)
            else:
                self._publish_suppressed(notice)

    def refresh_board(self) -> None:
        """Put what operators said of the assets where the metrics find it."""
        now, feedback, hidden = time.time(), self._desk.feedback, self._desk.hidden
        said = [
            (row, asset)
            for asset in {*feedback.state.assets, *hidden}
            if (row := self._pipeline.known_row(asset)) is not None
        ]
        self._board.take_feedback(
            [row for row, asset in said if asset in hidden],
            [row for row, asset in said if feedback.is_muted(asset, now)],
            [row for row, asset in said if feedback.in_maintenance(asset, now)],
        )

    def clear_if_stale(self, message: OwnMessage) -> None:
        """Clear a retained alarm that this life does not know; what is not retained is the echo of its own."""
        if message.retained and message.payload and message.topic not in self.active:
            self._put(OutgoingMessage(message.topic, b"", self._qos, retain=True))

    def _count(self, outcomes: Outcomes) -> None:
        scored = int(np.count_nonzero(np.isfinite(outcomes.score)))
        self._tally.scored += scored
        if scored == len(outcomes):
            return
        off = 0 if outcomes.off is None else int(np.count_nonzero(outcomes.off))
        unforeseen = int(np.count_nonzero(~np.isfinite(outcomes.forecast).any(axis=1))) - off
        self._tally.unscored["off"] += off
        self._tally.unscored["warming_up"] += unforeseen
        self._tally.unscored["no_reading"] += max(len(outcomes) - scored - unforeseen - off, 0)

    def _advise(self, event: DriftEvent) -> None:
        asset = self._pipeline.assets[event.asset]
        self._tally.advised += 1
        payload = to_json(self._writer.write_advice(event, asset))
        self._put(OutgoingMessage(self._topics.event(asset), payload, self._qos))
        worst = event.sensors[0]
        log.warning(
            "retrain advised: %s, drift %.1f, %s of %s", asset, event.drift, worst.measure, worst.name
        )

    def _quality(self, event: QualityEvent) -> None:
        asset = self._pipeline.assets[event.asset]
        self._board.take_quality(event)
        payload = to_json(self._writer.write_quality(event, asset))
        self._put(OutgoingMessage(self._topics.event(asset), payload, self._qos))
        named = ", ".join(f"{one.name or 'the whole asset'} {one.reason}" for one in event.sensors)
        log.warning("data quality %s: %s, %s", event.phase, asset, named)

    def _publish_alarm(self, notice: Notice) -> None:
        event, asset = notice.event, notice.asset
        payload = to_json(self._writer.write(event, asset, _seen(notice.acknowledged)))
        qos = self._qos
        self._tally.alarm_events[event.severity, event.kind] += 1
        self._put(OutgoingMessage(self._topics.event(asset), payload, qos))
        if event.kind == "end":
            self._clear_alarm(asset)
            if event.end_reason is not None:
                self._board.end_alarm(event.asset)
        else:
            alarm_topic = self._topics.alarm(asset)
            self.active.add(alarm_topic)
            self._put(OutgoingMessage(alarm_topic, payload, qos, retain=True))
        log.warning("%s alarm %s: %s, score %.2f", event.severity, event.kind, asset, event.score)

    def _publish_suppressed(self, notice: Notice) -> None:
        event, asset, phase = notice.event, notice.asset, notice.hidden or ""
        payload = to_json(
            self._writer.write_suppressed(event, asset, phase, notice.reason, notice.look_alike_of)
        )
        self._put(OutgoingMessage(self._topics.event(asset), payload, self._qos))
        if phase == "start":
            self._tally.suppressed[notice.reason or ""] += 1
            self._clear_alarm(asset)
        log.info("alarm suppressed, %s: %s, %s, score %.2f", phase, asset, notice.reason, event.score)

    def _clear_alarm(self, asset: str) -> None:
        """Clear the retained alarm of an asset, if there is one."""
        alarm_topic = self._topics.alarm(asset)
        if alarm_topic in self.active:
            self.active.discard(alarm_topic)
            self._put(OutgoingMessage(alarm_topic, b"", self._qos, retain=True))


def _seen(remark: Remark | None) -> dict[str, Any] | None:
    return None if remark is None else {"by": remark.by, "time": rfc3339(remark.at), "note": remark.note}
