"""A worker: a process with a detector of its own for some of the assets, at the end of a pipe.

It knows no broker: messages come in frames, and what is to be published goes back with the word that they are done. It
ends when the pipe does.
"""

import gc
import logging
import pickle
import select
import socket
import sys
import time
from collections import deque

from edge_agent.contract.errors import ForewarnError
from edge_agent.feedback import Feedback
from edge_agent.feedback_file import feedback_file
from edge_agent.feedback_shares import share_name
from edge_agent.frames import (
    ASK,
    BATCH,
    BEAT,
    BEAT_FORM,
    KNOWN,
    PART,
    READY,
    REFUSED,
    SAID,
    SCRAPE,
    SETUP,
    FrameReader,
    Said,
    Setup,
    pack,
    pack_said,
    unpack_batch,
)
from edge_agent.outbox import OutgoingMessage
from edge_agent.packets import Messages
from edge_agent.turns import Turns, open_bundle

log = logging.getLogger(__name__)

_READ_BYTES = 1 << 20
# So many messages of batches that wait are scored in one turn: a call costs much the same for one as for many.
_TURN_MESSAGES = 4096


class Worker:
    """Works off what comes through a pipe.

    Args:
        pipe: to the process with the connection.
        setup: what it is told.

    Raises:
        ForewarnError: the bundle or a setting cannot be used.
    """

    def __init__(self, pipe: socket.socket, setup: Setup) -> None:
        settings = setup.settings
        file = feedback_file(settings, share_name(setup.worker, setup.workers))
        feedback = Feedback() if file is None else file.read()
        self._said = Said()
        self.turns = Turns(settings, open_bundle(settings), file, feedback, self._put)
        self._pipe = pipe
        self._poll = select.poll()
        self._poll.register(pipe, select.POLLIN)
        self._reader = FrameReader()
        self._batches: deque[list[Messages]] = deque()
        self._next_tick = 0.0
        self._ended = False

    def run(self) -> None:
        """Say that it can begin, work until the pipe ends, then keep what is to be kept."""
        self._send(READY, pickle.dumps(self.turns.facts))
        try:
            # What waits when the pipe ends will come again: nobody can acknowledge it any more.
            while not self._ended:
                idle = 0.0 if self._batches else max(self._next_tick - time.monotonic(), 0.0)
                self._read(idle)
                if self._batches and not self._ended:
                    self._work()
                self._tick_if_due()
        finally:
            self.turns.orders.keep_if_changed()

    def _put(self, message: OutgoingMessage) -> None:
        self._said.messages.append(message)

    def _read(self, timeout: float) -> None:
        """Take in what has arrived, waiting up to `timeout` seconds for it; questions are answered at once."""
        if not self._poll.poll(timeout * 1000.0):
            return
        data = self._pipe.recv(_READ_BYTES)
        self._ended = not data
        for kind, body in self._reader.feed(data):
            if kind == BATCH:
                self._batches.append(unpack_batch(body))
            elif kind == SCRAPE:
                self._send(PART, pickle.dumps(self.turns.part()))
            elif kind == ASK:
                known = self.turns.knows_alarm(body.decode("utf-8", "surrogatepass"))
                self._send(KNOWN, bytes([known]))

    def _work(self) -> None:
        """Work off batches that wait."""
        begun = time.monotonic()
        batch: list[Messages] = []
        done = count = 0
        while self._batches and count < _TURN_MESSAGES:
            part = self._batches.popleft()
            batch += part
            count += sum(map(len, part))
            done += 1
        self.turns.process(batch, self._between)
        self._said.done, self._said.seconds = done, time.monotonic() - begun
        self._say()

    def _between(self) -> None:
        # Neither an alarm nor whoever asks for metrics waits for the last of many readings.
        self._read(0.0)
        self._tick_if_due()
        self._say()

    def _tick_if_due(self) -> None:
        if time.monotonic() >= self._next_tick:
            self._next_tick = time.monotonic() + self.turns.tick_seconds
            self.turns.tick()
            self._say()
            self._send(
                BEAT, BEAT_FORM.pack(len(self.turns.pipeline.assets), len(self.turns.announcer.active))
            )

    def _say(self) -> None:
        said = self._said
        if said.done or said.messages:
            self._send(SAID, pack_said(said))
            said.done, said.messages = 0, []

    def _send(self, kind: bytes, body: bytes) -> None:
        self._pipe.sendall(pack(kind, body))


def _setup(pipe: socket.socket) -> Setup | None:
    """Return what the worker is told; None where the pipe ends before."""
    reader = FrameReader()
    while data := pipe.recv(_READ_BYTES):
        for kind, body in reader.feed(data):
            assert kind == SETUP, kind
            setup: Setup = pickle.loads(body)
            return setup
    return None


def main(descriptor: int) -> int:
    """Be a worker at the end of a pipe; returns the exit code."""
    with socket.socket(fileno=descriptor) as pipe:
        setup = _setup(pipe)
        if setup is None:
            return 1
        logging.basicConfig(
            level=setup.settings.agent.log_level.upper(),
            format="%(levelname)s %(message)s",
            stream=sys.stderr,
        )
        try:
            worker = Worker(pipe, setup)
            # What is imported and loaded stays.
            gc.freeze()
            gc.enable()
            worker.run()
        except ForewarnError as error:
            pipe.sendall(pack(REFUSED, pickle.dumps(error)))
            return error.exit_code
        except (BrokenPipeError, ConnectionResetError):
            # The process with the connection is gone; whoever started it knows why.
            return 1
    return 0
