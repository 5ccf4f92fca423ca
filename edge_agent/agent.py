"""The daemon's life: start, main loop, end.

One thread does all the work: it drives the connection, decodes, feeds the pipeline, puts events into the outbox and
drains it. The web pages' threads only read.
"""

import logging
import signal
import sys
import threading
import time
from types import FrameType
from typing import Any

import numpy as np

from edge_agent import systemd
from edge_agent.alarm_desk import REASONS, AlarmDesk, Notice
from edge_agent.board import AssetBoard
from edge_agent.commands import CommandDesk
from edge_agent.contract.types import DriftEvent, Outcomes, QualityEvent, Rows
from edge_agent.detector import Detector, load_detector
from edge_agent.events import BundleIdentity, EventWriter, rfc3339, status_payload, to_json
from edge_agent.feedback import Feedback, Remark
from edge_agent.feedback_file import feedback_file
from edge_agent.intake import Intake, OwnMessage
from edge_agent.linger import Linger
from edge_agent.metrics import CONTENT_TYPE, AgentMetrics, Facts, Tally
from edge_agent.mqtt import MqttClient, Subscription
from edge_agent.operator_actions import OperatorActions
from edge_agent.outbox import Outbox, OutgoingMessage
from edge_agent.packets import Messages
from edge_agent.pipeline import Pipeline
from edge_agent.settings import Settings
from edge_agent.topics import OutputTopics
from edge_agent.version import VERSION
from edge_agent.web import Pages, WebServer

log = logging.getLogger(__name__)

# One turn of the main loop: so much is decoded, and so many rows are scored in one call. The connection is not looked
# after during a call, and rows of one asset are slow, since each waits for the one before it: few assets get less.
_TURN_MESSAGES = 4096
_TURN_BYTES = 2 << 20
_MOST_ROWS = 8192
_MOST_ROWS_AN_ASSET = 1024
# With so many waiting there is nothing to gain by waiting for more.
_ENOUGH_MESSAGES = 2048
_LONGEST_TICK_SECONDS = 1.0
_SILENT_SECONDS = 30.0
_FAREWELL_SECONDS = 5.0
_EXTRA_GRACE_TICKS = 10
# Alarms come in bursts and each changes what is kept; commands do not wait for this.
_KEEP_SECONDS = 10.0


class Agent:
    """One bundle, one broker, many assets.

    Args:
        settings: checked already.
        detector: with the bundle loaded and proven.

    Raises:
        ConfigurationError: the metrics address cannot be bound, a secret or certificate cannot be read, or feedback
            has no place where it can be kept.
    """

    def __init__(self, settings: Settings, detector: Detector) -> None:
        self._settings = settings
        self._started = time.time()
        self._stop = False
        self._beat = time.monotonic()
        self.started = threading.Event()
        manifest = detector.bundle.manifest
        self.bundle = BundleIdentity(manifest.name, manifest.version, detector.bundle.sha256)
        self.pipeline = Pipeline(
            detector,
            settings.grid.allowed_lateness_ticks,
            settings.agent.max_assets,
            settings.quality.max_future_seconds,
        )
        self.tally = Tally()
        self._provider = detector.forecaster.provider
        self._tick_seconds = min(_LONGEST_TICK_SECONDS, manifest.sampling_interval_seconds)
        self._topics = OutputTopics(settings.mqtt.base_topic, settings.mqtt.node)
        self._alarm_prefix = self._topics.alarm("")
        own = (self._alarm_prefix, self._topics.commands)
        self._intake = Intake(settings.mqtt.inputs, self.pipeline, self.tally, own)
        self._linger = Linger(settings.agent.linger_milliseconds / 1000)
        self._writer = EventWriter(self.bundle)
        self._outbox = Outbox(settings.agent.outbox_messages)
        self._feedback_file = feedback_file(settings)
        self._feedback = Feedback() if self._feedback_file is None else self._feedback_file.read()
        self._kept = time.monotonic()
        self._desk = AlarmDesk(self._feedback, self.pipeline.sensors, self.bundle.sha256)
        self._operator = OperatorActions(self._feedback, self._desk, self.pipeline)
        self._commands = CommandDesk(
            self._topics.commands,
            self._operator.actions,
            self._feedback,
            settings.control.max_age_seconds,
            self._keep,
        )
        self._assets_known = 0
        self._next_tick = 0.0
        self._turn_seconds = 0.0
        self._active_topics: set[str] = set()
        self._board = AssetBoard(len(self.pipeline.sensors))
        self._metrics = self._make_metrics(detector)
        self._client = self._make_client()
        self.web = WebServer(settings.metrics.host, settings.metrics.port, self._pages())
        self._seed_counters()

    def _make_metrics(self, detector: Detector) -> AgentMetrics:
        manifest = detector.bundle.manifest
        lateness = self._settings.grid.allowed_lateness_ticks
        grace_ticks = manifest.warmup_ticks + lateness + _EXTRA_GRACE_TICKS
        facts = Facts(
            bundle=self.bundle,
            provider=self._provider,
            sensors=self.pipeline.sensors,
            statistic_threshold=manifest.threshold.value,
            grace_seconds=grace_ticks * manifest.sampling_interval_seconds,
            started=self._started,
            max_series_assets=self._settings.metrics.max_series_assets,
        )
        return AgentMetrics(
            facts,
            self.tally,
            self._board,
            self.pipeline.assets,
            lambda: self.pipeline.rejected,
            lambda: self.pipeline.quality,
        )

    def _make_client(self) -> MqttClient:
        mqtt = self._settings.mqtt
        subscriptions = [Subscription(topic, qos) for topic, qos in self._intake.subscriptions()]
        # The agent reads its own retained alarms back, to clear those of a life that ended without doing so.
        subscriptions.append(Subscription(f"{self._alarm_prefix}+", 1, retained=True))
        if self._settings.control.enabled:
            # What was asked for while the agent was away is retained; its age and its id decide.
            subscriptions.append(Subscription(f"{self._topics.commands}+/+", 1, retained=True))

        def status(state: str, now: float | None) -> bytes:
            return to_json(status_payload(state, mqtt.node, self.bundle, now))

        agent = self._settings.agent
        return MqttClient(
            mqtt,
            subscriptions,
            self._topics.status,
            status,
            agent.inbox_messages,
            agent.inbox_megabytes << 20,
        )

    def _seed_counters(self) -> None:
        for severity in ("warning", "critical"):
            for kind in ("start", "update", "end"):
                self.tally.alarm_events[severity, kind] = 0
        self.tally.unscored.update({"warming_up": 0, "no_reading": 0, "off": 0})
        self.tally.suppressed.update(dict.fromkeys(REASONS, 0))

    def _pages(self) -> Pages:
        return Pages(self._metrics.exposition, CONTENT_TYPE, self._unhealthy, self._unready, self._summary)

    def _unhealthy(self) -> str:
        silent = time.monotonic() - self._beat
        return f"the main loop has been silent for {silent:.0f} s" if silent > _SILENT_SECONDS else ""

    def _unready(self) -> str:
        if not self.started.is_set():
            return "starting"
        if not self._client.subscribed.is_set():
            return f"not subscribed at the broker ({self._client.last_error or 'connecting'})"
        return ""

    def _summary(self) -> str:
        return (
            f"Forewarn edge agent {VERSION}\n"
            f"bundle {self.bundle.name} {self.bundle.version} on {self._provider}\n"
            f"broker {self._settings.mqtt.host}:{self._settings.mqtt.port}: {self._unready() or 'connected'}\n"
            f"assets {len(self.pipeline.assets)}, in alarm {len(self._active_topics)}\n"
            "pages: /metrics /-/healthy /-/ready\n"
        )

    def run(self) -> int:
        """Live until asked to stop; returns the exit code."""
        self.startup()
        try:
            self.main_loop()
        finally:
            self.shutdown()
        return 0

    def startup(self) -> None:
        """Serve the pages, begin to connect, and tell systemd; a broker that is not there is waited for."""
        self.web.start()
        self._client.start()
        self.started.set()
        log.info(
            "bundle %s %s on %s; metrics at %s",
            self.bundle.name,
            self.bundle.version,
            self._provider,
            self.web.address,
        )
        systemd.ready(f"bundle {self.bundle.name} {self.bundle.version}")

    def request_stop(self) -> None:
        """Ask for the end, from any thread but not from a signal handler."""
        self._stop = True
        self._client.wake()

    def handle_signal(self, _number: int, _frame: FrameType | None) -> None:
        """Ask for the end; takes no lock, because the main thread may hold any right now."""
        self._stop = True
        self._client.wake()

    def main_loop(self) -> None:
        """Process messages as they come, and let time pass, until asked to stop."""
        while not self._stop:
            if self._client.wait(max(self._next_tick - time.monotonic(), 0.0)):
                self._wait_for_more()
            if batch := self._client.take(_TURN_MESSAGES, _TURN_BYTES):
                begun = time.monotonic()
                self._process(batch)
                self._turn_seconds = time.monotonic() - begun
            self._tick_if_due()
            self._outbox.drain(self._client.publish)
            self._refresh_tally()

    def _tick_if_due(self) -> None:
        if time.monotonic() >= self._next_tick:
            self._next_tick = time.monotonic() + self._tick_seconds
            self._tick()

    def _wait_for_more(self) -> None:
        """Wait for more messages where that pays, so that they are scored together."""
        before = self._client.waiting
        if 0 < before < _ENOUGH_MESSAGES and (seconds := self._linger.seconds(self._turn_seconds)) > 0.0:
            self._client.pause(seconds)
            self._linger.learn(self._client.waiting - before)

    def shutdown(self) -> None:
        """Score what has arrived, publish what waits, say farewell."""
        systemd.stopping()
        log.info("stopping")
        deadline = time.monotonic() + _FAREWELL_SECONDS
        while time.monotonic() < deadline:
            batch = self._client.take(_TURN_MESSAGES, _TURN_BYTES)
            if not batch:
                break
            self._process(batch)
        while self._client.connected.is_set() and time.monotonic() < deadline:
            self._outbox.drain(self._client.publish)
            if not len(self._outbox):
                break
            self._client.wait(0.02)
        self._client.stop(max(deadline - time.monotonic(), 1.0))
        self._refresh_tally()
        self._keep_if_changed()
        self.web.stop()

    def _process(self, batch: list[Messages]) -> None:
        scored = False
        limit = min(_MOST_ROWS, _MOST_ROWS_AN_ASSET * max(len(self.pipeline.assets), 1))
        for rows in self._intake.blocks(batch, limit):
            scored |= self._feed(rows, batch[-1].arrival)
            if len(rows) == limit:
                # There may be many more: neither the broker nor the watchdog waits for the last of them.
                self._client.wait(0.0)
                self._tick_if_due()
        self._meet_new_assets()
        own, self._intake.own = self._intake.own, []
        for message in own:
            if message.topic.startswith(self._alarm_prefix):
                self._clear_if_stale(message)
            else:
                self._command(message)
        if scored:
            done = time.monotonic()
            for messages in batch:
                self._metrics.observe_latency(done - messages.clock, len(messages))
        self._client.acknowledge(batch)

    def _feed(self, rows: Rows, arrival: float) -> bool:
        """Score rows; returns whether one of them led to a score."""
        now = time.time()
        self._meet_new_assets()
        self.tally.last_reading = arrival
        self._board.take_rows(rows, now)
        outcomes = self.pipeline.feed(rows, now)
        if len(outcomes):
            self._publish(outcomes)
        return bool(np.isfinite(outcomes.score).any())

    def _meet_new_assets(self) -> None:
        """Tell the detector of the maintenance that is in force for assets that were just heard of."""
        for asset in self.pipeline.assets[self._assets_known :]:
            self._operator.apply_maintenance(asset)
        self._assets_known = len(self.pipeline.assets)

    def _command(self, message: OwnMessage) -> None:
        if not self._settings.control.enabled:
            return
        handled = self._commands.take(message.topic, message.payload, message.retained, time.time())
        if handled is None:
            return
        self.tally.commands[handled.name, handled.result] += 1
        self._publish_notices(handled.notices)
        for answer in handled.answers:
            self._outbox.put(
                OutgoingMessage(answer.topic, answer.payload, self._settings.mqtt.qos, retain=True)
            )
        self._refresh_board()
        log.info("command %r: %s", message.topic.removeprefix(self._topics.commands), handled.result)

    def _keep(self) -> None:
        """Put feedback on disk; raises OSError."""
        if self._feedback_file is not None:
            self._feedback_file.write(self._feedback)
        self._kept = time.monotonic()

    def _keep_if_changed(self) -> None:
        if not self._feedback.changed:
            return
        try:
            self._keep()
        except OSError as error:
            # Tried again as long as it is not kept.
            self._kept = time.monotonic()
            log.error("feedback could not be kept: %s", error.strerror)  # noqa: TRY400 - one line

    def _refresh_board(self) -> None:
        """Put what operators said of the assets where the metrics find it."""
        now, feedback, hidden = time.time(), self._feedback, self._desk.hidden
        said = [
            (row, asset)
            for asset in {*feedback.state.assets, *hidden}
            if (row := self.pipeline.known_row(asset)) is not None
        ]
        self._board.take_feedback(
            [row for row, asset in said if asset in hidden],
            [row for row, asset in said if feedback.is_muted(asset, now)],
            [row for row, asset in said if feedback.in_maintenance(asset, now)],
        )

    def _tick(self) -> None:
        self._beat = time.monotonic()
        now = time.time()
        self._publish(self.pipeline.advance(now))
        self._publish_notices(self._desk.refresh_all(now))
        self._refresh_board()
        if time.monotonic() - self._kept >= _KEEP_SECONDS:
            self._keep_if_changed()
        systemd.alive(f"{len(self.pipeline.assets)} assets, {len(self._active_topics)} in alarm")

    def _publish(self, outcomes: Outcomes) -> None:
        """Note what scoring said, and put its events into the outbox."""
        now = time.time()
        for event in outcomes.events:
            self._publish_notices(self._desk.take(event, self.pipeline.assets[event.asset], now))
        if outcomes.events:
            self._refresh_board()
        self._board.take_outcomes(outcomes)
        self._count(outcomes)
        for found in outcomes.quality:
            self._publish_quality(found)
        for advice in outcomes.advice:
            self._publish_advice(advice)

    def _count(self, outcomes: Outcomes) -> None:
        scored = int(np.count_nonzero(np.isfinite(outcomes.score)))
        self.tally.scored += scored
        if scored == len(outcomes):
            return
        off = 0 if outcomes.off is None else int(np.count_nonzero(outcomes.off))
        unforeseen = int(np.count_nonzero(~np.isfinite(outcomes.forecast).any(axis=1))) - off
        self.tally.unscored["off"] += off
        self.tally.unscored["warming_up"] += unforeseen
        self.tally.unscored["no_reading"] += max(len(outcomes) - scored - unforeseen - off, 0)

    def _publish_advice(self, event: DriftEvent) -> None:
        asset = self.pipeline.assets[event.asset]
        self.tally.advised += 1
        payload = to_json(self._writer.write_advice(event, asset))
        self._outbox.put(OutgoingMessage(self._topics.event(asset), payload, self._settings.mqtt.qos))
        worst = event.sensors[0]
        log.warning(
            "retrain advised: %s, drift %.1f, %s of %s", asset, event.drift, worst.measure, worst.name
        )

    def _publish_quality(self, event: QualityEvent) -> None:
        asset = self.pipeline.assets[event.asset]
        self._board.take_quality(event)
        payload = to_json(self._writer.write_quality(event, asset))
        self._outbox.put(OutgoingMessage(self._topics.event(asset), payload, self._settings.mqtt.qos))
        named = ", ".join(f"{one.name or 'the whole asset'} {one.reason}" for one in event.sensors)
        log.warning("data quality %s: %s, %s", event.phase, asset, named)

    def _publish_notices(self, notices: list[Notice]) -> None:
        for notice in notices:
            if notice.hidden is None:
                self._publish_alarm(notice)
            else:
                self._publish_suppressed(notice)

    def _publish_alarm(self, notice: Notice) -> None:
        event, asset = notice.event, notice.asset
        payload = to_json(self._writer.write(event, asset, _seen(notice.acknowledged)))
        qos = self._settings.mqtt.qos
        self.tally.alarm_events[event.severity, event.kind] += 1
        self._outbox.put(OutgoingMessage(self._topics.event(asset), payload, qos))
        if event.kind == "end":
            self._clear_alarm(asset)
            if event.end_reason is not None:
                self._board.end_alarm(event.asset)
        else:
            alarm_topic = self._topics.alarm(asset)
            self._active_topics.add(alarm_topic)
            self._outbox.put(OutgoingMessage(alarm_topic, payload, qos, retain=True))
        log.warning("%s alarm %s: %s, score %.2f", event.severity, event.kind, asset, event.score)

    def _publish_suppressed(self, notice: Notice) -> None:
        event, asset, phase = notice.event, notice.asset, notice.hidden or ""
        payload = to_json(
            self._writer.write_suppressed(event, asset, phase, notice.reason, notice.look_alike_of)
        )
        self._outbox.put(OutgoingMessage(self._topics.event(asset), payload, self._settings.mqtt.qos))
        if phase == "start":
            self.tally.suppressed[notice.reason or ""] += 1
            self._clear_alarm(asset)
        log.info("alarm suppressed, %s: %s, %s, score %.2f", phase, asset, notice.reason, event.score)

    def _clear_alarm(self, asset: str) -> None:
        """Clear the retained alarm of an asset, if there is one."""
        alarm_topic = self._topics.alarm(asset)
        if alarm_topic in self._active_topics:
            self._active_topics.discard(alarm_topic)
            self._outbox.put(OutgoingMessage(alarm_topic, b"", self._settings.mqtt.qos, retain=True))

    def _clear_if_stale(self, message: OwnMessage) -> None:
        """Clear a retained alarm that this life does not know; what is not retained is the echo of its own."""
        if message.retained and message.payload and message.topic not in self._active_topics:
            self._outbox.put(OutgoingMessage(message.topic, b"", self._settings.mqtt.qos, retain=True))

    def _refresh_tally(self) -> None:
        tally, client = self.tally, self._client
        tally.connected = client.connected.is_set()
        tally.connects = client.connects
        tally.outbox_pending = len(self._outbox) + client.unacknowledged
        tally.outbox_dropped = self._outbox.dropped
        tally.published = client.published
        tally.rejected["overrun"] = client.overrun
        tally.held_back = self.pipeline.detector.held_back


def _seen(remark: Remark | None) -> dict[str, Any] | None:
    return None if remark is None else {"by": remark.by, "time": rfc3339(remark.at), "note": remark.note}


def open_agent(settings: Settings) -> Agent:
    """Load the bundle and build the agent.

    Raises:
        ConfigurationError: the bundle or a setting cannot be used.
    """
    inference = None if settings.bundle.inference == "auto" else settings.bundle.inference
    chosen = settings.bundle
    detector = load_detector(
        chosen.path,
        inference,
        chosen.provider,
        settings.quality.rules,
        settings.alarms.changes,
        settings.adaptation.budget_controller,
    )
    if settings.bundle.provider == "auto":
        log.info("provider auto: running on %s", detector.forecaster.provider)
    return Agent(settings, detector)


def run(settings: Settings) -> int:
    """Run the daemon until SIGTERM or SIGINT; returns the exit code.

    Raises:
        ConfigurationError: the bundle or a setting cannot be used.
    """
    logging.basicConfig(
        level=settings.agent.log_level.upper(), format="%(levelname)s %(message)s", stream=sys.stderr
    )
    agent = open_agent(settings)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, agent.handle_signal)
    return agent.run()
