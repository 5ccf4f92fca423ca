"""What operators can ask of the running agent, by name; a further command is a further entry of `actions`."""

import numpy as np

from edge_agent.alarm_desk import AlarmDesk, Notice
from edge_agent.commands import Action, Request
from edge_agent.contract.types import Int64
from edge_agent.feedback import Feedback, FeedbackError, Mark, Remark
from edge_agent.pipeline import Pipeline


class OperatorActions:
    """The commands on the agent's own objects.

    Args:
        feedback: what operators said.
        desk: its alarms.
        pipeline: its assets and their detector.
    """

    def __init__(self, feedback: Feedback, desk: AlarmDesk, pipeline: Pipeline) -> None:
        self._feedback = feedback
        self._desk = desk
        self._pipeline = pipeline

    @property
    def actions(self) -> dict[str, Action]:
        """Return every command by its name."""
        return {
            "mute": Action(("asset",), ("seconds", "until"), self._mute),
            "unmute": Action(("asset",), (), self._unmute),
            "maintenance": Action(("asset",), ("seconds", "until"), self._maintain),
            "acknowledge": Action(("alarm_id",), (), self._acknowledge),
            "mark": Action(("alarm_id", "label"), (), self._mark),
            "accept_as_normal": Action(("asset",), (), self._accept_as_normal),
            "reset": Action(("asset",), (), self._reset),
        }

    def apply_maintenance(self, asset: str) -> None:
        """Tell the detector of the maintenance that is kept for an asset, as after a restart."""
        since, until = self._feedback.maintenance(asset)
        row = self._pipeline.known_row(asset)
        if row is not None and until > since:
            self._pipeline.detector.maintain(np.array([row]), np.array([since]), np.array([until]))

    def _mute(self, request: Request, now: float) -> list[Notice]:
        asset = self._known(request)
        self._feedback.mute(asset, request.end(now))
        return self._desk.refresh(asset, now)

    def _unmute(self, request: Request, now: float) -> list[Notice]:
        asset = self._known(request)
        self._feedback.unmute(asset)
        return self._desk.refresh(asset, now)

    def _maintain(self, request: Request, now: float) -> list[Notice]:
        asset = self._known(request)
        until = request.end(now)
        if until <= now:
            self._feedback.end_maintenance(asset, now)
            self.apply_maintenance(asset)
            return []
        since = self._feedback.maintenance(asset)[0] if self._feedback.in_maintenance(asset, now) else now
        self._feedback.maintain(asset, since, until)
        self.apply_maintenance(asset)
        return self._end_alarm(asset, now, "maintenance")

    def _acknowledge(self, request: Request, now: float) -> list[Notice]:
        return self._desk.acknowledge(str(request.alarm_id), Remark(by=request.by, at=now, note=request.note))

    def _mark(self, request: Request, now: float) -> list[Notice]:
        label = request.label
        mark = (
            None
            if label is None or label == "none"
            else Mark(by=request.by, at=now, note=request.note, label=label)
        )
        return self._desk.mark(str(request.alarm_id), mark, now)

    def _accept_as_normal(self, request: Request, now: float) -> list[Notice]:
        rows, asset = self._row(request)
        detector = self._pipeline.detector
        if detector.state.seen[rows[0]] <= detector.bundle.manifest.warmup_ticks:
            raise FeedbackError(f"asset {asset!r} is warming up: there is no level to accept yet")
        detector.accept_as_normal(rows)
        return self._desk.end(asset, now, "accepted")

    def _reset(self, request: Request, now: float) -> list[Notice]:
        rows, asset = self._row(request)
        self._pipeline.detector.reset(rows)
        return self._desk.end(asset, now, "reset")

    def _end_alarm(self, asset: str, now: float, reason: str) -> list[Notice]:
        row = self._pipeline.known_row(asset)
        if row is not None:
            self._pipeline.detector.end_alarms(np.array([row]))
        return self._desk.end(asset, now, reason)

    def _known(self, request: Request) -> str:
        asset = str(request.asset)
        if self._pipeline.known_row(asset) is None and not self._feedback.knows(asset):
            raise FeedbackError(f"asset {asset[:64]!r} is not known: nothing of it has arrived")
        return asset

    def _row(self, request: Request) -> tuple[Int64, str]:
        asset = str(request.asset)
        row = self._pipeline.known_row(asset)
        if row is None:
            raise FeedbackError(
                f"asset {asset[:64]!r} is not known: nothing of it has arrived since the start"
            )
        return np.array([row], np.int64), asset
