"""Laws of `edge-agent record`, on a real broker: what is published is on disk, and `trainer fit` learns from it."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_agent.binary_payload import write_binary
from edge_agent.cli import main
from edge_agent.contract.bundle import read_bundle
from edge_agent.history import History, read_history
from edge_agent.packets import Messages
from edge_agent.record import Recorder, RecordOptions
from edge_agent.sensor_discovery import MOST_NAMES, SensorDiscovery
from edge_agent.settings import MqttInput, load_settings
from tests.broker import PATIENCE_SECONDS, Broker, Listener, broker
from tests.commands import run

__all__ = ["broker"]
START = 1_767_225_600
STATUS = "forewarn/edge/record"
INPUTS = '[[mqtt.inputs]]\ntopic = "plant/{asset}"\n[[mqtt.inputs]]\ntopic = "line/{asset}/{sensor}"\n'


def _configuration(directory: Path, port: int = 1) -> Path:
    """Write what `record` needs, which is no bundle."""
    path = directory / "edge-agent.toml"
    path.write_text(f"[mqtt]\nport = {port}\n{INPUTS}", encoding="utf-8")
    return path


@contextmanager
def _recorder(broker: Broker, directory: Path, out: Path, *words: object) -> Iterator[list[str]]:
    """Run the command until the end of the block, and give what it printed then."""
    command = [
        "-m",
        "edge_agent.cli",
        "record",
        "--config",
        _configuration(directory, broker.port),
        "--out",
        out,
    ]
    process = subprocess.Popen(
        [sys.executable, *map(str, (*command, *words))],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ},
    )  # fmt: skip
    said: list[str] = []
    try:
        yield said
    finally:
        process.send_signal(signal.SIGTERM)
        out_text, log = process.communicate(timeout=PATIENCE_SECONDS)
        said += [out_text, log]
    assert process.returncode == 0, log


def _publish_sample(listener: Listener, second: int, **readings: object) -> None:
    payload = {"time": START + second, **readings}
    listener.publish("plant/pump-1", json.dumps(payload).encode())


def test_what_is_published_is_on_disk_when_the_command_is_stopped(broker: Broker, tmp_path: Path) -> None:
    """Rows, single sensors and binary samples of sensors that nobody named before are written out at SIGTERM."""
    out = tmp_path / "history"
    with Listener(broker.port, f"{STATUS}") as listener, _recorder(broker, tmp_path, out) as said:
        listener.wait_for(STATUS, b"online")
        for second in range(50):
            _publish_sample(listener, second, flow=40 + second, state="running")
            listener.publish("line/pump-1/pressure", b'{"time": %d, "value": %d}' % (START + second, second))
        listener.publish("plant/pump-2", write_binary(["level"], [[START + 7.0, 3.5]]))
        listener.publish("plant/pump-1", b"no json")
    listened = json.loads(listener.wait_for(STATUS, b"stopped"))
    assert listened["node"] == "edge"
    history = read_history([out])
    assert sorted(history.sensors) == ["flow", "level", "pressure"]
    assert len(history.time) == 51
    cells = _cells(history)
    assert cells["pump-1", START + 20, "flow"] == 60
    assert cells["pump-1", START + 20, "pressure"] == 20
    assert cells["pump-2", START + 7, "level"] == 3.5
    assert "101 readings of 3 sensors and 2 assets in 1 files" in said[0]
    assert "1 × not_json" in said[0]
    assert "50 × unknown_sensor" in said[0]


def _cells(history: History) -> dict[tuple[str, float, str], float]:
    return {
        (history.assets[asset], time, sensor): float(cell)
        for asset, time, row in zip(
            history.asset.tolist(), history.time.tolist(), history.values, strict=True
        )
        for sensor, cell in zip(history.sensors, row, strict=True)
        if np.isfinite(cell)
    }


def test_from_the_broker_to_a_bundle(broker: Broker, tmp_path: Path) -> None:
    """Recorded in two lives and several files, a history is fitted with a command and the time of day as inputs."""
    out, rng = tmp_path / "history", np.random.default_rng(0)
    valve = np.repeat(rng.integers(0, 3, 30), 10)
    for life in (range(150), range(150, 300)):
        with Listener(broker.port, f"{STATUS}") as listener, _recorder(broker, tmp_path, out, "--rows", "60"):
            listener.wait_for(STATUS, b"online")
            rows: list[dict[str, Any]] = [
                {
                    "time": START + second,
                    "flow": float(40 + valve[max(second - 1, 0)] + 0.1 * rng.normal()),
                    "pressure": float(6 + 0.1 * rng.normal()),
                    "valve": int(valve[second]),
                }
                for second in life
            ]
            for row in rows:
                listener.publish("plant/pump-1", json.dumps(row).encode())
    assert len(list(out.glob("*.parquet"))) >= 4
    bundle = tmp_path / "bundle"
    words = (
        "fit", "--history", out, "--out", bundle, "--epochs", "1", "--units", "4", "--window", "8", "--json",
        "--exogenous", "valve", "--calendar", "hour", "--time-zone", "Europe/Berlin", "--scaling", "robust",
        "--missing", "interpolate",
    )  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "trainer.cli", *map(str, words)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rows"] == 300
    manifest = read_bundle(bundle).manifest
    assert manifest.inputs == (
        "sensor:flow", "sensor:pressure", "missing:flow", "missing:pressure", "exogenous:valve",
        "calendar:hour_sin", "calendar:hour_cos",
    )  # fmt: skip
    assert manifest.time_zone == "Europe/Berlin"
    assert manifest.architecture["scaling"] == "robust"


def _messages(*pairs: tuple[str, bytes]) -> list[Messages]:
    batch = Messages(arrival=START)
    for topic, payload in pairs:
        batch.add(topic.encode(), payload)
    return [batch]


def test_sensors_are_known_by_their_readings() -> None:
    """A name is a sensor once it has a number; text, null, foreign topics and what is no JSON name none."""
    inputs = (MqttInput(topic="plant/{asset}"), MqttInput(topic="line/{asset}/{sensor}", value_key="v"))
    discovery = SensorDiscovery(inputs)
    found = discovery.names(
        _messages(
            ("plant/a", b'[{"time": 5, "flow": 1, "state": "on", "level": null}, {"temp": 2.5}]'),
            ("line/a/pressure", b'{"v": 3}'),
            ("line/a/mode", b'{"v": "auto"}'),
            ("elsewhere/a", b'{"odd": 1}'),
            ("plant/a", b"{"),
            ("plant/a", write_binary(["level", "speed"], [[1.0, 2.0, 3.0]])),
        )
    )
    assert sorted(found) == ["flow", "level", "pressure", "speed", "temp"]


def test_a_publisher_that_makes_up_names_does_not_fill_the_memory() -> None:
    """Beyond so many names no further one is taken in."""
    discovery = SensorDiscovery((MqttInput(topic="plant/{asset}"),))
    for batch in range(3):
        made_up = {f"s{batch}_{n}": 1 for n in range(MOST_NAMES)}
        found = discovery.names(_messages(("plant/a", json.dumps(made_up).encode())))
        assert len(found) == (MOST_NAMES if batch == 0 else 0)


def test_a_failing_disk_is_one_line_and_an_exit_code(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """A directory that goes away is told of once; at the end what was lost is counted, and the code is 1."""
    out = tmp_path / "history"
    recorder = Recorder(
        load_settings(_configuration(tmp_path), bundle_needed=False), RecordOptions(out, 10, 1)
    )
    for rows in recorder._decoded(_messages(("plant/a", b'{"flow": 1, "level": 2}'))):
        recorder.recording.add(rows)
    out.rmdir()
    with caplog.at_level("ERROR"):
        recorder._write()
        recorder._write()
    assert [record.getMessage() for record in caplog.records] == [
        f"{out}: cannot be written, 2 readings wait: {caplog.records[0].getMessage().split('wait: ')[1]}"
    ]
    recorder._stop = True
    assert recorder.run() == 1
    assert "2 readings were lost" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        (("--minutes", "0"), "--minutes: is 0, must be above 0"),
        (("--minutes", "nan"), "--minutes: is nan, must be above 0"),
        (("--rows", "0"), "--rows: is 0, at least 1 is needed"),
    ],
)
def test_record_refuses_an_option_out_of_range(
    words: tuple[str, ...], rule: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A number out of its range is refused before anything is opened."""
    said = run(
        main, capsys, "record", "--config", _configuration(tmp_path), "--out", tmp_path / "out", *words
    )
    assert said.code == 2
    assert rule in said.refusal()


def test_record_names_a_place_that_is_no_directory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file as `--out` is refused by its path."""
    config = _configuration(tmp_path)
    said = run(main, capsys, "record", "--config", config, "--out", config)
    assert said.code == 1
    assert said.refusal().startswith(f"edge-agent: {config}: ")
