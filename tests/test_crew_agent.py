"""Laws of the daemon with workers, against a real broker: it does what it does alone, and lives and dies as one."""

import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_agent.agent import open_agent
from edge_agent.contract.errors import ConfigurationError
from edge_agent.crew_agent import CrewAgent, open_crew
from edge_agent.life import Life
from edge_agent.partition import owner
from edge_agent.settings import Settings
from tests.broker import PATIENCE_SECONDS, Broker, Listener, broker
from tests.small_bundle import normal_values
from tests.test_agent import ROOT, _faulty, _payload, _settings, bundle

__all__ = ["broker", "bundle"]
ASSETS = [f"p{number}" for number in range(12)]
PAUSE = threading.Event()


@contextmanager
def _running(settings: Settings) -> Iterator[Any]:
    agent: Life = open_crew(settings) if settings.agent.workers > 1 else open_agent(settings)
    thread = threading.Thread(target=agent.run)
    thread.start()
    try:
        assert agent.watch.started.wait(PATIENCE_SECONDS)
        yield agent
    finally:
        agent.request_stop()
        thread.join(PATIENCE_SECONDS)
        assert not thread.is_alive()


def _crew(bundle: Path, port: int, workers: int = 2, **more: Any) -> Settings:
    return _settings(bundle, port, **{**more, "agent": {"workers": workers, **more.get("agent", {})}})


def _series(port: int) -> dict[str, float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text: str = answer.read().decode()
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines}


def _wait_for(agent: Any, series: str, least: float) -> dict[str, float]:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (found := _series(agent.web.port)).get(series, -1.0) >= least:
        assert time.monotonic() < deadline, found
    return found


def _wait_until_ready(agent: Any) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while agent.watch.unready():
        assert time.monotonic() < deadline, agent.watch.unready()
        PAUSE.wait(0.01)


def _story(broker: Broker, settings: Settings) -> tuple[dict[str, list[Any]], dict[str, float]]:
    """Return the events of each asset, and the metrics, after all assets had the same disturbances."""
    scored = len(ASSETS) * (300 - 8 - 1)
    with Listener(broker.port, f"{ROOT}/#") as listener, _running(settings) as agent:
        _wait_until_ready(agent)
        streams = {asset: _faulty(300, 70 + 5 * at, 140) for at, asset in enumerate(ASSETS)}
        for first in range(0, 300, 20):
            for asset, values in streams.items():
                listener.publish(f"plant/{asset}", _payload(values[first : first + 20], first), qos=1)
        series = _wait_for(agent, "forewarn_samples_scored_total", scored)
        ends = sum(value for name, value in series.items() if re.match(r".*alarm_events.*kind=\"end\"", name))
        heard: dict[str, list[Any]] = {asset: [] for asset in ASSETS}
        for asset in ASSETS:
            listener.wait_for(f"{ROOT}/event/{asset}", b'"kind":"end"')
        for topic, payload, _ in listener.heard:
            if topic.startswith(f"{ROOT}/event/"):
                heard[topic.rpartition("/")[2]].append(json.loads(payload))
        assert ends >= len(ASSETS)
    return heard, series


def _rounded(content: Any) -> Any:
    """Return events without the last digits, in which a batch of another size may differ."""
    if isinstance(content, dict):
        return {key: _rounded(value) for key, value in content.items()}
    if isinstance(content, list):
        return [_rounded(value) for value in content]
    return pytest.approx(content, rel=1e-5, abs=1e-6) if isinstance(content, float) else content


def test_two_workers_say_what_one_process_says(broker: Broker, bundle: Path) -> None:
    """For the same stream over many assets events, their order within an asset, scores and sums are the same."""
    alone, counted_alone = _story(broker, _crew(bundle, broker.port, 1))
    together, counted = _story(broker, _crew(bundle, broker.port, 2))
    assert {owner(asset, 2) for asset in ASSETS} == {0, 1}
    assert _rounded(together) == _rounded(alone)
    changing = ("seconds", "process_", "python_", "outbox", "published")
    same = {name for name in counted_alone if not any(word in name for word in changing)}
    assert same <= set(counted)
    for name in same:
        assert counted[name] == pytest.approx(counted_alone[name], abs=1e-6, nan_ok=True), name
    assert counted["forewarn_messages_received_total"] == 15 * len(ASSETS)
    assert counted["forewarn_score_latency_seconds_count"] >= 15 * len(ASSETS)
    # A process each, beside this one.
    assert counted["process_resident_memory_bytes"] > counted_alone["process_resident_memory_bytes"]


def test_the_assets_of_all_workers_are_counted_together(broker: Broker, bundle: Path) -> None:
    """One asset more than `max_assets` is refused whichever worker would have it, and counted like other bad topics."""
    settings = _crew(
        bundle, broker.port, agent={"max_assets": 5}, metrics={"port": 0, "max_series_assets": 3}
    )
    with Listener(broker.port, f"{ROOT}/#") as listener, _running(settings) as agent:
        _wait_until_ready(agent)
        for asset in ASSETS[:6]:
            listener.publish(f"plant/{asset}", b'{"flow": 1}')
        listener.publish(f"plant/{ASSETS[0]}", b'{"flow": 1}', retain=True)
        listener.publish(f"plant/{ASSETS[0]}", b"", retain=True)
        series = _wait_for(agent, 'forewarn_readings_rejected_total{reason="too_many_assets"}', 1)
        series = _wait_for(agent, "forewarn_readings_received_total", 6)
        assert series["forewarn_assets"] == 5
        assert [name for name in series if name.startswith("forewarn_asset_score{")] == [
            f'forewarn_asset_score{{asset="{asset}"}}' for asset in ASSETS[:3]
        ]


def test_alarms_of_the_life_before_are_cleared(broker: Broker, bundle: Path) -> None:
    """A retained alarm that the worker of its asset does not know is cleared."""
    with Listener(broker.port, f"{ROOT}/#") as listener:
        for asset in ASSETS[:4]:
            listener.publish(f"{ROOT}/alarm/{asset}", b'{"kind":"start"}', retain=True)
        with _running(_crew(bundle, broker.port)) as agent:
            _wait_until_ready(agent)
            _wait_for(agent, "forewarn_events_published_total", 4)
    with Listener(broker.port, f"{ROOT}/#") as late:
        late.wait_for(f"{ROOT}/status", b'"stopped"')
        assert [topic for topic, _, _ in late.heard if "/alarm/" in topic] == []


def _command(listener: Listener, name: str, number: str, **fields: Any) -> dict[str, Any]:
    topic = f"{ROOT}/cmd/{name}/{number}"
    listener.publish(topic, json.dumps({"status": "init", "time": time.time(), **fields}).encode())
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        for heard, payload, _ in tuple(listener.heard):
            said = json.loads(payload) if heard == topic and payload else {}
            if said.get("status") in ("successful", "failed"):
                return dict(said)
        PAUSE.wait(0.01)
    raise AssertionError(f"{topic} was not answered")


def test_feedback_reaches_the_right_worker_and_survives(broker: Broker, bundle: Path, tmp_path: Path) -> None:
    """Commands on assets and alarms of every worker act there, over a restart with any number of workers, and once."""
    more: dict[str, Any] = {"control": {"enabled": True}, "feedback": {"directory": tmp_path}}
    few = [next(asset for asset in ASSETS if owner(asset, 2) == worker) for worker in (0, 1)]
    with Listener(broker.port, f"{ROOT}/#") as listener:
        with _running(_crew(bundle, broker.port, **more)) as agent:
            _wait_until_ready(agent)
            for asset in few:
                listener.publish(f"plant/{asset}", _payload(_faulty()))
                alarm_id = json.loads(listener.wait_for(f"{ROOT}/event/{asset}", b'"start"'))["alarm_id"]
                assert _command(listener, "mark", f"m-{asset}", alarm_id=alarm_id, label="true_fault")[
                    "status"
                ] == ("successful")
                done = _command(listener, "mute", f"s-{asset}", asset=asset, seconds=3600)
                assert done["status"] == "successful"
                _wait_for(agent, f'forewarn_muted{{asset="{asset}"}}', 1)
            nobody = _command(listener, "mark", "m-none", alarm_id="x", label="true_fault")
            assert (nobody["status"], nobody["reason"]) == ("failed", "alarm 'x' is not known")
            assert "no such command" in _command(listener, "explode", "e1", asset="p1")["reason"]
        kept = sorted(path.name for path in tmp_path.glob("feedback*"))
        assert kept == ["feedback-1-of-2.json", "feedback-2-of-2.json"]
        for workers in (3, 1):
            with _running(_crew(bundle, broker.port, workers, **more)) as agent:
                _wait_until_ready(agent)
                for asset in few:
                    listener.publish(f"plant/{asset}", _payload(normal_values(30, 5), 1000))
                    _wait_for(agent, f'forewarn_muted{{asset="{asset}"}}', 1)
                again = _command(listener, "unmute", f"u-{workers}", asset=few[0])
                assert again["status"] == "successful"
                assert (
                    _command(listener, "mute", f"t-{workers}", asset=few[0], seconds=99)["status"]
                    == "successful"
                )
        assert [path.name for path in tmp_path.glob("feedback*")] == ["feedback.json"]
        marks = json.loads((tmp_path / "feedback.json").read_text("utf-8"))["alarms"].values()
        assert sorted(one["asset"] for one in marks if one["mark"]) == sorted(few)


def test_a_bundle_that_cannot_be_used_stops_the_start(bundle: Path) -> None:
    """What a worker refuses is the error of the daemon, in the same words as without workers."""
    settings = _crew(bundle, 1, quality={"ranges": {"level": [0.0, 1.0]}})
    with pytest.raises(ConfigurationError, match=r"quality\.ranges: level: is no sensor of the bundle"):
        open_crew(settings)


class _Process:
    """The daemon as systemd would start it, with two workers."""

    def __init__(self, bundle: Path, port: int, directory: Path) -> None:
        path = directory / "agent.toml"
        path.write_text(
            f"[agent]\nworkers = 2\n[bundle]\npath = {json.dumps(str(bundle))}\n"
            f"[mqtt]\nport = {port}\n[metrics]\nport = 0\n"
        )
        self.notified = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notified.bind(str(directory / "notify"))
        self.notified.settimeout(PATIENCE_SECONDS)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "edge_agent.cli", "run", "--config", str(path)],
            env={**os.environ, "NOTIFY_SOCKET": str(directory / "notify")},
            stderr=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> "_Process":
        assert self.notified.recv(4096).startswith(b"READY=1")
        assert self.notified.recv(4096).startswith(b"WATCHDOG=1")
        return self

    def __exit__(self, *_arguments: object) -> None:
        self.process.kill()
        self.process.communicate()
        self.notified.close()

    def workers(self) -> list[int]:
        """Return the ids of its workers."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text("utf-8")
        return [int(number) for number in children.split()]

    def silence(self) -> bool:
        """Return whether the watchdog was not fed for longer than twice its interval."""
        self.notified.settimeout(0.0)
        while True:
            try:
                self.notified.recv(4096)
            except BlockingIOError:
                break
        self.notified.settimeout(2.5)
        try:
            self.notified.recv(4096)
        except TimeoutError:
            return True
        return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_all_cleanly(
    broker: Broker, bundle: Path, tmp_path: Path, number: signal.Signals
) -> None:
    """A signal, though it goes to every process as systemd sends it, ends in `stopped`, exit code 0 and no worker."""
    with (
        Listener(broker.port, f"{ROOT}/#") as listener,
        _Process(bundle, broker.port, tmp_path) as daemon,
    ):
        listener.wait_for(f"{ROOT}/status", b'"online"')
        workers = daemon.workers()
        assert len(workers) == 2
        for process in (*workers, daemon.process.pid):
            os.kill(process, number)
        listener.wait_for(f"{ROOT}/status", b'"stopped"')
        assert daemon.process.wait(PATIENCE_SECONDS) == 0
        for worker in workers:
            assert not Path(f"/proc/{worker}").exists()


def test_the_end_of_a_worker_is_the_end_of_the_daemon(broker: Broker, bundle: Path, tmp_path: Path) -> None:
    """A killed worker ends the daemon with one line and a status that has it started anew; the last will speaks."""
    with (
        Listener(broker.port, f"{ROOT}/#") as listener,
        _Process(bundle, broker.port, tmp_path) as daemon,
    ):
        listener.wait_for(f"{ROOT}/status", b'"online"')
        first, second = daemon.workers()
        os.kill(second, signal.SIGKILL)
        assert daemon.process.wait(PATIENCE_SECONDS) == 1
        assert daemon.process.stderr is not None
        errors = [line for line in daemon.process.stderr if line.startswith("ERROR")]
        assert errors == [
            f"ERROR worker 2 of 2 (process {second}) was ended by signal 9; the agent ends, to be started anew\n"
        ]
        listener.wait_for(f"{ROOT}/status", b'"offline"')
        assert not Path(f"/proc/{first}").exists()


def test_workers_do_not_outlive_the_daemon(broker: Broker, bundle: Path, tmp_path: Path) -> None:
    """When the process with the connection is killed its workers end by themselves."""
    with _Process(bundle, broker.port, tmp_path) as daemon:
        watches = [os.pidfd_open(worker) for worker in daemon.workers()]
        daemon.process.kill()
        for watch in watches:
            assert _ended(watch)


def _ended(watch: int) -> bool:
    poll = select.poll()
    poll.register(watch, select.POLLIN)
    ended = bool(poll.poll(PATIENCE_SECONDS * 1000))
    os.close(watch)
    return ended


def test_the_watchdog_is_fed_only_while_every_worker_goes_round(
    broker: Broker, bundle: Path, tmp_path: Path
) -> None:
    """While one worker stands still systemd hears nothing; when it goes on, it does again."""
    with _Process(bundle, broker.port, tmp_path) as daemon:
        worker = daemon.workers()[0]
        os.kill(worker, signal.SIGSTOP)
        # What it said before it stood still is still on its way.
        daemon.silence()
        assert daemon.silence()
        os.kill(worker, signal.SIGCONT)
        daemon.notified.settimeout(PATIENCE_SECONDS)
        assert daemon.notified.recv(4096).startswith(b"WATCHDOG=1")


def _held(agent: CrewAgent) -> int:
    """Return how many messages were received and are not acknowledged."""
    batches = [messages for handed in tuple(agent.crew._batches) for messages in handed.messages]
    return sum(map(len, batches)) + agent._client.waiting


def test_a_worker_that_is_behind_holds_the_receipts_back(broker: Broker, bundle: Path) -> None:
    """What a worker has not worked off is not acknowledged, nothing is lost, and all of it is scored in the end."""
    settings = _crew(bundle, broker.port)
    with Listener(broker.port, f"{ROOT}/#") as listener, _running(settings) as agent:
        assert isinstance(agent, CrewAgent)
        _wait_until_ready(agent)
        asset = next(asset for asset in ASSETS if owner(asset, 2) == 0)
        other = next(asset for asset in ASSETS if owner(asset, 2) == 1)
        os.kill(agent.crew.processes[0], signal.SIGSTOP)
        try:
            values = normal_values(200, 5)
            for row in range(200):
                for name in (asset, other):
                    listener.publish(f"plant/{name}", _payload(values[row : row + 1], row))
            deadline = time.monotonic() + PATIENCE_SECONDS
            # So many messages this broker sends before the first of them is acknowledged.
            while (held := _held(agent)) < 20:
                assert time.monotonic() < deadline, held
                PAUSE.wait(0.01)
            assert held == 20
            assert len(agent.crew._batches) <= 8
        finally:
            os.kill(agent.crew.processes[0], signal.SIGCONT)
        series = _wait_for(agent, "forewarn_samples_scored_total", 2 * (200 - 8 - 1))
        assert series["forewarn_messages_received_total"] == 400
        assert series["forewarn_outbox_dropped_total"] == 0
        assert np.isfinite(series[f'forewarn_asset_score{{asset="{asset}"}}'])
