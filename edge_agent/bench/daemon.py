"""The daemon as a process of its own, and what its pages and the system say of it: time, memory, CPU time."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from edge_agent.contract.errors import ForewarnError

PATIENCE_SECONDS = 60.0
_POLL_SECONDS = 0.02
_QUIET_SECONDS = 0.3
# Less than this share of a core is the daemon's idling.
_QUIET_SHARE = 0.03


def free_port() -> int:
    """Return a TCP port of this device that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def resident_megabytes(process: int | str = "self", field: str = "VmRSS") -> float:
    """Return the memory resident in a process now, or at most with `VmHWM`, shared libraries included, in 10^6 bytes.

    Raises:
        ForewarnError: the system is none that tells (Linux does).
    """
    try:
        status = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    except OSError as error:
        raise ForewarnError(f"/proc/{process}/status: {error.strerror}") from error
    found = re.search(rf"^{field}:\s+(\d+) kB$", status, re.MULTILINE)
    if found is None:
        raise ForewarnError(f"/proc/{process}/status: has no {field}")
    return int(found.group(1)) * 1024 / 1e6


class Daemon:
    """One running `edge-agent run`; as a context it ends with it.

    Args:
        settings: by dotted key; they win over those of the file.
        configuration: the file; None is an empty one.

    Attributes:
        start_seconds, start_cpu_seconds: from the command until it said that it is ready.

    Raises:
        ForewarnError: it did not start; its own last line is in it.
    """

    def __init__(self, settings: Mapping[str, Any], configuration: Path | None = None) -> None:
        self._directory = tempfile.TemporaryDirectory()
        home = Path(self._directory.name)
        if configuration is None:
            configuration = home / "edge-agent.toml"
            configuration.touch()
        self._metrics_port = free_port()
        every = {**settings, "metrics.host": "127.0.0.1", "metrics.port": self._metrics_port}
        self._said = (home / "log").open("w+", encoding="utf-8")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
            notified.bind(str(home / "notify"))
            notified.settimeout(_POLL_SECONDS)
            begun = time.perf_counter()
            self.process = subprocess.Popen(
                [sys.executable, "-m", "edge_agent.cli", "run", "--config", str(configuration)],
                env={**os.environ, **_variables(every), "NOTIFY_SOCKET": str(home / "notify")},
                stderr=self._said,
            )
            self._wait_until_ready(notified)
            self.start_seconds = time.perf_counter() - begun
        self.start_cpu_seconds = self.cpu_seconds()

    def _wait_until_ready(self, notified: socket.socket) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                notified.recv(4096)
            except TimeoutError:
                if self.process.poll() is None and time.monotonic() < deadline:
                    continue
                self.process.kill()
                raise ForewarnError(f"the daemon did not start: {self.last_words()}") from None
            return

    def __enter__(self) -> "Daemon":
        """Return the process, which says that it is ready."""
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """End it as systemd would."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(PATIENCE_SECONDS)
        self._said.close()
        self._directory.cleanup()

    def last_words(self) -> str:
        """Return the last line of its log."""
        self._said.flush()
        lines = Path(self._said.name).read_text(encoding="utf-8").strip().splitlines()
        return lines[-1] if lines else f"exit code {self.process.poll()}"

    def cpu_seconds(self) -> float:
        """Return the CPU time it and its workers have used, in user and system mode, all threads."""
        # What clock_getcpuclockid(3) returns for a process: nanoseconds, where /proc counts hundredths of a second.
        return sum(time.clock_gettime((~process << 3) | 2) for process in self.processes())

    def resident_megabytes(self) -> float:
        """Return the memory that is resident now, in units of 10^6 bytes."""
        return sum(resident_megabytes(process) for process in self.processes())

    def peak_megabytes(self) -> float:
        """Return the most memory that was ever resident, in units of 10^6 bytes."""
        return sum(resident_megabytes(process, "VmHWM") for process in self.processes())

    def processes(self) -> list[int]:
        """Return the ids of its processes: its own, and those of its workers."""
        own = self.process.pid
        try:
            children = Path(f"/proc/{own}/task/{own}/children").read_text(encoding="utf-8")
        except OSError:
            # A kernel that does not tell: then only the daemon without workers is measured in full.
            children = ""
        return [own, *map(int, children.split())]

    def libraries(self) -> str:
        """Return the files mapped into the process, one a line."""
        return Path(f"/proc/{self.process.pid}/maps").read_text(encoding="utf-8")

    def page(self, path: str) -> str:
        """Return a page that it serves."""
        address = f"http://127.0.0.1:{self._metrics_port}{path}"
        with urllib.request.urlopen(address, timeout=PATIENCE_SECONDS) as answer:
            text: str = answer.read().decode()
        return text

    def metric(self, name: str, label: str = "") -> float:
        """Return a metric, the sum over its labels, or over those that hold `label`, such as `kind="start"`."""
        found = re.findall(rf"^{name}(\{{.*\}})? (\S+)$", self.page("/metrics"), re.MULTILINE)
        return sum(float(value) for labels, value in found if label in labels)

    def wait_until_subscribed(self) -> None:
        """Return once it hears what is published."""

        def ready() -> bool:
            try:
                self.page("/-/ready")
            except urllib.error.HTTPError:
                return False
            return True

        self._wait(ready, "it did not subscribe")

    def wait_for_metric(self, name: str, least: float) -> None:
        """Return once a metric has reached a value."""
        self._wait(lambda: self.metric(name) >= least, f"{name} did not reach {least:g}")

    def wait_until_scored(self, samples: int) -> float:
        """Wait until so many samples are scored in all, and return the CPU time used up to then.

        Its metrics are read only when it has fallen quiet, so that the question costs none of what is measured.
        """
        deadline = time.monotonic() + PATIENCE_SECONDS
        before = -1.0
        while True:
            used = self._cpu_seconds_when_quiet()
            scored = self.metric("forewarn_samples_scored_total")
            if scored >= samples:
                return used
            # As long as it works on, there is patience.
            deadline = deadline if scored == before else time.monotonic() + PATIENCE_SECONDS
            before = scored
            if time.monotonic() > deadline:
                raise ForewarnError(f"{scored:g} samples are scored, not {samples}: {self.last_words()}")

    def _cpu_seconds_when_quiet(self) -> float:
        pause = threading.Event()
        before, used = -1.0, self.cpu_seconds()
        while used - before > _QUIET_SHARE * _QUIET_SECONDS:
            pause.wait(_QUIET_SECONDS)
            before, used = used, self.cpu_seconds()
        return used

    def _wait(self, come: Any, otherwise: str) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        pause = threading.Event()
        while not come():
            if time.monotonic() > deadline or self.process.poll() is not None:
                raise ForewarnError(f"the daemon: {otherwise}: {self.last_words()}")
            pause.wait(_POLL_SECONDS)


def _variables(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return settings by dotted key as the environment variables that the daemon reads."""
    return {
        "FOREWARN_" + key.upper().replace(".", "__"): value if isinstance(value, str) else json.dumps(value)
        for key, value in settings.items()
    }
