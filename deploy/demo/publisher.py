"""Plays a wide history file as live readings: one JSON message per row, in order, at a steady pace.

The time stamps are those of the file, so the readings come from the past and faster than they were taken.
"""

import argparse
import csv
import json
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

NOT_SENSORS = frozenset({"time", "asset", "label", "fault"})
_TELL_EVERY_SECONDS = 600
_PATIENCE_SECONDS = 30.0


@dataclass(frozen=True)
class Message:
    """One row, ready to be published.

    Attributes:
        topic: `plant/<asset>`.
        payload: a JSON object of `time` and every sensor that has a reading.
        stamp: the row's time as written in the file.
        fault: kind of the fault in this row, otherwise empty; it is not in the payload.
    """

    topic: str
    payload: bytes
    stamp: str
    fault: str


def message_of(row: dict[str, str]) -> Message:
    """Make the message of one row of a wide CSV.

    Args:
        row: cells by column: `time`, `asset`, the sensors and, not sent, `label` and `fault`; empty is no reading.

    Raises:
        ValueError: a sensor's cell is no number.
    """
    readings = {name: float(cell) for name, cell in row.items() if name not in NOT_SENSORS and cell}
    payload = json.dumps({"time": row["time"], **readings}).encode()
    return Message(f"plant/{row['asset']}", payload, row["time"], row.get("fault", ""))


def read_messages(path: Path) -> Iterator[Message]:
    """Yield the messages of a file, in its order."""
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            yield message_of(row)


def remarks(messages: Iterable[Message]) -> Iterator[tuple[Message, str]]:
    """Yield each message with what a spectator should know when it is sent, mostly nothing."""
    fault = ""
    for count, message in enumerate(messages):
        remark = ""
        if message.fault != fault:
            remark = f"the fault begins: {message.fault}" if message.fault else f"the fault ends: {fault}"
            fault = message.fault
        elif count and count % _TELL_EVERY_SECONDS == 0:
            remark = f"{count} samples published"
        yield message, remark


def publish(messages: Iterable[Message], port: int, rate: float) -> int:
    """Publish to the broker on loopback at `rate` messages per second; returns how many.

    Raises:
        OSError: the broker cannot be reached.
    """
    client = paho.Client(CallbackAPIVersion.VERSION2, client_id="demo-publisher")
    client.connect("127.0.0.1", port)
    client.loop_start()
    begun, count, last = time.monotonic(), 0, None
    for message, remark in remarks(messages):
        time.sleep(max(begun + count / rate - time.monotonic(), 0.0))
        last = client.publish(message.topic, message.payload, qos=1)
        count += 1
        if remark:
            print(f"    {message.stamp}  {remark}", flush=True)
    if last is not None:
        last.wait_for_publish(_PATIENCE_SECONDS)
    client.disconnect()
    client.loop_stop()
    return count


def main() -> int:
    """Publish a file from the command line."""
    parser = argparse.ArgumentParser(prog="python -m deploy.demo.publisher", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--history", type=Path, required=True, metavar="CSV")
    parser.add_argument("--rate", type=float, default=200.0, help="samples per second, default 200")
    options = parser.parse_args()
    count = publish(read_messages(options.history), options.port, options.rate)
    print(f"    end of the readings, {count} samples published", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
