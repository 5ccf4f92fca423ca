"""The daemon in one process: its main loop, and what starts it.

One thread does all the work: it drives the connection, decodes, feeds the pipeline, puts events into the outbox and
drains it. With `agent.workers` above 1 the scoring is elsewhere, see `crew_agent.py`.
"""

import logging
import signal
import sys
import time

from edge_agent.detector import Detector
from edge_agent.feedback import Feedback
from edge_agent.feedback_file import feedback_file
from edge_agent.feedback_shares import arrange
from edge_agent.life import Life
from edge_agent.outbox import Outbox
from edge_agent.packets import Messages
from edge_agent.settings import Settings
from edge_agent.turns import Turns, open_bundle


class Agent(Life):
    """The daemon that scores in its own process.

    Args:
        settings: checked already.
        detector: with the bundle loaded and proven.

    Raises:
        ConfigurationError: see `Life`, or feedback has no place where it can be kept.
    """

    def __init__(self, settings: Settings, detector: Detector) -> None:
        outbox = Outbox(settings.agent.outbox_messages)
        file = feedback_file(settings)
        if file is not None:
            arrange(file.path.parent, 1)
        feedback = Feedback() if file is None else file.read()
        self.turns = Turns(settings, detector, file, feedback, outbox.put)
        self._next_tick = 0.0
        super().__init__(
            settings, self.turns.facts, outbox, self.turns.summary, self.turns.metrics.exposition
        )

    def main_loop(self) -> int:
        """Process messages as they come, and let time pass, until asked to stop; returns the exit code."""
        while not self._stop:
            if self._client.wait(max(self._next_tick - time.monotonic(), 0.0)):
                self._wait_for_more()
            if batch := self._take():
                begun = time.monotonic()
                self._process(batch)
                self._turn_seconds = time.monotonic() - begun
            self._tick_if_due()
            self.connection.deliver()
            self.connection.refresh(self.turns.tally)
            if batch:
                self._rest()
        return 0

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

    def shutdown(self) -> None:
        """Score what has arrived, publish what waits, say farewell."""
        deadline = self._begin_to_stop()
        while time.monotonic() < deadline and (batch := self._take()):
            self._process(batch)
        self._empty_outbox(deadline)
        self._client.stop(max(deadline - time.monotonic(), 1.0))
        self.connection.refresh(self.turns.tally)
        self.turns.orders.keep_if_changed()
        self.web.stop()


def open_agent(settings: Settings) -> Agent:
    """Load the bundle and build the agent that scores in its own process.

    Raises:
        ConfigurationError: the bundle or a setting cannot be used.
    """
    return Agent(settings, open_bundle(settings))


def run(settings: Settings) -> int:
    """Run the daemon until SIGTERM or SIGINT; returns the exit code.

    Raises:
        ConfigurationError: the bundle or a setting cannot be used.
    """
    logging.basicConfig(
        level=settings.agent.log_level.upper(), format="%(levelname)s %(message)s", stream=sys.stderr
    )
    agent: Life
    if settings.agent.workers > 1:
        # What starts workers is not loaded where there are none.
        from edge_agent.crew_agent import open_crew

        agent = open_crew(settings)
    else:
        agent = open_agent(settings)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, agent.handle_signal)
    return agent.run()
