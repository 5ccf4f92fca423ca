"""A publisher in a process of its own: readings of many assets, as fast as the broker takes them or at a set pace."""

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edge_agent.bench.load import Load
from edge_agent.bench.wire import Client
from edge_agent.contract.bundle import Manifest
from edge_agent.contract.grid import Axis
from edge_agent.contract.types import Float64
from tests.benchmarks.payloads import NO_FAULT, Fault, load_with, messages

_PATIENCE_SECONDS = 600.0


@dataclass(frozen=True)
class Stream:
    """Where readings come from and where they go.

    Attributes:
        port: the broker's on this device.
        values: an `.npy` file of readings (n, F) of a machine in order.
        sensors: their names.
        interval, phase: of the model's axis, seconds.
        assets: how many send.
        layout: one of `payloads.LAYOUTS`.
        per_message: rows in one message.
        qos: 0 or 1.
        fault: see there.
    """

    port: int
    values: str
    sensors: tuple[str, ...]
    interval: float
    phase: float
    assets: int = 1
    layout: str = "object"
    per_message: int = 1
    qos: int = 0
    fault: Fault = NO_FAULT

    @staticmethod
    def of(manifest: Manifest, port: int, values: Path, **fields: Any) -> "Stream":
        """Return the stream for a bundle."""
        axis = manifest.axis
        return Stream(port, str(values), manifest.sensor_names, axis.interval, axis.phase, **fields)

    @property
    def load(self) -> Load:
        """Return the readings."""
        return load_with(np.load(self.values), self.sensors, Axis(self.interval, self.phase), self.fault)

    def publish(self, first: int, rows: int, pace: float = 0.0, times: Path | None = None) -> None:
        """Publish rows `first` to `first + rows` of each asset and return when the broker has them.

        Args:
            first: the row to begin with.
            rows: of each asset.
            pace: messages a second, evenly spread; 0 sends without a pause.
            times: with a pace, an `.npy` file to write: when each message was sent, monotonic clock.
        """
        plan = {**asdict(self), "first": first, "rows": rows, "pace": pace, "times": times and str(times)}
        command = [sys.executable, "-m", "tests.benchmarks.publisher", json.dumps(plan)]
        subprocess.run(command, check=True, timeout=_PATIENCE_SECONDS)

    def warm(self, rows: int) -> None:
        """Publish the first rows of each asset, many in a message, as JSON."""
        replace(self, layout="object", per_message=20, qos=0).publish(0, rows)


def sent_at(times: Path) -> Float64:
    """Return what `publish` wrote."""
    found: Float64 = np.load(times)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Publish once, as the plan says, and end."""
    plan = json.loads((sys.argv[1:] if arguments is None else arguments)[0])
    first, rows, pace, times = (plan.pop(name) for name in ("first", "rows", "pace", "times"))
    plan["sensors"], plan["fault"] = tuple(plan["sensors"]), Fault(**plan["fault"])
    stream = Stream(**plan)
    ready = list(messages(stream.load, stream.layout, range(stream.assets), first, rows, stream.per_message))
    with Client("127.0.0.1", stream.port, f"publisher-{time.monotonic_ns()}") as client:
        if not pace:
            client.publish(ready, stream.qos)
            return 0
        sent = client.publish_at_pace(ready, pace, stream.qos)
    if times is not None:
        np.save(times, np.array(sent))
    return 0


if __name__ == "__main__":
    sys.exit(main())
