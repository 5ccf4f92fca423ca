"""What the daemon's life is whether it works alone or with workers: connection, pages, start, end.

One thread does it all: it drives the connection and drains the outbox. The web pages' threads only read.
"""

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from types import FrameType

from edge_agent import systemd
from edge_agent.agent_connection import AgentConnection
from edge_agent.linger import Linger
from edge_agent.metrics import Facts
from edge_agent.outbox import Outbox
from edge_agent.packets import Messages
from edge_agent.settings import Settings
from edge_agent.watch import Watch
from edge_agent.web import WebServer

log = logging.getLogger(__name__)

# So much is decoded in one turn of the main loop.
_TURN_MESSAGES = 4096
_TURN_BYTES = 2 << 20
# With so many waiting there is nothing to gain by waiting for more.
_ENOUGH_MESSAGES = 2048
_FAREWELL_SECONDS = 5.0


class Life(ABC):
    """One bundle, one broker, many assets.

    Args:
        settings: checked already.
        facts: of the bundle that runs.
        outbox: what is to be published.
        summary: gives words on the assets.
        exposition: gives the metrics.

    Raises:
        ConfigurationError: the metrics address cannot be bound, or a secret or certificate cannot be read.
    """

    def __init__(
        self,
        settings: Settings,
        facts: Facts,
        outbox: Outbox,
        summary: Callable[[], str],
        exposition: Callable[[], bytes],
    ) -> None:
        self._stop = False
        self._running = f"{facts.bundle.name} {facts.bundle.version} on {facts.provider}"
        self.outbox = outbox
        self.connection = AgentConnection(settings, facts.bundle, outbox)
        self._client = self.connection.client
        self._linger = Linger(settings.agent.linger_milliseconds / 1000)
        self._rest_seconds = settings.agent.rest_milliseconds / 1000
        self._turn_seconds = 0.0
        self.watch = Watch(settings.mqtt, self._client, self._running, summary)
        self.web = WebServer(settings.metrics.host, settings.metrics.port, self.watch.pages(exposition))

    def run(self) -> int:
        """Live until asked to stop; returns the exit code."""
        self.startup()
        try:
            return self.main_loop()
        finally:
            self.shutdown()

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

    @abstractmethod
    def main_loop(self) -> int:
        """Process messages as they come, and let time pass, until asked to stop; returns the exit code."""

    @abstractmethod
    def shutdown(self) -> None:
        """Score what has arrived, publish what waits, say farewell."""

    def _take(self) -> list[Messages]:
        return self._client.take(_TURN_MESSAGES, _TURN_BYTES)

    def _wait_for_more(self) -> None:
        """Wait for more messages where that pays, so that they are scored together."""
        before = self._client.waiting
        if 0 < before < _ENOUGH_MESSAGES and (seconds := self._linger.seconds(self._turn_seconds)) > 0.0:
            self._client.pause(seconds)
            self._linger.learn(self._client.waiting - before)

    def _rest(self) -> None:
        """Let messages come in after a turn, where less work is worth more than an early answer."""
        if self._rest_seconds > 0.0 and not self._stop:
            # What the turn had to say goes out before.
            self._client.wait(0.0)
            self._client.pause(self._rest_seconds)

    def _begin_to_stop(self) -> float:
        """Say that the end has begun; returns until when it may take, on the monotonic clock."""
        systemd.stopping()
        log.info("stopping")
        return time.monotonic() + _FAREWELL_SECONDS

    def _empty_outbox(self, deadline: float) -> None:
        while self._client.connected.is_set() and time.monotonic() < deadline:
            self.connection.deliver()
            if not len(self.outbox):
                break
            self._client.wait(0.02)
