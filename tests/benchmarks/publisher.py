"""A publisher in a process of its own: readings of many assets as JSON, QoS 0, as fast as it can or at a set pace."""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

START = 1_700_000_000
"""Seconds since the epoch of the first row of every asset."""
_APART = 37
"""Rows between the places where two assets begin in the stream, so that no two send the same."""
_PATIENCE_SECONDS = 120.0


@dataclass(frozen=True)
class Stream:
    """Where the readings come from and where they go.

    Attributes:
        port: the broker's.
        values: an `.npy` file of readings (n, F); an asset that reaches its end begins anew.
        sensors: their names.
    """

    port: int
    values: Path
    sensors: tuple[str, ...]

    def publish(self, assets: int, first: int, rows: int, per_message: int, pace: float = 0.0) -> None:
        """Publish rows `first` to `first + rows` of each asset and return when the broker has them.

        Args:
            assets: how many there are; their messages take turns.
            first: the row to begin with.
            rows: of each asset.
            per_message: rows in one message; 1 sends an object, more an array.
            pace: messages a second, evenly spread; 0 sends without a pause.
        """
        command = [
            sys.executable,
            "-m",
            "tests.benchmarks.publisher",
            str(self.values),
            ",".join(self.sensors),
        ]
        numbers = [str(number) for number in (self.port, assets, first, rows, per_message, pace)]
        subprocess.run([*command, *numbers], check=True, timeout=_PATIENCE_SECONDS)


def messages(
    stream: Stream, assets: int, first: int, rows: int, per_message: int
) -> Iterator[tuple[str, bytes]]:
    """Yield topic and payload of each message in the order of time."""
    values = np.load(stream.values)
    for begin in range(first, first + rows, per_message):
        numbers = range(begin, min(begin + per_message, first + rows))
        for asset in range(assets):
            objects = [
                {
                    "time": START + row,
                    **dict(
                        zip(
                            stream.sensors, values[(asset * _APART + row) % len(values)].tolist(), strict=True
                        )
                    ),
                }
                for row in numbers
            ]
            payload = json.dumps(objects if per_message > 1 else objects[0])
            yield f"plant/pump-{asset}", payload.encode()


def main(arguments: Sequence[str] | None = None) -> int:
    """Publish once and end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("values", type=Path)
    parser.add_argument("sensors")
    for name in ("port", "assets", "first", "rows", "per_message"):
        parser.add_argument(name, type=int)
    parser.add_argument("pace", type=float)
    options = parser.parse_args(arguments)
    stream = Stream(options.port, options.values, tuple(options.sensors.split(",")))
    ready = list(messages(stream, options.assets, options.first, options.rows, options.per_message))
    client = paho.Client(CallbackAPIVersion.VERSION2)
    client.connect("127.0.0.1", options.port)
    client.loop_start()
    begun = time.monotonic()
    for number, (topic, payload) in enumerate(ready):
        if options.pace:
            time.sleep(max(begun + number / options.pace - time.monotonic(), 0.0))
        sent = client.publish(topic, payload)
    sent.wait_for_publish(_PATIENCE_SECONDS)
    client.disconnect()
    client.loop_stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
