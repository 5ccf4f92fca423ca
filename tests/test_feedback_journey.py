"""What an operator says to a running agent, against a real broker: it acts at once, and over a restart."""

import json
import time
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from edge_agent.agent import open_agent
from edge_agent.contract.errors import ConfigurationError
from edge_agent.contract.types import Float32
from edge_agent.packets import Messages
from tests.broker import Broker, Listener, broker
from tests.small_bundle import normal_values
from tests.test_agent import (
    ROOT,
    SCHEMAS,
    _metric,
    _publish,
    _running,
    _settings,
    _wait_for_metric,
    _wait_until_ready,
    bundle,
)

__all__ = ["broker", "bundle"]
SCHEMA = json.loads((SCHEMAS / "command.json").read_text(encoding="utf-8"))
EVENT_SCHEMA = json.loads((SCHEMAS / "event.json").read_text(encoding="utf-8"))


def _controlled(bundle: Path, port: int, directory: Path) -> Any:
    return _settings(bundle, port, control={"enabled": True}, feedback={"directory": directory})


def _disturbed(sensor: int, seed: int, rows: int = 300) -> Float32:
    """Return readings with one sensor too high for a while: an alarm that begins and ends."""
    values = normal_values(rows, seed)
    values[60:130, sensor] += (15.0, 2.5)[sensor]
    return values


def _command(listener: Listener, name: str, number: str, **fields: Any) -> dict[str, Any]:
    """Ask for something and return what became of it."""
    topic = f"{ROOT}/cmd/{name}/{number}"
    request = {"status": "init", "time": time.time(), "by": "kim", **fields}
    jsonschema.validate(request, SCHEMA)
    listener.publish(topic, json.dumps(request).encode(), retain=True)
    listener.wait_for(topic, b'"status":"executing"')
    answer = json.loads(listener.wait_for(topic, b'"answered"', 2))
    jsonschema.validate(answer, SCHEMA)
    listener.publish(topic, b"", retain=True)
    return dict(answer)


def _event(listener: Listener, asset: str, content: bytes, count: int = 1) -> dict[str, Any]:
    event = json.loads(listener.wait_for(f"{ROOT}/event/{asset}", content, count))
    jsonschema.validate(event, EVENT_SCHEMA)
    return dict(event)


def test_a_false_alarm_is_not_raised_again(broker: Broker, bundle: Path, tmp_path: Path) -> None:
    """A mark suppresses the same disturbance, after a restart too, and no other kind; taken back, it does not."""
    settings = _controlled(bundle, broker.port, tmp_path / "state")
    with Listener(broker.port, f"{ROOT}/#") as listener:
        with _running(settings) as agent:
            _wait_until_ready(agent, listener)
            _publish(listener, "p1", _disturbed(1, 5))
            first = _event(listener, "p1", b'"kind":"start"')
            _event(listener, "p1", b'"kind":"end"')
            said = {"alarm_id": first["alarm_id"], "label": "false_alarm", "note": "valve test"}
            assert _command(listener, "mark", "m1", **said)["status"] == "successful"
        with _running(settings) as agent:
            listener.wait_for(f"{ROOT}/status", b"online", 2)
            _wait_until_ready(agent, listener)
            _publish(listener, "p1", _disturbed(1, 6), 1000)
            hidden = _event(listener, "p1", b'"suppressed"')
            assert (hidden["phase"], hidden["reason"]) == ("start", "look_alike")
            assert hidden["look_alike_of"] == first["alarm_id"] != hidden["alarm_id"]
            assert _event(listener, "p1", b'"suppressed"', 2)["phase"] == "end"
            _wait_for_metric(agent, 'forewarn_events_suppressed_total{reason="look_alike"}', 1)
            assert _metric(agent, 'forewarn_alarm_events_total{kind="start",severity="warning"}') == 0
            assert _metric(agent, 'forewarn_alarm_active{asset="p1"}') == 0
            _publish(listener, "p1", _disturbed(0, 7), 2000)
            other = _event(listener, "p1", b'"kind":"start"', 2)
            assert other["sensors"][0]["name"] == "flow"
            _event(listener, "p1", b'"kind":"end"', 2)
            taken_back = _command(listener, "mark", "m2", alarm_id=first["alarm_id"], label="none")
            assert taken_back["status"] == "successful"
            _publish(listener, "p1", _disturbed(1, 8), 3000)
            again = _event(listener, "p1", b'"kind":"start"', 3)
            assert again["sensors"][0]["name"] == "pressure"
            assert _metric(agent, 'forewarn_commands_total{name="mark",result="successful"}') == 1


def test_marking_the_open_alarm_hides_it(broker: Broker, bundle: Path, tmp_path: Path) -> None:
    """The active alarm that is marked as false is no longer retained; marked as true it is told of again."""
    with (
        Listener(broker.port, f"{ROOT}/#") as listener,
        _running(_controlled(bundle, broker.port, tmp_path)) as agent,
    ):
        _wait_until_ready(agent, listener)
        _publish(listener, "p1", _disturbed(1, 5)[:80])
        alarm_id = _event(listener, "p1", b'"kind":"start"')["alarm_id"]
        seen = _command(listener, "acknowledge", "a1", alarm_id=alarm_id, note="on my way")
        assert seen["status"] == "successful"
        # An alarm that grew has told of itself already.
        update = _event(listener, "p1", b'"acknowledged":{')
        assert (update["kind"], update["acknowledged"]["by"]) == ("update", "kim")
        _command(listener, "mark", "m1", alarm_id=alarm_id, label="false_alarm")
        assert _event(listener, "p1", b'"suppressed"')["look_alike_of"] == alarm_id
        listener.wait_for(f"{ROOT}/alarm/p1", b"")
        retained = [payload for topic, payload, _ in listener.heard if topic.endswith("/alarm/p1")]
        assert retained[-1] == b""
        updates = sum(b'"kind":"update"' in payload for payload in retained)
        _command(listener, "mark", "m2", alarm_id=alarm_id, label="true_fault")
        listener.wait_for(f"{ROOT}/alarm/p1", b'"kind":"update"', updates + 1)
        assert _metric(agent, 'forewarn_alarm_active{asset="p1"}') == 1


def test_maintenance_ends_the_alarm_and_raises_none(broker: Broker, bundle: Path, tmp_path: Path) -> None:
    """In maintenance an open alarm ends with that reason, readings are scored and nothing is raised; a mute hides."""
    settings = _controlled(bundle, broker.port, tmp_path)
    with Listener(broker.port, f"{ROOT}/#") as listener, _running(settings) as agent:
        _wait_until_ready(agent, listener)
        _publish(listener, "p1", _disturbed(1, 5)[:80])
        _event(listener, "p1", b'"kind":"start"')
        done = _command(listener, "maintenance", "w1", asset="p1", seconds=3600)
        assert (done["status"], done["asset"]) == ("successful", "p1")
        assert _event(listener, "p1", b'"kind":"end"')["end_reason"] == "maintenance"
        _wait_for_metric(agent, 'forewarn_maintenance{asset="p1"}', 1)
        assert _metric(agent, 'forewarn_alarm_active{asset="p1"}') == 0
        _command(listener, "maintenance", "w2", asset="p1", seconds=0)
        assert _metric(agent, 'forewarn_maintenance{asset="p1"}') == 0
        _command(listener, "mute", "s1", asset="p1", seconds=60)
        _publish(listener, "p1", _disturbed(1, 6)[:100], 1000)
        assert _event(listener, "p1", b'"suppressed"')["reason"] == "muted"
        assert _metric(agent, 'forewarn_muted{asset="p1"}') == 1
        _command(listener, "unmute", "u1", asset="p1")
        assert _event(listener, "p1", b'"suppressed"', 2)["phase"] == "end"
        _event(listener, "p1", b'"kind":"start"', 2)


def test_readings_of_a_maintenance_raise_nothing(broker: Broker, bundle: Path, tmp_path: Path) -> None:
    """A disturbance in the time of a maintenance is scored and raises no alarm, after a restart too."""
    settings = _controlled(bundle, broker.port, tmp_path)
    values = _disturbed(1, 5, 200)
    with Listener(broker.port, f"{ROOT}/#") as listener:
        with _running(settings) as agent:
            _wait_until_ready(agent, listener)
            listener.publish("plant/p1", _timed(values[:1], time.time()))
            _wait_for_metric(agent, "forewarn_assets", 1)
            until = time.time() + 86400
            assert _command(listener, "maintenance", "w1", asset="p1", until=until)["status"] == "successful"
        agent = open_agent(settings.model_copy(update={"mqtt": settings.mqtt.model_copy(update={"port": 1})}))
        agent.turns.pipeline.gate.max_future_seconds = np.inf
        messages = Messages(arrival=time.time())
        messages.add(b"plant/p1", _timed(values, time.time() + 60))
        (rows,) = agent.turns._intake.blocks([messages], 1000)
        agent.turns.orders.meet_new_assets()
        outcomes = agent.turns.pipeline.feed(rows, time.time())
        assert np.nanmax(outcomes.score) > 1.0
        assert outcomes.events == []
        assert not outcomes.alarm.any()


def _timed(values: Float32, first: float) -> bytes:
    rows = [
        {"time": first + row, "flow": float(flow), "pressure": float(pressure)}
        for row, (flow, pressure) in enumerate(values)
    ]
    return json.dumps(rows).encode()


def test_a_command_acts_once(broker: Broker, bundle: Path, tmp_path: Path) -> None:
    """A command that comes again, after a restart too, is not done again, and a bad one fails with a reason."""
    settings = _controlled(bundle, broker.port, tmp_path)
    request = {"status": "init", "time": time.time(), "asset": "p1"}
    topic = f"{ROOT}/cmd/reset/r1"
    with Listener(broker.port, f"{ROOT}/#") as listener:
        with _running(settings) as agent:
            _wait_until_ready(agent, listener)
            _publish(listener, "p1", normal_values(30, 5))
            _wait_for_metric(agent, "forewarn_samples_scored_total", 10)
            listener.publish(topic, json.dumps(request).encode())
            listener.wait_for(topic, b'"successful"')
            assert agent.turns.pipeline.detector.state.seen[0] == 0
            _publish(listener, "p1", normal_values(30, 6), 40)
            _wait_for_metric(agent, "forewarn_samples_scored_total", 30)
            listener.publish(topic, json.dumps(request).encode(), retain=True)
            listener.wait_for(topic, b'"successful"', 2)
            assert agent.turns.pipeline.detector.state.seen[0] > 0
            refused: list[tuple[str, dict[str, Any], str]] = [
                ("reset", {"asset": "p9"}, "asset 'p9' is not known"),
                ("explode", {"asset": "p1"}, "no such command"),
                ("mute", {"asset": "p1"}, "seconds or until"),
                ("mark", {"alarm_id": "x", "label": "true_fault"}, "alarm 'x' is not known"),
                ("unmute", {"asset": "p1", "time": time.time() - 4000}, "time: is 400"),
            ]
            for number, (name, fields, rule) in enumerate(refused):
                failed = _command(listener, name, f"bad{number}", **fields)
                assert (failed["status"], rule in failed["reason"]) == ("failed", True), failed
        # The request stands retained again, as if the answer had never come.
        listener.publish(topic, json.dumps(request).encode(), retain=True)
        with _running(settings) as agent:
            listener.wait_for(topic, b'"successful"', 3)
            assert _metric(agent, 'forewarn_commands_total{name="reset",result="repeated"}') >= 1


def test_control_is_off_until_configured(broker: Broker, bundle: Path, tmp_path: Path) -> None:
    """Without the setting commands are not even subscribed to; with it, there must be a place to keep them."""
    settings = _settings(bundle, broker.port, feedback={"directory": tmp_path})
    with Listener(broker.port, f"{ROOT}/#") as listener, _running(settings) as agent:
        _wait_until_ready(agent, listener)
        listener.publish(f"{ROOT}/cmd/mute/1", b'{"status":"init","asset":"p1","seconds":9}')
        _publish(listener, "p1", normal_values(30, 5))
        _wait_for_metric(agent, "forewarn_samples_scored_total", 10)
        assert not agent.turns.orders._feedback.state.commands
    with pytest.raises(ConfigurationError, match=r"control\.enabled: needs feedback\.directory"):
        open_agent(_settings(bundle, broker.port, control={"enabled": True}))
