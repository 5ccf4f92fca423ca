"""The demonstration: what is published, what is said, what is configured, and the whole of it once."""

import csv
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from deploy.demo.plan import FAST, FULL, TRAINER_CONFIG, Plan, write_agent_config
from deploy.demo.processes import ROOT, Children, DemoError, child_environment, free_port
from deploy.demo.publisher import Message, message_of, read_messages, remarks
from deploy.demo.report import METRICS_SHOWN, clock, event_lines, metric_lines, verdict
from deploy.demo.show import stops
from edge_agent.codecs import JsonDecoder
from edge_agent.settings import load_settings
from trainer.pump import SENSOR_NAMES
from trainer.simulate import FaultPlan, simulate, write_simulation

ROW = {
    "time": "2026-01-02T00:00:01Z",
    "asset": "pump-1",
    "flow_m3h": "41.50",
    "speed_rpm": "",
    "label": "1",
    "fault": "leak",
}


def _sensor(**changes: Any) -> dict[str, Any]:
    usual = {
        "name": "vibration_mm_s", "unit": "mm/s", "share": 0.93, "actual": 2.1034, "expected": 1.734,
        "direction": "above", "trend": "rising",
    }  # fmt: skip
    return {**usual, **changes}


def _event(**changes: Any) -> dict[str, Any]:
    usual = {
        "kind": "start", "asset": "pump-1", "severity": "warning", "time": "2026-01-02T00:41:04.000Z",
        "time_epoch": 1_767_314_464.0, "onset_time": "2026-01-02T00:40:10.000Z", "duration_seconds": 0.0,
        "score": 1.0301, "peak_score": 1.0301, "sensors": [_sensor()],
    }  # fmt: skip
    return {**usual, **changes}


def test_a_message_carries_the_readings_and_never_the_truth() -> None:
    """The payload is the time and every reading there is; label and fault never travel, a missing cell stays away."""
    message = message_of(ROW)
    assert message.topic == "plant/pump-1"
    assert json.loads(message.payload) == {"time": "2026-01-02T00:00:01Z", "flow_m3h": 41.5}
    assert message.fault == "leak"


def test_the_agent_decodes_every_message_of_a_simulated_file(tmp_path: Path) -> None:
    """What is published of a simulated file is, decoded by the agent's own codec, that file again."""
    simulation = simulate(0.01, 3, faults=[FaultPlan("sensor_loss", 10.0, 5.0)])
    path = tmp_path / "live.csv"
    write_simulation(simulation, path, "pump-1")
    decoder = JsonDecoder(SENSOR_NAMES)
    decoded = [decoder.decode(message.payload, 0.0) for message in read_messages(path)]
    assert [one.rows[0].time for one in decoded] == simulation.time.tolist()
    assert not any(one.rejected for one in decoded)
    assert len(decoded[0].rows[0].values) == len(SENSOR_NAMES)
    assert len(decoded[12].rows[0].values) == len(SENSOR_NAMES) - 1


def test_the_spectator_is_told_when_the_fault_begins_and_ends() -> None:
    """Each change of the fault is remarked on at its own message, and nothing else in a short file is."""
    messages = [Message("plant/a", b"{}", str(n), fault) for n, fault in enumerate(["", "leak", "leak", ""])]
    assert [remark for _, remark in remarks(messages)] == [
        "", "the fault begins: leak", "", "the fault ends: leak",
    ]  # fmt: skip


def test_an_alarm_is_said_in_engineering_units() -> None:
    """The start of an alarm names asset, severity and score, then each sensor with share, actual and expected."""
    headline, sensor = event_lines(_event())
    assert headline.startswith("ALARM: pump-1, warning, at 2026-01-02T00:41:04.000Z, score 1.03")
    assert "onset 2026-01-02T00:40:10.000Z" in headline
    for part in ("vibration_mm_s", "93%", "2.103 mm/s", "expected 1.734 mm/s", "above", "rising"):
        assert part in sensor


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"actual": None, "direction": "missing"}, "missing expected 1.734 mm/s"),
        ({"expected": None}, "expected unknown"),
        ({"share": None}, "vibration_mm_s 2.103 mm/s"),
        ({"unit": ""}, "2.103 expected 1.734 above"),
    ],
)
def test_what_is_not_known_is_said_so(changes: dict[str, Any], said: str) -> None:
    """A missing reading, expectation, unit or score is said in words, and never fails."""
    text = " ".join(event_lines(_event(score=None, sensors=[_sensor(), _sensor(**changes)])))
    assert "score beyond measure" in text
    assert said in " ".join(text.split())


def test_only_sensors_with_a_share_are_blamed() -> None:
    """Sensors that contribute less than a hundredth get no line, and at most four get one."""
    shares = [0.5, 0.2, 0.1, 0.1, 0.09, 0.001]
    event = _event(sensors=[_sensor(share=share) for share in shares])
    assert len(event_lines(event)) == 5
    assert len(event_lines(_event(sensors=[_sensor(), _sensor(share=0.001)]))) == 2


def test_the_end_of_an_alarm_is_one_line() -> None:
    """The end tells how long it lasted and how high it rose."""
    (line,) = event_lines(_event(kind="end", duration_seconds=259.0, peak_score=1.68))
    assert line.startswith("alarm ends: pump-1")
    assert line.endswith("after 04:19, peak score 1.68")


def test_a_dead_sensor_is_one_line_and_no_alarm() -> None:
    """A data-quality event names the sensor and the reason, and a silent asset as a whole."""
    sensors = [{"name": "flow_m3h", "reason": "frozen"}, {"name": None, "reason": "silent"}]
    (line,) = event_lines(_event(kind="data_quality", phase="start", sensors=sensors))
    assert line.startswith("data quality, start: pump-1, flow_m3h frozen, the whole asset silent, at ")


def test_the_verdict_compares_the_alarm_with_the_truth() -> None:
    """The verdict tells the delay, and whether the sensor blamed most is one that the fault moves."""
    begun = _event()["time_epoch"] - 64.0
    assert "01:04 before the alarm" in verdict(_event(), "bearing_wear", begun, FULL.suspects)
    assert ", one of the sensors" in verdict(_event(), "bearing_wear", begun, FULL.suspects)
    assert "not one of the sensors" in verdict(_event(), "leak", begun, ("tank_level_m",))


def test_metrics_are_shown_by_their_whole_name() -> None:
    """Lines are chosen by metric name, in a fixed order; comments and longer names stay out."""
    exposition = (
        "# HELP forewarn_asset_score x\nforewarn_score_threshold 1.0\nforewarn_asset_scores 3\n"
        'forewarn_asset_score{asset="pump-1"} 1.2\n'
    )
    assert metric_lines(exposition) == [
        'forewarn_asset_score{asset="pump-1"} 1.2',
        "forewarn_score_threshold 1.0",
    ]
    assert METRICS_SHOWN[0] == "forewarn_asset_score"


def test_durations_are_minutes_and_seconds() -> None:
    """A duration is shown in whole minutes and seconds, beyond the hour too."""
    assert [clock(0.4), clock(127.9), clock(4000)] == ["00:00", "02:07", "66:40"]


def test_the_agent_takes_the_configuration(tmp_path: Path) -> None:
    """The written configuration passes the agent's own check and points at loopback, the bundle and the topics."""
    settings = load_settings(write_agent_config(tmp_path, 18830, 19464))
    assert (settings.mqtt.host, settings.mqtt.port, settings.mqtt.protocol) == ("127.0.0.1", 18830, "3.1.1")
    assert (settings.metrics.host, settings.metrics.port) == ("127.0.0.1", 19464)
    assert settings.bundle.path == tmp_path / "bundle"
    assert settings.mqtt.inputs[0].topic == "plant/{asset}"


@pytest.mark.parametrize("plan", [FULL, FAST])
def test_the_trainer_is_told_the_unit_of_every_sensor(plan: Plan, tmp_path: Path) -> None:
    """The trainer's configuration is TOML with every sensor's unit, so that alarms come in engineering units."""
    plan.write_trainer_config(tmp_path)
    section = tomllib.loads((tmp_path / TRAINER_CONFIG).read_text(encoding="utf-8"))["fit"]
    assert tuple(dict(section["units_of_sensors"])) == SENSOR_NAMES
    assert section["epochs"] == plan.epochs


@pytest.mark.parametrize("plan", [FULL, FAST])
def test_the_normal_part_holds_a_stop_and_a_start(plan: Plan, tmp_path: Path) -> None:
    """Before its fault the live file has a stop and a start, which must raise no alarm, and the fault fits in."""
    path = tmp_path / "live.csv"
    fault = FaultPlan(plan.fault, plan.fault_start_seconds, plan.fault_seconds)
    write_simulation(simulate(plan.live_hours, plan.live_seed, 1.0, [fault], plan.live_start), path, "a")
    assert stops(path, before_fault=True) >= 1
    with path.open(encoding="utf-8", newline="") as file:
        assert sum(row["fault"] == plan.fault for row in csv.DictReader(file)) == plan.fault_seconds


def test_children_are_free_of_outside_settings() -> None:
    """Settings in the caller's environment do not reach the children; the rest of it does."""
    inherited = {"FOREWARN_MQTT__HOST": "elsewhere", "LANG": "C", "PYTHONPATH": "somewhere"}
    environment = child_environment(inherited)
    assert "FOREWARN_MQTT__HOST" not in environment
    assert environment["LANG"] == "C"
    assert environment["PYTHONPATH"].split(os.pathsep) == [str(ROOT), "somewhere"]


def test_a_free_port_is_free() -> None:
    """The port is a real one, and the preferred one where nobody has it."""
    port = free_port()
    assert 0 < port < 65536
    assert free_port(port) == port


def test_children_end_with_the_demonstration(tmp_path: Path) -> None:
    """Leaving the block ends every child that still runs."""
    with Children(tmp_path) as children:
        child = children.start("sleeper", [sys.executable, "-c", "import signal; signal.pause()"])
        assert child.poll() is None
    assert child.poll() is not None


def test_a_failed_child_is_told_with_its_last_words(tmp_path: Path) -> None:
    """A child that failed is named with its exit code and the end of its log."""
    with Children(tmp_path) as children:
        child = children.start("broker", [sys.executable, "-c", "raise SystemExit('port taken')"])
        with pytest.raises(DemoError, match=r"broker: ended with exit code 1\n  port taken"):
            children.wait_until(lambda: False, child, "broker", 20.0)


def test_a_command_that_fails_ends_the_demonstration(tmp_path: Path) -> None:
    """A command run to its end raises when its exit code is not 0."""
    with (
        Children(tmp_path) as children,
        pytest.raises(DemoError, match="trainer fit: failed with exit code 3"),
    ):
        children.run("trainer fit", [sys.executable, "-c", "raise SystemExit(3)"])


def test_the_demonstration_ends_with_an_alarm(tmp_path: Path) -> None:
    """The whole of it once, in a hurry: the alarm comes with the fault and not before, and nothing is left behind."""
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "deploy.demo", "--once", "--fast"],
        cwd=ROOT,
        check=False,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ALARM: pump-1" in done.stdout
    assert "False alarms in the 25 normal minutes: 0." in done.stdout
    assert ", one of the sensors it moves" in done.stdout
    assert 'forewarn_inference_provider_info{provider="cpu"} 1.0' in done.stdout
    assert list(tmp_path.iterdir()) == []
