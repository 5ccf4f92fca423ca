"""Laws of the daemon's life, against a real broker and a real bundle."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from edge_agent.agent import Agent, open_agent
from edge_agent.contract.errors import ConfigurationError
from edge_agent.contract.types import Float32
from edge_agent.packets import Messages
from edge_agent.settings import Settings
from tests.broker import PATIENCE_SECONDS, Broker, Listener, broker
from tests.small_bundle import SENSORS, WINDOW, make_small_bundle, normal_values

__all__ = ["broker"]
SCHEMAS = Path(__file__).parent.parent / "edge_agent" / "schemas"
START = 1_700_000_000
ROOT = "forewarn/edge"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole, small bundle."""
    return make_small_bundle(tmp_path_factory.mktemp("small") / "bundle").directory


def _settings(bundle: Path, port: int, **more: Any) -> Settings:
    inputs = [{"topic": "plant/{asset}"}, {"topic": "single/{asset}/{sensor}"}]
    content = {
        "bundle": {"path": bundle},
        "mqtt": {"port": port, "inputs": inputs},
        "metrics": {"port": 0},
        **more,
    }
    return Settings.model_validate(content)


@contextmanager
def _running(settings: Settings) -> Iterator[Agent]:
    agent = open_agent(settings)
    thread = threading.Thread(target=agent.run)
    thread.start()
    try:
        assert agent.watch.started.wait(PATIENCE_SECONDS)
        yield agent
    finally:
        agent.request_stop()
        thread.join(PATIENCE_SECONDS)
        assert not thread.is_alive()


def _page(agent: Agent, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{agent.web.port}{path}", timeout=5) as answer:
        text: str = answer.read().decode()
    return text


def _metric(agent: Agent, series: str) -> float:
    found = re.search(rf"^{re.escape(series)} (\S+)$", _page(agent, "/metrics"), re.MULTILINE)
    return float(found.group(1)) if found else float("nan")


def _wait_for_metric(agent: Agent, series: str, least: float) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not _metric(agent, series) >= least:
        assert time.monotonic() < deadline, _page(agent, "/metrics")


def _wait_until_ready(agent: Agent, listener: Listener) -> None:
    listener.wait_for(f"{ROOT}/status", b"online")
    deadline = time.monotonic() + PATIENCE_SECONDS
    while agent.watch.unready():
        assert time.monotonic() < deadline, agent.watch.unready()


def _faulty(rows: int = 120, onset: int = 70, until: int | None = None) -> Float32:
    values = normal_values(rows, 5)
    values[onset:until, 1] += 2.5
    return values


def _payload(values: Float32, first: int = 0) -> bytes:
    rows = [
        {"time": START + first + row, **dict(zip(SENSORS, map(float, cells), strict=True))}
        for row, cells in enumerate(values)
    ]
    return json.dumps(rows).encode()


def _publish(listener: Listener, asset: str, values: Float32, first: int = 0) -> None:
    listener.publish(f"plant/{asset}", _payload(values, first))


def test_fault_becomes_an_alarm(broker: Broker, bundle: Path) -> None:
    """A fault in published readings is an event that names the sensor, a retained alarm, and metrics that agree."""
    with Listener(broker.port, f"{ROOT}/#") as listener, _running(_settings(bundle, broker.port)) as agent:
        _wait_until_ready(agent, listener)
        _publish(listener, "p1", _faulty())
        event = json.loads(listener.wait_for(f"{ROOT}/event/p1", b'"start"'))
        schema = json.loads((SCHEMAS / "event.json").read_text(encoding="utf-8"))
        jsonschema.validate(event, schema)
        assert event["sensors"][0]["name"] == "pressure"
        assert event["bundle"]["sha256"] == agent.turns.bundle.sha256
        assert START + 65 <= event["time_epoch"] <= START + 90
        listener.wait_for(f"{ROOT}/alarm/p1", event["alarm_id"].encode())
        _wait_for_metric(agent, "forewarn_events_published_total", 2)
        assert _metric(agent, 'forewarn_alarm_active{asset="p1"}') == 1
        assert _metric(agent, 'forewarn_asset_score{asset="p1"}') > 1
        severity = event["severity"]
        assert _metric(agent, f'forewarn_alarm_events_total{{kind="start",severity="{severity}"}}') == 1
        assert _metric(agent, "forewarn_readings_received_total") == 240
        assert _metric(agent, 'forewarn_inference_provider_info{provider="cpu"}') == 1
        assert _metric(agent, "forewarn_score_latency_seconds_count") >= 1
        assert _page(agent, "/-/ready") == "ready\n"
        assert _page(agent, "/-/healthy") == "healthy\n"
        assert "in alarm 1" in _page(agent, "/")
    with Listener(broker.port, f"{ROOT}/alarm/+", f"{ROOT}/status") as late:
        late.wait_for(f"{ROOT}/alarm/p1", b'"kind"')
        late.wait_for(f"{ROOT}/status", b'"stopped"')


def test_a_machine_that_goes_off_ends_its_alarm(broker: Broker, bundle: Path, tmp_path: Path) -> None:
    """The end says why, the retained alarm goes, and what has no score then is counted as off, not as lost."""
    copy = shutil.copytree(bundle, tmp_path / "bundle")
    manifest = json.loads((copy / "manifest.json").read_text("utf-8"))
    manifest["off_condition"] = {"sensor": "flow", "comparison": "<", "value": 10.0, "settle_ticks": 4}
    (copy / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    values = _faulty(150)
    values[110:, 0] = np.random.default_rng(0).random(40) * 0.1
    settings = _settings(copy, broker.port, alarms={"open_count": 2})
    with Listener(broker.port, f"{ROOT}/#") as listener, _running(settings) as agent:
        _wait_until_ready(agent, listener)
        assert agent.turns.pipeline.detector.alarm_rules.open_count == 2
        _publish(listener, "p1", values)
        end = json.loads(listener.wait_for(f"{ROOT}/event/p1", b'"end"'))
        assert (end["time_epoch"], end["end_reason"], end["score"]) == (START + 110, "off", None)
        listener.wait_for(f"{ROOT}/alarm/p1", b"")
        _wait_for_metric(agent, 'forewarn_samples_unscored_total{reason="off"}', 38)
        assert _metric(agent, 'forewarn_asset_off{asset="p1"}') == 1
        assert _metric(agent, 'forewarn_alarm_active{asset="p1"}') == 0
        assert _metric(agent, "forewarn_not_scoring") == 0
        assert _metric(agent, 'forewarn_alarms_held_back_total{reason="cool_down"}') == 0


def test_dead_sensor_is_data_quality_and_no_alarm(broker: Broker, bundle: Path) -> None:
    """A sensor that sends nonsense is an event of its own kind and a series, until it is back; no alarm is raised."""
    values = normal_values(160, 5)
    values[60:120, 1] = -9999.0
    series = 'forewarn_data_quality_active{asset="p1",reason="out_of_range",sensor="pressure"}'
    schema = json.loads((SCHEMAS / "event.json").read_text(encoding="utf-8"))
    with Listener(broker.port, f"{ROOT}/#") as listener, _running(_settings(bundle, broker.port)) as agent:
        _wait_until_ready(agent, listener)
        _publish(listener, "p1", values[:100])
        start = json.loads(listener.wait_for(f"{ROOT}/event/p1", b'"data_quality"'))
        _wait_for_metric(agent, series, 1)
        _publish(listener, "p1", values[100:], 100)
        end = json.loads(listener.wait_for(f"{ROOT}/event/p1", b'"phase":"end"'))
        for event in (start, end):
            jsonschema.validate(event, schema)
            assert [(one["name"], one["reason"]) for one in event["sensors"]] == [
                ("pressure", "out_of_range")
            ]
        assert (start["phase"], start["time_epoch"], end["time_epoch"]) == ("start", START + 62, START + 124)
        assert start["episode_id"] == end["episode_id"]
        _wait_for_metric(agent, "forewarn_samples_scored_total", 150)
        assert np.isnan(_metric(agent, series))
        assert _metric(agent, 'forewarn_data_quality_events_total{reason="out_of_range"}') == 1
        assert not any(topic.startswith(f"{ROOT}/alarm/") for topic, _, _ in listener.heard)


def test_a_range_for_an_unknown_sensor_stops_the_start(bundle: Path) -> None:
    """A configured range names a sensor of the bundle, or the start fails with the key and the name."""
    settings = _settings(bundle, 1, quality={"ranges": {"level": [0.0, 1.0]}})
    with pytest.raises(ConfigurationError, match=r"quality\.ranges: level: is no sensor of the bundle"):
        open_agent(settings)


def test_end_clears_the_retained_alarm(broker: Broker, bundle: Path) -> None:
    """When the machine is well again the end is published and nothing stays retained."""
    with Listener(broker.port, f"{ROOT}/#") as listener, _running(_settings(bundle, broker.port)) as agent:
        _wait_until_ready(agent, listener)
        _publish(listener, "hall-1", _faulty(rows=600, until=120))
        end = json.loads(listener.wait_for(f"{ROOT}/event/hall-1", b'"end"'))
        assert end["sequence"] >= 2
        _wait_for_metric(agent, "forewarn_events_published_total", 4)
    with Listener(broker.port, f"{ROOT}/#") as late:
        late.wait_for(f"{ROOT}/status", b'"stopped"')
        assert [topic for topic, _, _ in late.heard if "/alarm/" in topic] == []


def test_sensor_by_sensor_is_the_same_as_whole_rows(broker: Broker, bundle: Path) -> None:
    """Readings that come one sensor a message lead to the same event as whole rows do."""
    values = _faulty()
    with Listener(broker.port, f"{ROOT}/#") as listener, _running(_settings(bundle, broker.port)) as agent:
        _wait_until_ready(agent, listener)
        _publish(listener, "rows", values)
        whole = json.loads(listener.wait_for(f"{ROOT}/event/rows", b'"start"'))
        for row, cells in enumerate(values):
            for sensor, value in zip(SENSORS, cells, strict=True):
                payload = json.dumps({"time": START + row, "value": float(value)}).encode()
                listener.publish(f"single/cells/{sensor}", payload)
        single = json.loads(listener.wait_for(f"{ROOT}/event/cells", b'"start"'))
    assert single["time"] == whole["time"]
    assert single["score"] == pytest.approx(whole["score"], abs=1e-6)
    assert [share["name"] for share in single["sensors"]] == [share["name"] for share in whole["sensors"]]


def test_an_agent_that_rests_scores_at_once_what_came_meanwhile(broker: Broker, bundle: Path) -> None:
    """With a rest after each batch the same samples are scored in a few turns instead of one for each message."""
    rows = _faulty(rows=60)
    with (
        _running(_settings(bundle, broker.port, agent={"rest_milliseconds": 500.0})) as agent,
        Listener(broker.port, "forewarn/#") as listener,
    ):
        _wait_until_ready(agent, listener)
        turns: list[int] = []
        process = agent.turns.process

        def counted(batch: list[Messages], between: Callable[[], None]) -> None:
            turns.append(sum(map(len, batch)))
            process(batch, between)

        agent.turns.process = counted  # type: ignore[method-assign]  # to count the turns
        for first, row in enumerate(rows):
            _publish(listener, "pump-1", row[None], first)
        _wait_for_metric(agent, "forewarn_messages_received_total", len(rows))
        assert sum(turns) == len(rows)
        assert len(turns) <= len(rows) / 3


def test_bad_payloads_are_counted_and_stop_nothing(broker: Broker, bundle: Path) -> None:
    """Every kind of bad message is counted under its reason, and the readings after it are scored."""
    bad = {
        "not_json": b"\xff{",
        "bad_time": b'{"time": "soon", "flow": 1}',
        "not_a_number": b'{"flow": "much"}',
        "unknown_sensor": b'{"level": 1}',
        "nan": b'{"flow": NaN}',
        "infinite": b'{"flow": Infinity}',
        "too_large": b'{"flow": 1e300}',
        "future": json.dumps({"time": time.time() + 1e6, "flow": 1}).encode(),
    }
    settings = _settings(bundle, broker.port, agent={"max_assets": 1})
    with Listener(broker.port, f"{ROOT}/#") as listener, _running(settings) as agent:
        _wait_until_ready(agent, listener)
        for payload in bad.values():
            listener.publish("plant/p1", payload)
        listener.publish("plant/p2", b'{"flow": 1}')
        _publish(listener, "p1", normal_values(60, 5))
        _wait_for_metric(agent, "forewarn_samples_scored_total", 30)
        for reason in (*bad, "too_many_assets"):
            assert _metric(agent, f'forewarn_readings_rejected_total{{reason="{reason}"}}') == 1, reason
        assert np.isfinite(_metric(agent, 'forewarn_asset_score{asset="p1"}'))


def test_restart_clears_alarms_of_the_life_before(broker: Broker, bundle: Path) -> None:
    """A retained alarm that the new life does not know is cleared, and retained readings are not scored."""
    with Listener(broker.port, f"{ROOT}/#") as listener:
        listener.publish(f"{ROOT}/alarm/p1", b'{"kind":"start"}', retain=True)
        with _running(_settings(bundle, broker.port)) as agent:
            _wait_until_ready(agent, listener)
            _wait_for_metric(agent, "forewarn_events_published_total", 1)
    with Listener(broker.port, f"{ROOT}/#") as late:
        late.wait_for(f"{ROOT}/status", b'"stopped"')
        assert [topic for topic, _, _ in late.heard if "/alarm/" in topic] == []


def test_events_wait_for_the_broker(bundle: Path, tmp_path: Path) -> None:
    """An event that arises while there is no broker is published when there is one."""
    late = Broker(tmp_path)
    agent = open_agent(_settings(bundle, late.port))
    messages = Messages(arrival=time.time(), clock=time.monotonic())
    messages.add(b"plant/p1", _payload(_faulty()))
    agent._process([messages])
    thread = threading.Thread(target=agent.run)
    thread.start()
    _wait_for_metric(agent, "forewarn_outbox_pending", 2)
    late.start()
    with Listener(late.port, f"{ROOT}/#") as listener:
        listener.wait_for(f"{ROOT}/alarm/p1", b'"alarm_id"')
    agent.request_stop()
    thread.join(PATIENCE_SECONDS)
    assert agent.turns.tally.outbox_pending == 0
    late.kill()


def test_lost_connection_keeps_the_state(broker: Broker, bundle: Path) -> None:
    """After a lost connection scoring goes on where it was, without warming up again, and the alarm comes."""
    with _running(_settings(bundle, broker.port)) as agent:
        with Listener(broker.port, f"{ROOT}/#") as listener:
            _wait_until_ready(agent, listener)
            _publish(listener, "p1", _faulty(rows=72))
            _wait_for_metric(agent, "forewarn_samples_scored_total", 60)
            listener.wait_for(f"{ROOT}/status", b"online")
        broker.kill()
        broker.start()
        with Listener(broker.port, f"{ROOT}/#") as listener:
            _wait_until_ready(agent, listener)
            _publish(listener, "p1", _faulty()[72:], first=72)
            listener.wait_for(f"{ROOT}/event/p1", b'"start"')
        assert _metric(agent, "forewarn_mqtt_connects_total") == 2
        assert _metric(agent, 'forewarn_samples_unscored_total{reason="warming_up"}') == WINDOW


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_it_cleanly(broker: Broker, bundle: Path, tmp_path: Path, number: signal.Signals) -> None:
    """As a process it tells systemd that it is ready, and a signal ends it with `stopped` and exit code 0."""
    program = (
        "import sys; from pathlib import Path; from edge_agent.agent import run;"
        "from edge_agent.settings import load_settings; sys.exit(run(load_settings(Path(sys.argv[1]))))"
    )
    path = tmp_path / "agent.toml"
    path.write_text(
        f"[bundle]\npath = {json.dumps(str(bundle))}\n[mqtt]\nport = {broker.port}\n[metrics]\nport = 0\n"
    )
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        notified.bind(str(tmp_path / "notify"))
        notified.settimeout(PATIENCE_SECONDS)
        environment = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify")}
        with (
            Listener(broker.port, f"{ROOT}/status") as listener,
            subprocess.Popen([sys.executable, "-c", program, str(path)], env=environment) as process,
        ):
            assert notified.recv(4096).startswith(b"READY=1")
            assert notified.recv(4096).startswith(b"WATCHDOG=1")
            listener.wait_for(f"{ROOT}/status", b'"online"')
            process.send_signal(number)
            listener.wait_for(f"{ROOT}/status", b'"stopped"')
            assert process.wait(PATIENCE_SECONDS) == 0
