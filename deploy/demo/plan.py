"""What the demonstration plays: how much history, which fault when, and the configurations that follow."""

import sys
from dataclasses import dataclass
from pathlib import Path

from trainer.faults import FAULT_SENSORS
from trainer.pump import DAY_SECONDS, SENSORS
from trainer.simulate import DEFAULT_START

ASSET = "pump-1"
NODE = "demo"
HISTORY, LIVE = "history.csv", "live.csv"
TRAINER_CONFIG, AGENT_CONFIG = "trainer.toml", "edge-agent.toml"
BUNDLE = "bundle"
EVENT_FILTER = f"forewarn/{NODE}/event/+"


@dataclass(frozen=True)
class Plan:
    """One performance.

    Attributes:
        history_hours: of normal operation that the model learns from.
        epochs: of training, at most.
        windows_per_epoch: sub-sequences drawn for an epoch.
        units: of the LSTM layers.
        history_seed: of the simulated history.
        live_seed: of the simulated live readings; another duty than in the history.
        live_hours: length of the live readings.
        fault: kind of the fault in them.
        fault_start_seconds: after the first live reading; until then all is normal.
        fault_seconds: how long the fault lasts.
        rate: samples published per second of real time.
    """

    history_hours: float = 4.0
    epochs: int = 3
    windows_per_epoch: int = 2048
    units: tuple[int, ...] = (128, 64, 32)
    history_seed: int = 1
    live_seed: int = 2
    live_hours: float = 1.0
    fault: str = "bearing_wear"
    fault_start_seconds: float = 2400.0
    fault_seconds: float = 900.0
    rate: float = 200.0

    @property
    def live_start(self) -> float:
        """Return the time of the first live reading, a day after the history began, seconds since the epoch."""
        return DEFAULT_START + DAY_SECONDS

    @property
    def fault_start(self) -> float:
        """Return when the fault begins, seconds since the epoch, on the clock of the readings."""
        return self.live_start + self.fault_start_seconds

    @property
    def suspects(self) -> tuple[str, ...]:
        """Return the sensors that an alarm for the fault should name."""
        return FAULT_SENSORS[self.fault]

    @property
    def deadline_seconds(self) -> float:
        """Return how long the alarm may take in real time, from the first sample published."""
        return self.live_hours * 3600.0 / self.rate + 60.0

    def simulate_history(self) -> list[str]:
        """Return the arguments of `trainer` that write the history."""
        return [
            "simulate", "--out", HISTORY, "--hours", f"{self.history_hours:g}", "--seed", str(self.history_seed),
            "--asset", ASSET,
        ]  # fmt: skip

    def simulate_live(self) -> list[str]:
        """Return the arguments of `trainer` that write the live readings with the fault."""
        fault = f"{self.fault}@{self.fault_start_seconds:g}+{self.fault_seconds:g}"
        return [
            "simulate", "--out", LIVE, "--hours", f"{self.live_hours:g}", "--seed", str(self.live_seed),
            "--start", f"{self.live_start:.0f}", "--asset", ASSET, "--faults", fault,
        ]  # fmt: skip

    def fit(self) -> list[str]:
        """Return the arguments of `trainer` that turn the history into a bundle."""
        return [
            "fit", "--history", HISTORY, "--out", BUNDLE, "--config", TRAINER_CONFIG,
            "--label-column", "label", "--ignore-column", "fault",
        ]  # fmt: skip

    def write_trainer_config(self, directory: Path) -> None:
        """Write the configuration of `trainer fit`; the units make the alarms readable."""
        units = "\n".join(f'"{sensor.name}" = "{sensor.unit}"' for sensor in SENSORS)
        text = f"""[fit]
name = "pump"
epochs = {self.epochs}
windows_per_epoch = {self.windows_per_epoch}
units = {list(self.units)}

[fit.units_of_sensors]
{units}
"""
        (directory / TRAINER_CONFIG).write_text(text, encoding="utf-8")


FULL = Plan()
FAST = Plan(
    history_hours=2.0,
    epochs=1,
    windows_per_epoch=512,
    units=(32, 16),
    live_hours=0.75,
    fault_start_seconds=1500.0,
)
"""Less history, a smaller network and one epoch, for those in a hurry: a duller model, which still sees the fault."""


def write_agent_config(directory: Path, broker_port: int, metrics_port: int) -> Path:
    """Write the agent's configuration and return its path.

    Args:
        directory: where the bundle lies as well.
        broker_port: of the broker on loopback.
        metrics_port: for the agent's pages.
    """
    path = directory / AGENT_CONFIG
    path.write_text(
        f"""[bundle]
path = "{BUNDLE}"
provider = "cpu"

[mqtt]
host = "127.0.0.1"
port = {broker_port}
# The embedded broker speaks no MQTT 5, and forgets everything when the demonstration ends.
protocol = "3.1.1"
persistent_session = false
node = "{NODE}"

[[mqtt.inputs]]
topic = "plant/{{asset}}"

[metrics]
port = {metrics_port}
""",
        encoding="utf-8",
    )
    return path


def program(*arguments: str) -> list[str]:
    """Return the command line of a module of this environment."""
    return [sys.executable, "-m", *arguments]
