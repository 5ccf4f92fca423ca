"""What is done with messages: decoded, scored, told of. It knows the clock, but no connection.

One turn of the main loop gives it a batch; between the calls of a long one the caller may look after other things.
"""

import logging
import time
from collections.abc import Callable

import numpy as np

from edge_agent.alarm_desk import REASONS, AlarmDesk
from edge_agent.announcer import Announcer
from edge_agent.board import AssetBoard
from edge_agent.contract.types import Rows
from edge_agent.detector import Detector, load_detector
from edge_agent.events import BundleIdentity
from edge_agent.feedback import Feedback
from edge_agent.feedback_file import FeedbackFile
from edge_agent.heap import Heap
from edge_agent.intake import Intake
from edge_agent.metrics import AgentMetrics, Facts
from edge_agent.orders import Orders
from edge_agent.outbox import OutgoingMessage
from edge_agent.packets import Messages
from edge_agent.pipeline import Pipeline
from edge_agent.settings import Settings
from edge_agent.tally import Tally
from edge_agent.topics import OutputTopics
from edge_agent.united import Part, summary

log = logging.getLogger(__name__)

# So many rows are scored in one call. The connection is not looked after during a call, and rows of one asset are
# slow, since each waits for the one before it: few assets get less.
_MOST_ROWS = 8192
_MOST_ROWS_AN_ASSET = 1024
_LONGEST_TICK_SECONDS = 1.0
_EXTRA_GRACE_TICKS = 10


class Turns:
    """The work on one bundle's assets.

    Args:
        settings: of the agent.
        detector: with the bundle loaded and proven.
        file: where feedback is kept; None is nowhere.
        feedback: what it holds.
        put: takes what is to be published, in order.
    """

    def __init__(
        self,
        settings: Settings,
        detector: Detector,
        file: FeedbackFile | None,
        feedback: Feedback,
        put: Callable[[OutgoingMessage], None],
    ) -> None:
        manifest = detector.bundle.manifest
        self.bundle = BundleIdentity(manifest.name, manifest.version, detector.bundle.sha256)
        self.pipeline = Pipeline(
            detector,
            settings.grid.allowed_lateness_ticks,
            settings.agent.max_assets,
            settings.quality.max_future_seconds,
        )
        self.tally = Tally()
        self.tally.seed(REASONS)
        self.tick_seconds = min(_LONGEST_TICK_SECONDS, manifest.sampling_interval_seconds)
        topics = OutputTopics(settings.mqtt.base_topic, settings.mqtt.node)
        self._alarm_prefix = topics.alarm("")
        own = (self._alarm_prefix, topics.commands)
        self._intake = Intake(settings.mqtt.inputs, self.pipeline, self.tally, own)
        self._desk = AlarmDesk(feedback, self.pipeline.sensors, self.bundle.sha256)
        self._board = AssetBoard(len(self.pipeline.sensors))
        self._heap = Heap()
        self.announcer = Announcer(
            topics, settings.mqtt.qos, self.bundle, self._desk, self.pipeline, self._board, self.tally, put
        )
        self.orders = Orders(
            settings, topics, self.pipeline, self._desk, self.announcer, self.tally, file, put
        )
        self.facts = self._gather_facts(settings, detector)
        self.metrics = AgentMetrics(
            self.facts,
            self.tally,
            self._board,
            self.pipeline.assets,
            lambda: self.pipeline.rejected,
            lambda: self.pipeline.quality,
        )

    def _gather_facts(self, settings: Settings, detector: Detector) -> Facts:
        manifest = detector.bundle.manifest
        grace_ticks = manifest.warmup_ticks + settings.grid.allowed_lateness_ticks + _EXTRA_GRACE_TICKS
        return Facts(
            bundle=self.bundle,
            provider=detector.forecaster.provider,
            sensors=self.pipeline.sensors,
            statistic_threshold=manifest.threshold.value,
            grace_seconds=grace_ticks * manifest.sampling_interval_seconds,
            started=time.time(),
            max_series_assets=settings.metrics.max_series_assets,
        )

    def process(self, batch: list[Messages], between: Callable[[], None]) -> None:
        """Decode and score a batch, heed what it says to the agent itself, and tell of all that follows.

        Args:
            batch: at least one.
            between: called after each full call of the detector, for there may be many more.
        """
        scored = False
        limit = min(_MOST_ROWS, _MOST_ROWS_AN_ASSET * max(len(self.pipeline.assets), 1))
        for rows in self._intake.blocks(batch, limit):
            scored |= self._feed(rows, batch[-1].arrival)
            if len(rows) == limit:
                between()
        self.orders.meet_new_assets()
        own, self._intake.own = self._intake.own, []
        for message in own:
            if message.topic.startswith(self._alarm_prefix):
                self.announcer.clear_if_stale(message)
            else:
                self.orders.take(message)
        if scored:
            done = time.monotonic()
            for messages in batch:
                self.metrics.observe_latency(done - messages.clock, len(messages))
        self.tally.held_back = self.pipeline.detector.held_back

    def tick(self) -> None:
        """Let time pass: close ticks, miss silent assets, end what operators said for a time."""
        now = time.time()
        self.announcer.take(self.pipeline.advance(now))
        self.announcer.publish(self._desk.refresh_all(now))
        self.announcer.refresh_board()
        self.orders.keep_if_due()
        self._heap.settle(len(self.pipeline.assets))

    def summary(self) -> str:
        """Return in a line how many assets there are, and how many in alarm."""
        return summary(len(self.pipeline.assets), len(self.announcer.active))

    def part(self) -> Part:
        """Return a copy of all that metrics are made of."""
        assets = list(self.pipeline.assets)
        return Part(
            assets,
            self._board.snapshot(len(assets)),
            self.tally,
            self.pipeline.rejected,
            self.pipeline.quality,
            self.metrics.latency,
        )

    def knows_alarm(self, alarm_id: str) -> bool:
        """Return whether anything is known of an alarm."""
        return alarm_id in self._desk.feedback.state.alarms

    def _feed(self, rows: Rows, arrival: float) -> bool:
        """Score rows; returns whether one of them led to a score."""
        now = time.time()
        self.orders.meet_new_assets()
        self.tally.last_reading = arrival
        self._board.take_rows(rows, now)
        outcomes = self.pipeline.feed(rows, now)
        if len(outcomes):
            self.announcer.take(outcomes)
        return bool(np.isfinite(outcomes.score).any())


def open_bundle(settings: Settings) -> Detector:
    """Load the bundle as the settings want it run.

    Raises:
        ConfigurationError: it cannot be used.
    """
    chosen = settings.bundle
    detector = load_detector(
        chosen.path,
        None if chosen.inference == "auto" else chosen.inference,
        chosen.provider,
        settings.quality.rules,
        settings.alarms.changes,
        settings.adaptation.budget_controller,
        None if chosen.runtime == "auto" else chosen.runtime,
    )
    if chosen.provider == "auto":
        log.info("provider auto: running on %s", detector.forecaster.provider)
    return detector
