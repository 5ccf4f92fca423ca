"""The workers together: messages are divided among them, what they say comes back, their metrics become one.

What was handed out is done when every worker that got a part has replied, and what it had to say is in the outbox by
then: only that may be acknowledged.
"""

import logging
import pickle
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from edge_agent.connection import MqttClient
from edge_agent.crew_member import CrewMember, Handed
from edge_agent.frames import ASK, BEAT, BEAT_FORM, KNOWN, PART, SAID, SCRAPE, Setup, pack, unpack_said
from edge_agent.metrics import Facts
from edge_agent.outbox import OutgoingMessage
from edge_agent.packets import Messages
from edge_agent.settings import Settings
from edge_agent.sorting import Question, Sorter
from edge_agent.tally import Tally
from edge_agent.united import Part, summary, united_exposition

log = logging.getLogger(__name__)

# So many batches are handed out before the first is done: enough that no worker waits for another one.
_MOST_BATCHES = 8
_SCRAPE_SECONDS = 8.0


@dataclass(slots=True)
class _Asked:
    """A question that all workers were asked, and who knew the alarm."""

    question: Question
    handed: Handed
    left: int
    knows: int


@dataclass(slots=True)
class _Scrape:
    """Metrics that somebody waits for in a thread of the web server."""

    parts: list[Part] = field(default_factory=list)
    come: threading.Event = field(default_factory=threading.Event)


class Crew:
    """All workers.

    Args:
        settings: of the agent.
        put: takes what they publish, the events of each asset in order.

    Raises:
        ForewarnError: one of them cannot begin.
    """

    def __init__(self, settings: Settings, put: Callable[[OutgoingMessage], None]) -> None:
        self.tally = Tally()
        self.turn_seconds = 0.0
        """How long a worker took for what it did last."""
        self._put = put
        self._sorter = Sorter(settings, self.tally)
        self._batches: deque[Handed] = deque()
        self._asked: list[deque[_Asked]] = []
        self._scrapes: list[deque[_Scrape]] = []
        self._wanted: deque[_Scrape] = deque()
        self._client: MqttClient | None = None
        self._members: list[CrewMember] = []
        try:
            for worker in range(settings.agent.workers):
                self._members.append(CrewMember(Setup(settings, worker, settings.agent.workers)))
                self._asked.append(deque())
                self._scrapes.append(deque())
            facts = [member.greet() for member in self._members]
            self.facts: Facts = replace(facts[0], started=time.time())
        except BaseException:
            self.close(0.0)
            raise

    @property
    def processes(self) -> list[int]:
        """Return the ids of their processes."""
        return [member.process.pid for member in self._members]

    @property
    def lost(self) -> str:
        """Return which worker is gone and why, or an empty text."""
        return next((member.lost for member in self._members if member.lost), "")

    @property
    def has_room(self) -> bool:
        """Return whether a further batch may be handed out."""
        return len(self._batches) < _MOST_BATCHES

    @property
    def idle(self) -> bool:
        """Return whether everything is done."""
        return not self._batches

    def listen(self, client: MqttClient) -> None:
        """Hear the workers while a connection is driven."""
        self._client = client
        for worker in range(len(self._members)):
            self._follow(worker)

    def hand_out(self, batch: list[Messages]) -> None:
        """Divide a batch among the workers."""
        handed = Handed(batch)
        self._batches.append(handed)
        for worker, part in enumerate(self._sorter.sort(batch)):
            if part:
                self._members[worker].give(handed, part)
                self._follow(worker)
        questions, self._sorter.questions = self._sorter.questions, []
        for question in questions:
            handed.left += 1
            asked = _Asked(question, handed, len(self._members), question.fallback)
            for worker in range(len(self._members)):
                self._asked[worker].append(asked)
                self._send(worker, pack(ASK, question.alarm_id.encode("utf-8", "surrogatepass")))

    def done(self) -> list[list[Messages]]:
        """Return the batches that are done and were not returned yet; none before an earlier one."""
        done = []
        while self._batches and not self._batches[0].left:
            done.append(self._batches.popleft().messages)
        return done

    def beaten(self) -> bool:
        """Return whether every worker went round since this was last true."""
        if not all(member.beaten for member in self._members):
            return False
        for member in self._members:
            member.beaten = False
        return True

    def summary(self) -> str:
        """Return in a line how many assets there are, and how many in alarm."""
        return summary(
            sum(member.assets for member in self._members), sum(member.active for member in self._members)
        )

    def exposition(self) -> bytes:
        """Return the metrics of all; from any thread but the main loop's, which asks the workers for them.

        Raises:
            TimeoutError: a worker does not answer.
        """
        scrape = _Scrape()
        self._wanted.append(scrape)
        if self._client is not None:
            self._client.wake()
        if not scrape.come.wait(_SCRAPE_SECONDS):
            raise TimeoutError("a worker does not answer")
        order = list(self._sorter.assets)
        return united_exposition(self.facts, self.tally, scrape.parts, order, self.processes)

    def ask_for_metrics(self) -> None:
        """Ask the workers for what somebody waits for; called by the main loop."""
        while self._wanted:
            scrape = self._wanted.popleft()
            for worker in range(len(self._members)):
                self._scrapes[worker].append(scrape)
                self._send(worker, pack(SCRAPE))

    def close(self, seconds: float) -> None:
        """End all workers, by force those that take longer."""
        deadline = time.monotonic() + seconds
        for member in self._members:
            if self._client is not None:
                self._client.unfollow(member.descriptor)
            member.say_goodbye()
        for member in self._members:
            member.end(max(deadline - time.monotonic(), 0.0))

    def _send(self, worker: int, frame: bytes) -> None:
        self._members[worker].send(frame)
        self._follow(worker)

    def _follow(self, worker: int) -> None:
        """Listen to a worker, and learn when it can take more if there is more for it."""
        member = self._members[worker]
        if self._client is not None and not member.lost:
            self._client.follow(member.descriptor, lambda: self._serve(worker), member.has_unsent)

    def _serve(self, worker: int) -> None:
        member = self._members[worker]
        had_unsent = member.has_unsent
        member.flush()
        member.receive(lambda kind, body: self._take(worker, kind, body))
        if member.lost and self._client is not None:
            self._client.unfollow(member.descriptor)
        elif had_unsent != member.has_unsent:
            self._follow(worker)

    def _take(self, worker: int, kind: bytes, body: bytes) -> None:
        member = self._members[worker]
        if kind == SAID:
            said = unpack_said(body)
            for message in said.messages:
                self._put(message)
            for _ in range(said.done):
                member.owed.popleft().left -= 1
            if said.done:
                self.turn_seconds = said.seconds
        elif kind == BEAT:
            member.assets, member.active = BEAT_FORM.unpack(body)
            member.beaten = True
        elif kind == KNOWN:
            self._heed(worker, bool(body[0]))
        elif kind == PART:
            scrape = self._scrapes[worker].popleft()
            scrape.parts.append(pickle.loads(body))
            if len(scrape.parts) == len(self._members):
                scrape.come.set()

    def _heed(self, worker: int, knows: bool) -> None:
        """Take in whether a worker knows an alarm; when all have said so, the command goes to the one that does."""
        asked = self._asked[worker].popleft()
        asked.left -= 1
        if knows:
            asked.knows = worker
        if not asked.left:
            self._members[asked.knows].give(asked.handed, [asked.question.message])
            self._follow(asked.knows)
            asked.handed.left -= 1
