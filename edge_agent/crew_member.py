"""One worker as the process with the connection sees it: a child process at the other end of a pipe.

The pipe never blocks: what a worker does not take at once waits here, so that its answers are always read.
"""

import os
import pickle
import select
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edge_agent.contract.errors import ForewarnError
from edge_agent.frames import BATCH, READY, SETUP, FrameReader, Setup, pack, pack_batch
from edge_agent.metrics import Facts
from edge_agent.packets import Messages

# Signals go to all processes of a unit or a terminal; a worker ends when its pipe does, and not before.
_PROGRAM = """
import gc, signal, sys
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, signal.SIG_IGN)
gc.disable()
from edge_agent.worker import main
sys.exit(main(int(sys.argv[1])))
"""
_READ_BYTES = 1 << 20
_SEND_BYTES = 1 << 18
_END_SECONDS = 2.0


@dataclass(slots=True)
class Handed:
    """Messages that were handed out; `left` of their parts are not worked off yet."""

    messages: list[Messages]
    left: int = 0


class CrewMember:
    """A running worker.

    Args:
        setup: what it is told.

    Attributes:
        lost: why there is nothing to be expected of it any more, or an empty text.
        owed: what it was given and has not worked off, oldest first.
        assets, active: how many it has, and how many of them in alarm, by its last beat.
    """

    def __init__(self, setup: Setup) -> None:
        self.name = f"worker {setup.worker + 1} of {setup.workers}"
        self.lost = ""
        self.owed: deque[Handed] = deque()
        self.beaten = False
        self.assets = self.active = 0
        self._reader = FrameReader()
        self._unsent = bytearray()
        self._ready: list[tuple[bytes, bytes]] = []
        self._pipe, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-c", _PROGRAM, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env=_environment(),
            )
        self._pipe.sendall(pack(SETUP, pickle.dumps(setup)))

    def greet(self) -> Facts:
        """Wait until the worker can begin, and return the facts of the bundle that it runs.

        Raises:
            ForewarnError: it cannot, for the reason that it gives itself.
        """
        while not self._ready:
            data = self._pipe.recv(_READ_BYTES)
            if not data:
                raise ForewarnError(f"{self.name} did not start: {self._ended()}")
            self._ready = self._reader.feed(data)
        kind, body = self._ready.pop(0)
        word = pickle.loads(body)
        if kind != READY:
            raise word
        self._pipe.setblocking(False)
        facts: Facts = word
        return facts

    @property
    def descriptor(self) -> int:
        """Return what to follow."""
        return self._pipe.fileno()

    @property
    def has_unsent(self) -> bool:
        """Return whether something waits until the worker takes it."""
        return bool(self._unsent)

    def give(self, handed: Handed, part: list[Messages]) -> None:
        """Send its part of a batch, which it owes from now on."""
        handed.left += 1
        self.owed.append(handed)
        self.send(pack(BATCH, pack_batch(part)))

    def send(self, frame: bytes) -> None:
        """Send a frame, as much of it as goes; `serve` sends the rest."""
        self._unsent += frame
        self.flush()

    def flush(self) -> None:
        """Send what waits, as far as it goes."""
        sent = 0
        try:
            with memoryview(self._unsent) as unsent:
                while sent < len(unsent):
                    sent += self._pipe.send(unsent[sent : sent + _SEND_BYTES])
        except BlockingIOError:
            pass
        except OSError:
            # Its own end says why.
            self._unsent.clear()
            return
        del self._unsent[:sent]

    def receive(self, take: Callable[[bytes, bytes], None]) -> None:
        """Read what the worker sent, and hand over kind and body of each frame."""
        try:
            data = self._pipe.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.lost = f"{self.name} (process {self.process.pid}) {self._ended()}"
            return
        for kind, body in self._reader.feed(data):
            take(kind, body)

    def say_goodbye(self) -> None:
        """Tell it that nothing more comes: it keeps what is to be kept, and ends."""
        try:
            self._pipe.shutdown(socket.SHUT_WR)
        except OSError:
            # It is gone already.
            self._unsent.clear()

    def end(self, seconds: float) -> None:
        """Wait for its end, and bring it about if it does not come in time; what it still says is not heard."""
        deadline = time.monotonic() + seconds
        poll = select.poll()
        poll.register(self._pipe, select.POLLIN)
        while (left := deadline - time.monotonic()) > 0 and poll.poll(left * 1000.0):
            try:
                if not self._pipe.recv(_READ_BYTES):
                    break
            except OSError:
                break
        try:
            self.process.wait(max(deadline - time.monotonic(), 0.0))
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._pipe.close()

    def _ended(self) -> str:
        try:
            code = self.process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            return "hung up"
        return f"was ended by signal {-code}" if code < 0 else f"ended with status {code}"


def _environment() -> dict[str, str]:
    """Return an environment in which the worker finds the very package that runs here, and no other."""
    places = [str(Path(__file__).parent.parent), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(place for place in places if place)}
