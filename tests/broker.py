"""A real Mosquitto on a free loopback port, for the tests that need a broker."""

import getpass
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

ROOT = Path(__file__).resolve().parent.parent
PATIENCE_SECONDS = 20.0


def find_mosquitto() -> str:
    """Return the path of the broker's executable.

    Raises:
        FileNotFoundError: it is not installed; `make test` installs it.
    """
    # Debian keeps it in /usr/sbin, which is not on every user's path; without root it is unpacked into .cache.
    places = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin:{ROOT / '.cache' / 'servers' / 'bin'}"
    found = shutil.which("mosquitto", path=places)
    if found is not None:
        return found
    raise FileNotFoundError("mosquitto is not installed: run `make test`, which brings it")


def free_port() -> int:
    """Return a TCP port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Broker:
    """One Mosquitto process that can be stopped and started again on the same port.

    Args:
        directory: for its configuration.
        lines: of its configuration beyond the listener; without one about them, anonymous clients are let in.
    """

    def __init__(self, directory: Path, *lines: str) -> None:
        self.port = free_port()
        self._configuration = directory / "mosquitto.conf"
        anonymous = "false" if any(line.startswith("password_file") for line in lines) else "true"
        every = (
            f"listener {self.port} 127.0.0.1", f"allow_anonymous {anonymous}", "persistence false",
            # As root it would become the user `mosquitto`, who cannot read the test's files.
            f"user {getpass.getuser()}",
            # As deployed: with the broker's own thousand, what a slow machine has not read yet would be thrown away.
            "max_queued_messages 60000", *lines,
        )  # fmt: skip
        self._configuration.write_text("\n".join(every) + "\n", encoding="utf-8")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and return when it accepts connections."""
        self._process = subprocess.Popen(
            [find_mosquitto(), "-c", str(self._configuration)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                # Nothing to wait on but the exit of a broker that cannot start.
                if _exited(self._process, 0.05):
                    break
            else:
                return
        raise RuntimeError("mosquitto did not start")

    def kill(self) -> None:
        """End it without a word to its clients."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def _exited(process: "subprocess.Popen[bytes]", timeout: float) -> bool:
    try:
        process.wait(timeout)
    except subprocess.TimeoutExpired:
        return False
    return True


class Listener:
    """A client of the test's own: hears everything under some filters, and publishes.

    Args:
        port: the broker's.
        filters: what to hear.
    """

    def __init__(self, port: int, *filters: str) -> None:
        self.heard: list[tuple[str, bytes, bool]] = []
        self._news = threading.Condition()
        self._ready = threading.Event()
        self._filters = filters
        self._client = paho.Client(CallbackAPIVersion.VERSION2)
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = lambda *_arguments: self._ready.set()
        self._client.on_message = self._on_message
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    def __enter__(self) -> "Listener":
        """Return once the broker has confirmed the filters."""
        assert self._ready.wait(PATIENCE_SECONDS)
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """Leave the broker."""
        self._client.disconnect()
        self._client.loop_stop()

    def _on_connect(self, client: paho.Client, *_arguments: object) -> None:
        client.subscribe([(topic, 1) for topic in self._filters or ("nothing",)])

    def _on_message(self, _client: paho.Client, _data: object, message: paho.MQTTMessage) -> None:
        with self._news:
            self.heard.append((message.topic, bytes(message.payload), message.retain))
            self._news.notify_all()

    def publish(self, topic: str, payload: bytes, qos: int = 1, retain: bool = False) -> None:
        """Publish and wait until the broker has it."""
        self._client.publish(topic, payload, qos, retain).wait_for_publish(PATIENCE_SECONDS)

    def wait_for(self, topic: str, content: bytes = b"", count: int = 1) -> bytes:
        """Return the payload of the `count`-th message on `topic` that holds `content`."""

        def matching() -> list[bytes]:
            return [payload for heard, payload, _ in self.heard if heard == topic and content in payload]

        with self._news:
            if not self._news.wait_for(lambda: len(matching()) >= count, PATIENCE_SECONDS):
                raise AssertionError(f"{topic}: {content!r} did not come; heard {self.heard}")
            return matching()[count - 1]


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    """A broker that is running when the test begins."""
    running = Broker(tmp_path)
    running.start()
    yield running
    running.kill()
