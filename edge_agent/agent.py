"""The daemon's life: start, main loop, end.

One thread does all the work: it drives the connection, decodes, feeds the pipeline, puts events into the outbox and
drains it. The web pages' threads only read.
"""

import logging
import signal
import sys
import time
from types import FrameType

from edge_agent import systemd
from edge_agent.agent_connection import AgentConnection
from edge_agent.detector import Detector, load_detector
from edge_agent.feedback import Feedback
from edge_agent.feedback_file import feedback_file
from edge_agent.linger import Linger
from edge_agent.outbox import Outbox
from edge_agent.packets import Messages
from edge_agent.settings import Settings
from edge_agent.turns import Turns
from edge_agent.watch import Watch
from edge_agent.web import WebServer

log = logging.getLogger(__name__)

# So much is decoded in one turn of the main loop.
_TURN_MESSAGES = 4096
_TURN_BYTES = 2 << 20
# With so many waiting there is nothing to gain by waiting for more.
_ENOUGH_MESSAGES = 2048
_FAREWELL_SECONDS = 5.0


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
        self._stop = False
        manifest = detector.bundle.manifest
        self._running = f"{manifest.name} {manifest.version} on {detector.forecaster.provider}"
        file = feedback_file(settings)
        feedback = Feedback() if file is None else file.read()
        self.outbox = Outbox(settings.agent.outbox_messages)
        self.turns = Turns(settings, detector, file, feedback, self.outbox.put)
        self.connection = AgentConnection(settings, self.turns.bundle, self.outbox)
        self._client = self.connection.client
        self._linger = Linger(settings.agent.linger_milliseconds / 1000)
        self._next_tick = 0.0
        self._turn_seconds = 0.0
        self.watch = Watch(settings.mqtt, self._client, self._running, self.turns.summary)
        self.web = WebServer(
            settings.metrics.host, settings.metrics.port, self.watch.pages(self.turns.metrics.exposition)
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
        self.watch.started.set()
        log.info("bundle %s; metrics at %s", self._running, self.web.address)
        systemd.ready(f"bundle {self._running}")

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
            self.connection.deliver()
            self.connection.refresh(self.turns.tally)

    def _process(self, batch: list[Messages]) -> None:
        self.turns.process(batch, self._between)
        self.connection.owe(batch)

    def _between(self) -> None:
        # Neither the broker nor the watchdog waits for the last of many readings.
        self._client.wait(0.0)
        self._tick_if_due()

    def _tick_if_due(self) -> None:
        if time.monotonic() >= self._next_tick:
            self._next_tick = time.monotonic() + self.turns.tick_seconds
            self.turns.tick()
            self.watch.beat()

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
            self.connection.deliver()
            if not len(self.outbox):
                break
            self._client.wait(0.02)
        self._client.stop(max(deadline - time.monotonic(), 1.0))
        self.connection.refresh(self.turns.tally)
        self.turns.orders.keep_if_changed()
        self.web.stop()


def open_agent(settings: Settings) -> Agent:
    """Load the bundle and build the agent.

    Raises:
        ConfigurationError: the bundle or a setting cannot be used.
    """
    return Agent(settings, open_bundle(settings))


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
