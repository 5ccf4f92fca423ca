"""The child processes of the demonstration: started apart, watched, and ended by their process ids."""

import os
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from types import TracebackType

from edge_agent.contract.errors import ForewarnError

ROOT = Path(__file__).resolve().parent.parent.parent
_FAREWELL_SECONDS = 10.0
_LOG_LINES = 15


class DemoError(ForewarnError):
    """A part of the demonstration failed or did not come in time."""


def free_port(preferred: int = 0) -> int:
    """Return a loopback TCP port that nobody listens on, the preferred one where it is free."""
    for port in (preferred, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise DemoError("no free TCP port on 127.0.0.1")


def child_environment(inherited: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of the children: the project importable, no settings from outside, a quiet TensorFlow."""
    kept = {name: value for name, value in inherited.items() if not name.startswith("FOREWARN_")}
    path = os.pathsep.join(filter(None, (str(ROOT), kept.get("PYTHONPATH", ""))))
    # ONNX Runtime starts its telemetry on import, and leaves a session file, unless this is set before.
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "ORT_DISABLE_TELEMETRY": "1"}
    return {**kept, **quiet, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}


class Children:
    """Starts child processes and ends them all, the last one first, when the demonstration ends.

    Args:
        directory: the working directory of the children; their logs stand there.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        # Temporary files too: some libraries leave theirs behind.
        self._environment = {**child_environment(os.environ), "TMPDIR": str(directory)}
        self._running: list[tuple[str, subprocess.Popen[bytes]]] = []

    def __enter__(self) -> "Children":
        """Begin."""
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """End every child that still runs."""
        while self._running:
            _end(self._running.pop()[1])

    def start(self, name: str, command: Sequence[str], log: bool = True) -> "subprocess.Popen[bytes]":
        """Start a child.

        Args:
            name: for messages, and of its log.
            command: program and arguments.
            log: whether its output goes to `<name>.log` instead of the terminal.
        """
        # A session of their own: Ctrl-C reaches the demonstration only, which then ends the children in order.
        with (self._directory / f"{name}.log").open("wb") as file:
            output = file if log else None
            child = subprocess.Popen(
                command,
                cwd=self._directory,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self._running.append((name, child))
        return child

    def run(self, name: str, command: Sequence[str]) -> None:
        """Run a child to its end, its output on the terminal.

        Raises:
            DemoError: it failed.
        """
        code = self.start(name, command, log=False).wait()
        self._running.pop()
        if code:
            raise DemoError(f"{name}: failed with exit code {code}")

    def check(self) -> None:
        """Raise DemoError, with the end of its log, if a child has failed."""
        for name, child in self._running:
            if child.poll():
                log = (self._directory / f"{name}.log").read_text(encoding="utf-8", errors="replace")
                tail = "".join(f"\n  {line}" for line in log.splitlines()[-_LOG_LINES:])
                raise DemoError(f"{name}: ended with exit code {child.returncode}{tail}")

    def wait_until(
        self, ready: Callable[[], bool], child: "subprocess.Popen[bytes]", what: str, seconds: float
    ) -> None:
        """Wait until a child is ready.

        Args:
            ready: asked about ten times a second.
            child: the one that is waited for.
            what: for the message.
            seconds: how long at most.

        Raises:
            DemoError: it ended before, or is late.
        """
        for _ in range(round(seconds * 10)):
            if ready():
                return
            try:
                child.wait(0.1)
            except subprocess.TimeoutExpired:
                continue
            self.check()
            raise DemoError(f"{what}: ended before it was ready")
        raise DemoError(f"{what}: not ready after {seconds:g} s")


def _end(child: "subprocess.Popen[bytes]") -> None:
    if child.poll() is not None:
        return
    child.terminate()
    try:
        child.wait(_FAREWELL_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def listens(port: int) -> bool:
    """Return whether someone accepts connections on a loopback port."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def get(address: str) -> tuple[int, str]:
    """Return status and text of a page; status 0 where nobody answers."""
    try:
        with urllib.request.urlopen(address, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(errors="replace")
    except OSError:
        return 0, ""


def answers_ok(address: str) -> bool:
    """Return whether a page answers with 200."""
    return get(address)[0] == HTTPStatus.OK
