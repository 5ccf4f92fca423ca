"""A real PostgreSQL server for the tests: a cluster of its own on a free port of this machine, gone with the test."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

from tests.broker import PATIENCE_SECONDS, free_port

USER, PASSWORD = "reader", "not-for-print"
_UNPRIVILEGED = "nobody"
"""As root the server would refuse to run."""


@dataclass(frozen=True)
class Server:
    """A running server.

    Attributes:
        port: on 127.0.0.1.
    """

    port: int

    def url(self, password: str | None = None, database: str = "postgres") -> str:
        """Return its address, with a password or without."""
        secret = "" if password is None else f":{password}"
        return f"postgresql://{USER}{secret}@127.0.0.1:{self.port}/{database}"


def _program(name: str) -> str:
    debian = sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")), reverse=True)
    found = shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), *debian]))
    if found is None:
        raise RuntimeError(f"{name} is not installed; run: make servers")
    return found


def _demoted() -> dict[str, object]:
    if os.geteuid() != 0:
        return {}
    return {"user": _UNPRIVILEGED, "group": "nogroup", "extra_groups": []}


@contextmanager
def running_server() -> Iterator[Server]:
    """Make a cluster, start it, and end it by the process that was started."""
    # Not pytest's folder: that is this user's own, and the server runs as another.
    directory = Path(tempfile.mkdtemp(prefix="forewarn-postgres-"))
    secret = directory / "secret"
    secret.write_text(PASSWORD, encoding="utf-8")
    if os.geteuid() == 0:
        for path in (directory, secret):
            shutil.chown(path, _UNPRIVILEGED, "nogroup")
    process: subprocess.Popen[bytes] | None = None
    try:
        cluster, port = directory / "cluster", free_port()
        made = subprocess.run(
            [
                _program("initdb"), "--pgdata", str(cluster), "--username", USER, "--pwfile", str(secret),
                "--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C", "--no-sync",
            ],
            cwd=directory, capture_output=True, text=True, check=False, **_demoted(),
        )  # type: ignore[call-overload]  # fmt: skip  # the keywords of another user
        assert made.returncode == 0, made.stderr
        options = (
            "listen_addresses=127.0.0.1",
            "unix_socket_directories=",
            "fsync=off",
            "timezone=Asia/Tokyo",
        )
        process = subprocess.Popen(
            [_program("postgres"), "-D", str(cluster), "-p", str(port), *(w for o in options for w in ("-c", o))],
            cwd=directory, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **_demoted(),
        )  # type: ignore[call-overload]  # fmt: skip  # the keywords of another user
        _wait(process, Server(port))
        yield Server(port)
    finally:
        if process is not None:
            process.send_signal(signal.SIGINT)
            process.wait(PATIENCE_SECONDS)
        shutil.rmtree(directory)


def _wait(process: "subprocess.Popen[bytes]", server: Server) -> None:
    """Return when the server answers, which is some time after it begins to listen."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        try:
            psycopg.connect(server.url(PASSWORD)).close()
        except psycopg.OperationalError:
            try:
                # Nothing to wait on but the exit of a server that cannot start.
                process.wait(0.05)
            except subprocess.TimeoutExpired:
                continue
            break
        else:
            return
    raise RuntimeError("postgres did not start")
