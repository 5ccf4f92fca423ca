"""The installed daemon as a process of its own, with what the system says of it: time to start, memory, CPU time."""

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
from pathlib import Path
from types import TracebackType

from tests.broker import free_port

PATIENCE_SECONDS = 60.0
_POLL_SECONDS = 0.02
_QUIET_SECONDS = 0.3
# Less than this share of a core is the daemon's idling.
_QUIET_SHARE = 0.03


def peak_megabytes(process: str = "self") -> float:
    """Return the most memory that was ever resident in a process, this one or a pid, in units of 10^6 bytes."""
    status = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    assert found is not None
    return int(found.group(1)) * 1024 / 1e6


class AgentProcess:
    """One running `edge-agent run`; as a context it ends with it.

    Args:
        bundle: its bundle.
        broker_port: where the broker listens on this device; nobody need be there.
    """

    def __init__(self, bundle: Path, broker_port: int) -> None:
        self._directory = tempfile.TemporaryDirectory()
        home = Path(self._directory.name)
        self.metrics_port = free_port()
        configuration = home / "edge-agent.toml"
        configuration.write_text(
            f"[bundle]\npath = {json.dumps(str(bundle))}\n[mqtt]\nport = {broker_port}\n"
            f'[[mqtt.inputs]]\ntopic = "plant/{{asset}}"\nqos = 0\n[metrics]\nport = {self.metrics_port}\n',
            encoding="utf-8",
        )
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
            notified.bind(str(home / "notify"))
            notified.settimeout(PATIENCE_SECONDS)
            begun = time.perf_counter()
            self.process = subprocess.Popen(
                [sys.executable, "-m", "edge_agent.cli", "run", "--config", str(configuration)],
                env={**os.environ, "NOTIFY_SOCKET": str(home / "notify")},
                stderr=subprocess.DEVNULL,
            )
            notified.recv(4096)
            self.start_seconds = time.perf_counter() - begun
        self.start_cpu_seconds = self.cpu_seconds()

    def __enter__(self) -> "AgentProcess":
        """Return the process, which says that it is ready."""
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """End it as systemd would."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(PATIENCE_SECONDS)
        self._directory.cleanup()

    def cpu_seconds(self) -> float:
        """Return the CPU time it has used, in user and system mode, all threads."""
        # What clock_getcpuclockid(3) returns for a process: nanoseconds, where /proc counts hundredths of a second.
        return time.clock_gettime((~self.process.pid << 3) | 2)

    def peak_megabytes(self) -> float:
        """Return the most memory that was ever resident, in units of 10^6 bytes."""
        return peak_megabytes(str(self.process.pid))

    def libraries(self) -> str:
        """Return the files mapped into the process, one a line."""
        return Path(f"/proc/{self.process.pid}/maps").read_text(encoding="utf-8")

    def page(self, path: str) -> str:
        """Return a page that it serves."""
        address = f"http://127.0.0.1:{self.metrics_port}{path}"
        with urllib.request.urlopen(address, timeout=PATIENCE_SECONDS) as answer:
            text: str = answer.read().decode()
        return text

    def metric(self, name: str) -> float:
        """Return a metric that has no labels."""
        found = re.search(rf"^{name} (\S+)$", self.page("/metrics"), re.MULTILINE)
        return float(found.group(1)) if found else 0.0

    def wait_until_subscribed(self) -> None:
        """Return once it hears what is published."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        pause = threading.Event()
        while True:
            try:
                self.page("/-/ready")
            except urllib.error.HTTPError:
                assert time.monotonic() < deadline, "it did not subscribe"
                pause.wait(_POLL_SECONDS)
            else:
                return

    def wait_until_scored(self, samples: int) -> float:
        """Wait until so many samples are scored in all, and return the CPU time used up to then.

        Its metrics are read only when it has fallen quiet, so that the question costs none of what is measured.
        """
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            used = self._cpu_seconds_when_quiet()
            scored = self.metric("forewarn_samples_scored_total")
            if scored >= samples:
                return used
            assert time.monotonic() < deadline, f"{scored:g} samples are scored, not {samples}"

    def _cpu_seconds_when_quiet(self) -> float:
        pause = threading.Event()
        before, used = -1.0, self.cpu_seconds()
        while used - before > _QUIET_SHARE * _QUIET_SECONDS:
            pause.wait(_QUIET_SECONDS)
            before, used = used, self.cpu_seconds()
        return used

    def wait_for_metric(self, name: str, least: float) -> None:
        """Return once a metric without labels has reached a value."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        pause = threading.Event()
        while (value := self.metric(name)) < least:
            assert time.monotonic() < deadline, f"{name} is {value:g}, not {least:g}"
            pause.wait(_POLL_SECONDS)
