"""The daemon with workers: this process has the connection, the outbox and the pages, the workers score.

Whatever ends a worker ends the daemon, so that what supervises it starts all of it anew; while a worker does not go
round, nobody is told that the daemon is alive.
"""

import logging
import time

from edge_agent.crew import Crew
from edge_agent.feedback_file import feedback_file
from edge_agent.feedback_shares import arrange
from edge_agent.life import Life
from edge_agent.outbox import Outbox
from edge_agent.settings import Settings

log = logging.getLogger(__name__)

_WAIT_SECONDS = 1.0
# What waits for the broker when a worker was lost; the rest comes again with the messages that are not acknowledged.
_LAST_SECONDS = 1.0
_END_SECONDS = 2.0


class CrewAgent(Life):
    """The daemon that has others score.

    Args:
        settings: checked already; with more than one worker.

    Raises:
        ForewarnError: a worker cannot begin, for the same reasons as `Agent`; or see `Life`.
    """

    def __init__(self, settings: Settings) -> None:
        outbox = Outbox(settings.agent.outbox_messages)
        file = feedback_file(settings)
        if file is not None:
            arrange(file.path.parent, settings.agent.workers)
        self.crew = Crew(settings, outbox.put)
        try:
            super().__init__(settings, self.crew.facts, outbox, self.crew.summary, self.crew.exposition)
        except BaseException:
            self.crew.close(_END_SECONDS)
            raise
        self.crew.listen(self._client)

    def run(self) -> int:
        """Live until asked to stop or a worker is lost, in the farewell too; returns the exit code."""
        code = super().run()
        if self.crew.lost and not code:
            log.error("%s in the farewell; what it had not scored comes again", self.crew.lost)
        return 1 if self.crew.lost else code

    def main_loop(self) -> int:
        """Hand out messages as they come, and what the workers say, until asked to stop; returns the exit code."""
        while not self._stop:
            if lost := self.crew.lost:
                log.error("%s; the agent ends, to be started anew", lost)
                return 1
            # Messages wait in the inbox while the workers are behind: it is bounded, and says what it loses.
            hungry = self.crew.has_room
            if self._client.wait(_WAIT_SECONDS, hungry) and hungry:
                self._turn_seconds = self.crew.turn_seconds
                self._wait_for_more()
            if self.crew.has_room and (batch := self._take()):
                self.crew.hand_out(batch)
                self._look_after()
                self._rest()
            self._look_after()
        return 0

    def _look_after(self) -> None:
        for batch in self.crew.done():
            self.connection.owe(batch)
        self.crew.ask_for_metrics()
        if self.crew.beaten():
            self.watch.beat()
        self.connection.deliver()
        self.connection.refresh(self.crew.tally)

    def shutdown(self) -> None:
        """Have scored what has arrived, publish what waits, say farewell; say nothing where a worker was lost."""
        deadline = self._begin_to_stop()
        if self.crew.lost:
            # The last will is the truth: this is no clean end.
            self._empty_outbox(min(deadline, time.monotonic() + _LAST_SECONDS))
        else:
            self._finish(deadline)
            self._client.stop(max(deadline - time.monotonic(), 1.0))
        self.connection.refresh(self.crew.tally)
        self.crew.close(max(deadline - time.monotonic(), _END_SECONDS))
        self.web.stop()

    def _finish(self, deadline: float) -> None:
        while time.monotonic() < deadline and not self.crew.lost:
            if self.crew.has_room and (batch := self._take()):
                self.crew.hand_out(batch)
            self._look_after()
            if self.crew.idle and not self._client.waiting:
                break
            self._client.wait(0.05, self.crew.has_room)
        self._empty_outbox(deadline)


def open_crew(settings: Settings) -> CrewAgent:
    """Start the workers and build the agent with them.

    Raises:
        ForewarnError: the bundle or a setting cannot be used.
    """
    return CrewAgent(settings)
