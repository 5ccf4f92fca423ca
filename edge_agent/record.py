"""`edge-agent record`: MQTT readings to Parquet files, before there is a bundle to score them with.

Topics, payloads and the gate are those of `run`; which sensors there are, the messages say. A message is acknowledged
when it is in memory: a file is lost by a crash, never by a restart, and how much that is `--minutes` decides.
"""

import logging
import signal
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from edge_agent.connection import MqttClient
from edge_agent.contract.errors import ConfigurationError, HistoryError
from edge_agent.contract.types import Rows
from edge_agent.events import rfc3339, to_json
from edge_agent.intake import Intake
from edge_agent.packets import Messages
from edge_agent.paho_client import Subscription
from edge_agent.quality import QualityGate
from edge_agent.recording import Recording
from edge_agent.sensor_discovery import MOST_NAMES, SensorDiscovery
from edge_agent.settings import Settings
from edge_agent.tally import Tally
from edge_agent.topics import OutputTopics
from edge_agent.version import VERSION

log = logging.getLogger(__name__)

_TURN_MESSAGES = 4096
_TURN_BYTES = 1 << 20
_MOST_ROWS = 4096
_WAIT_SECONDS = 1.0
_RETRY_SECONDS = 10.0
_FAREWELL_SECONDS = 5.0
_LAST_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class RecordOptions:
    """What the command is told.

    Attributes:
        out: directory of the files.
        minutes: that a file spans, by the clock.
        rows: of a file, at most.
    """

    out: Path
    minutes: float
    rows: int


class Recorder:
    """One broker, one directory.

    Args:
        settings: of the agent.
        options: of the command.

    Raises:
        ConfigurationError: a secret or certificate cannot be read.
        OSError: the directory cannot be made.
    """

    def __init__(self, settings: Settings, options: RecordOptions) -> None:
        self.sensors: tuple[str, ...] = ()
        self.unused: tuple[str, ...] = ()
        self.assets: list[str] = []
        self.tally = Tally()
        self.recording = Recording(options.out, options.rows)
        self._settings = settings
        self._span = 60.0 * options.minutes
        self._row_of: dict[str, int] = {}
        self._discovery = SensorDiscovery(settings.mqtt.inputs)
        self._intake = Intake(settings.mqtt.inputs, self, self.tally)
        self._gate = QualityGate(settings.quality.max_future_seconds)
        self._stop = False
        self._begun = self._retry_at = 0.0
        self._failing = ""
        self._client = self._make_client()

    def _make_client(self) -> MqttClient:
        mqtt = self._settings.mqtt
        # The agent may run beside it: the broker lets one client of a name in, and each has a state of its own.
        own = mqtt.model_copy(update={"client_id": f"{mqtt.effective_client_id}-record"})
        topic = f"{OutputTopics(mqtt.base_topic, mqtt.node).root}/record"

        def status(state: str, now: float | None) -> bytes:
            told = None if now is None else rfc3339(now)
            return to_json({"state": state, "node": mqtt.node, "agent_version": VERSION, "time": told})

        subscriptions = [Subscription(name, qos) for name, qos in self._intake.subscriptions()]
        agent = self._settings.agent
        return MqttClient(
            own, subscriptions, topic, status, agent.inbox_messages, agent.inbox_megabytes << 20
        )

    def asset_row(self, asset: str) -> int:
        """Return the row of an asset, a new one if it was never seen.

        Raises:
            ConfigurationError: there are `agent.max_assets` already.
        """
        row = self._row_of.get(asset)
        if row is None:
            most = self._settings.agent.max_assets
            if len(self.assets) >= most:
                raise ConfigurationError(f"agent.max_assets: {most} assets are followed already")
            row = self._row_of[asset] = len(self.assets)
            self.assets.append(asset)
        return row

    def handle_signal(self, _number: int, _frame: FrameType | None) -> None:
        """Ask for the end."""
        self._stop = True
        self._client.wake()

    def run(self) -> int:
        """Record until asked to stop; returns 1 if readings were lost, else 0."""
        self._client.start()
        self._begun = time.monotonic()
        while not self._stop:
            self._client.wait(_WAIT_SECONDS)
            self._take_in()
            self._write_if_due()
        deadline = time.monotonic() + _FAREWELL_SECONDS
        while time.monotonic() < deadline:
            # What the broker has sent already is read first: it counts as delivered there.
            self._client.wait(_LAST_SECONDS)
            if not self._take_in():
                break
            self._write_if_due()
        self._client.stop(_FAREWELL_SECONDS)
        self._write()
        self.recording.lost += self.recording.waiting
        return self._report()

    def _take_in(self) -> bool:
        """Gather what has arrived; returns whether there was anything."""
        batch = self._client.take(_TURN_MESSAGES, _TURN_BYTES)
        now = time.time()
        for rows in self._decoded(batch) if batch else []:
            self.recording.add(self._gate.check(rows, now))
        self._client.acknowledge(batch)
        return bool(batch)

    def _decoded(self, batch: list[Messages]) -> list[Rows]:
        """Return the readings of messages; those that speak of new sensors are decoded anew with these."""
        messages, readings, rejected = self.tally.messages, self.tally.readings, Counter(self.tally.rejected)
        rows = list(self._intake.blocks(batch, _MOST_ROWS))
        if self.tally.rejected["unknown_sensor"] == rejected["unknown_sensor"]:
            return rows
        fresh = [name for name in self._discovery.names(batch) if name not in self.sensors]
        if not fresh or len(self.sensors) >= MOST_NAMES:
            return rows
        self.sensors += tuple(fresh[: MOST_NAMES - len(self.sensors)])
        log.info("sensors heard for the first time: %s", ", ".join(fresh))
        self.tally.messages, self.tally.readings, self.tally.rejected = messages, readings, rejected
        self._intake = Intake(self._settings.mqtt.inputs, self, self.tally)
        return list(self._intake.blocks(batch, _MOST_ROWS))

    def _write_if_due(self) -> None:
        now = time.monotonic()
        if now >= self._retry_at and (self.recording.is_full or now - self._begun >= self._span):
            self._write()

    def _write(self) -> None:
        """Write a file; one that cannot be written is tried again, and told of once."""
        self._begun = time.monotonic()
        try:
            path = self.recording.write(self.assets, list(self.sensors))
        except (HistoryError, OSError) as error:
            self._retry_at = time.monotonic() + _RETRY_SECONDS
            reason = str(getattr(error, "strerror", None) or error)
            if not self._failing:
                log.error(  # noqa: TRY400 - one line
                    "%s: cannot be written, %d readings wait: %s", self.recording.directory,
                    self.recording.waiting, reason,
                )  # fmt: skip
            self._failing = reason
            return
        if self._failing and path is not None:
            log.info("%s: is written again; %d readings were lost", path.parent, self.recording.lost)
            self._failing = ""
        if path is not None:
            log.info("%s", path)

    def _report(self) -> int:
        """Say what was recorded and what was not."""
        one, rejected = self.recording, self.tally.rejected + self._gate.rejected
        rejected["overrun"] += self._client.overrun
        unused = ", ".join(f"{count} × {reason}" for reason, count in sorted(rejected.items()) if count)
        print(
            f"{one.directory}: {one.written} readings of {len(self.sensors)} sensors and {len(self.assets)} assets in "
            f"{one.files} files" + (f"; not used: {unused}" if unused else "")
        )
        if one.lost:
            print(
                f"edge-agent: {one.directory}: {one.lost} readings were lost: {self._failing}",
                file=sys.stderr,
            )
        return 1 if one.lost else 0


def record(settings: Settings, options: RecordOptions) -> int:
    """Record until SIGTERM or SIGINT; returns the exit code.

    Raises:
        ConfigurationError: a setting cannot be used.
        OSError: the directory cannot be made.
    """
    logging.basicConfig(
        level=settings.agent.log_level.upper(), format="%(levelname)s %(message)s", stream=sys.stderr
    )
    recorder = Recorder(settings, options)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, recorder.handle_signal)
    return recorder.run()
