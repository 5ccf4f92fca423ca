"""The journey a newcomer makes: history, fit, agent on a real broker, fault published, alarm received, metric scraped.

Where FOREWARN_DATA points at the public data, the pump is SKAB's; elsewhere it is simulated, under the same laws.
"""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_agent.history import History, read_history
from tests.broker import PATIENCE_SECONDS, Broker, Listener, broker, free_port

__all__ = ["broker"]
DATA = os.environ.get("FOREWARN_DATA")
MACHINES = ["valve1/0", "valve1/5", "valve2/1", "other/9"] if DATA else ["simulated"]
ROOT = "forewarn/edge"
TRAINED_ROWS = 400
STREAM_SECONDS = 240.0
SCRAPE_SECONDS = 0.2


@dataclass(frozen=True)
class Machine:
    """A fitted bundle, and what came after its history."""

    bundle: Path
    later: Path
    history: History
    label: tuple[float, float]


def _command(*arguments: str | float | Path) -> subprocess.CompletedProcess[str]:
    words = [str(word) for word in arguments]
    return subprocess.run(
        [sys.executable, "-m", *words], capture_output=True, text=True, timeout=300, check=False
    )


def _simulated(directory: Path) -> tuple[Path, Path, int]:
    """Return the trained part and the rest of a simulated run, and the rows of the first."""
    whole = directory / "whole.csv"
    made = _command(
        "trainer.cli", "simulate", "--out", whole, "--hours", 3, "--faults", "cavitation@9000+900:1.5"
    )
    assert made.returncode == 0, made.stderr
    return whole, directory, 7200


@pytest.fixture(scope="module", params=MACHINES)
def machine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """A machine whose history was fitted with the real command."""
    directory = tmp_path_factory.mktemp("machine")
    if DATA:
        source, trained = Path(DATA) / "skab" / f"{request.param}.csv", TRAINED_ROWS
    else:
        source, _, trained = _simulated(directory)
    lines = source.read_text(encoding="utf-8").splitlines()
    first, later = directory / "first.csv", directory / "later.csv"
    first.write_text("\n".join(lines[: trained + 1]) + "\n", encoding="utf-8")
    later.write_text("\n".join([lines[0], *lines[trained + 1 :]]) + "\n", encoding="utf-8")
    bundle = directory / "bundle"
    fitted = _command(
        "trainer.cli", "fit", "--history", first, "--out", bundle, "--epochs", 6, "--json"
    )  # fmt: skip
    assert fitted.returncode == 0, fitted.stderr
    assert json.loads(fitted.stdout)["rmse"] < json.loads(fitted.stdout)["persistence_rmse"]
    history = read_history([later])
    assert history.labels is not None
    labelled = history.time[history.labels > 0]
    return Machine(bundle, later, history, (float(labelled[0]), float(labelled[-1])))


@contextmanager
def _agent(machine: Machine, broker: Broker, directory: Path) -> Iterator[int]:
    """Run the installed daemon; yields the port of its metrics."""
    port = free_port()
    configuration = directory / "edge-agent.toml"
    configuration.write_text(
        f'[bundle]\npath = "{machine.bundle}"\n[mqtt]\nport = {broker.port}\n'
        f'[[mqtt.inputs]]\ntopic = "plant/{{asset}}/{{sensor}}"\nqos = 1\n[metrics]\nport = {port}\n',
        encoding="utf-8",
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "edge_agent.cli", "run", "--config", str(configuration)],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield port
    finally:
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0, log


def _replayed(machine: Machine) -> dict[str, Any]:
    done = _command(
        "edge_agent.cli", "replay", "--bundle", machine.bundle, "--history", machine.later, "--json"
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def _metrics(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        text: str = answer.read().decode()
    return text


def _value(text: str, name: str) -> float:
    found = re.search(rf"^{name}(?:{{[^}}]*}})? (\S+)$", text, re.MULTILINE)
    return float(found.group(1)) if found else float("nan")


def _wait_until_scored(port: int, count: int) -> str:
    deadline = time.monotonic() + STREAM_SECONDS
    pause = threading.Event()
    while True:
        text = _metrics(port)
        if _value(text, "forewarn_samples_scored_total") >= count:
            return text
        assert time.monotonic() < deadline, text
        # Scraped without a pause, a busy machine's agent does little else than write its page.
        pause.wait(SCRAPE_SECONDS)


def _publish_sensor_by_sensor(listener: Listener, history: History) -> None:
    for stamp, row in zip(history.time, history.values, strict=True):
        for name, value in zip(history.sensors, row, strict=True):
            if np.isfinite(value):
                payload = json.dumps({"time": float(stamp), "value": float(value)}).encode()
                listener.publish(f"plant/pump-1/{name}", payload, qos=1)


def _kinds(listener: Listener, kind: str, stamp: str) -> list[str]:
    events = [json.loads(payload) for topic, payload, _ in listener.heard if "/event/" in topic]
    return sorted({event[stamp] for event in events if event["kind"] == kind})


def _last_ends(listener: Listener) -> list[str]:
    """Return when alarms ended for good: an alarm that was reopened goes on after its end."""
    last: dict[str, dict[str, Any]] = {}
    for topic, payload, _ in listener.heard:
        if "/event/" in topic and "alarm_id" in (event := json.loads(payload)):
            last[event["alarm_id"]] = event
    return sorted(event["time"] for event in last.values() if event["kind"] == "end")


def test_a_fault_published_sensor_by_sensor_is_the_alarm_that_replay_shows(
    machine: Machine, broker: Broker, tmp_path: Path
) -> None:
    """Live events equal replayed ones; at most one begins before the fault, one overlaps it; metrics tell the score."""
    replayed = _replayed(machine)
    starts = sorted(event["start"] for event in replayed["events"])
    ends = sorted(event["end"] for event in replayed["events"] if event["end"])
    with Listener(broker.port, "forewarn/#") as listener, _agent(machine, broker, tmp_path) as port:
        listener.wait_for(f"{ROOT}/status", b"online")
        _publish_sensor_by_sensor(listener, machine.history)
        text = _wait_until_scored(port, replayed["scored"])
        for start in starts:
            listener.wait_for(f"{ROOT}/event/pump-1", start.encode())
        for end in ends:
            listener.wait_for(f"{ROOT}/event/pump-1", end.encode())
        assert _kinds(listener, "start", "start_time") == starts
        assert _last_ends(listener) == ends
    begin, end = machine.label
    onsets = [_epoch(event["start"]) for event in replayed["events"]]
    finishes = [_epoch(event["end"]) if event["end"] else np.inf for event in replayed["events"]]
    assert sum(onset < begin for onset in onsets) <= 1
    assert any(onset <= end and finish >= begin for onset, finish in zip(onsets, finishes, strict=True))
    assert _value(text, "forewarn_score_threshold") == 1.0
    assert np.isfinite(_value(text, "forewarn_asset_score"))
    assert _value(text, "forewarn_readings_received_total") == np.isfinite(machine.history.values).sum()
    assert 'forewarn_inference_provider_info{provider="cpu"} 1.0' in text


def test_evaluate_prints_every_promised_figure(machine: Machine, tmp_path: Path) -> None:
    """`evaluate --json` has all keys of the contract, finite or null, and writes one score a sample."""
    scores = tmp_path / "scores.csv"
    done = _command(
        "trainer.cli", "evaluate", "--bundle", machine.bundle, "--history", machine.later, "--scores", scores,
        "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    promised = (
        "rmse mae persistence_rmse precision recall f1 far mar average_precision roc_auc vus_pr event_recall "
        "event_precision alarms_per_week false_alarms_per_week median_delay_seconds time_in_alarm_ratio "
        "all_positive_f1"
    )
    assert set(promised.split()) <= set(figures)
    assert figures["event_recall"] == 1.0
    sequences = "vus_pr vus_roc range_f1 affiliation_f1 corrected_event_f05"
    assert all(0 < figures[key] <= 1 for key in sequences.split())
    rows = list(csv.DictReader(scores.open(encoding="utf-8")))
    assert len(rows) == figures["samples"]
    assert set(rows[0]) == {"time", "asset", "score", "alarm"}


def _epoch(stamp: str) -> float:
    return float(np.datetime64(stamp.rstrip("Z"), "ms").astype(np.int64)) / 1000.0
