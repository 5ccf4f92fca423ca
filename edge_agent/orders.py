"""What operators ask of the agent over MQTT, and the file in which it is kept that they did."""

import logging
import time
from collections.abc import Callable

from edge_agent.alarm_desk import AlarmDesk
from edge_agent.announcer import Announcer
from edge_agent.commands import CommandDesk
from edge_agent.feedback_file import FeedbackFile
from edge_agent.intake import OwnMessage
from edge_agent.operator_actions import OperatorActions
from edge_agent.outbox import OutgoingMessage
from edge_agent.pipeline import Pipeline
from edge_agent.settings import Settings
from edge_agent.tally import Tally
from edge_agent.topics import OutputTopics

log = logging.getLogger(__name__)

# Alarms come in bursts and each changes what is kept; commands do not wait for this.
_KEEP_SECONDS = 10.0


class Orders:
    """Takes commands and keeps feedback.

    Args:
        settings: of the agent.
        topics: its own.
        pipeline: what is commanded.
        desk: with the feedback that is kept.
        announcer: tells of what follows.
        tally: where commands are counted.
        file: where feedback is kept; None is nowhere.
        put: takes answers to publish.
    """

    def __init__(
        self,
        settings: Settings,
        topics: OutputTopics,
        pipeline: Pipeline,
        desk: AlarmDesk,
        announcer: Announcer,
        tally: Tally,
        file: FeedbackFile | None,
        put: Callable[[OutgoingMessage], None],
    ) -> None:
        self._enabled = settings.control.enabled
        self._qos = settings.mqtt.qos
        self._prefix = topics.commands
        self._pipeline = pipeline
        self._feedback = desk.feedback
        self._announcer = announcer
        self._tally = tally
        self._file = file
        self._put = put
        self._kept = time.monotonic()
        self._assets_known = 0
        self._operator = OperatorActions(desk.feedback, desk, pipeline)
        self._commands = CommandDesk(
            topics.commands,
            self._operator.actions,
            desk.feedback,
            settings.control.max_age_seconds,
            self._keep,
        )

    def take(self, message: OwnMessage) -> None:
        """Do what a message asks for, and answer it."""
        if not self._enabled:
            return
        handled = self._commands.take(message.topic, message.payload, message.retained, time.time())
        if handled is None:
            return
        self._tally.commands[handled.name, handled.result] += 1
        self._announcer.publish(handled.notices)
        for answer in handled.answers:
            self._put(OutgoingMessage(answer.topic, answer.payload, self._qos, retain=True))
        self._announcer.refresh_board()
        log.info("command %r: %s", message.topic.removeprefix(self._prefix), handled.result)

    def meet_new_assets(self) -> None:
        """Tell the detector of the maintenance that is in force for assets that were just heard of."""
        for asset in self._pipeline.assets[self._assets_known :]:
            self._operator.apply_maintenance(asset)
        self._assets_known = len(self._pipeline.assets)

    def keep_if_due(self) -> None:
        """Put feedback that changed on disk, if that was not done a moment ago."""
        if time.monotonic() - self._kept >= _KEEP_SECONDS:
            self.keep_if_changed()

    def keep_if_changed(self) -> None:
        """Put feedback that changed on disk."""
        if not self._feedback.changed:
            return
        try:
            self._keep()
        except OSError as error:
            # Tried again as long as it is not kept.
            self._kept = time.monotonic()
            log.error("feedback could not be kept: %s", error.strerror)  # noqa: TRY400 - one line

    def _keep(self) -> None:
        """Put feedback on disk; raises OSError."""
        if self._file is not None:
            self._file.write(self._feedback)
        self._kept = time.monotonic()
