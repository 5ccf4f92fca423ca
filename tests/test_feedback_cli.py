"""Laws of `edge-agent feedback` and `replay --feedback`: the agent answers, the file is read, errors are one line."""

import json
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import pytest

from edge_agent.agent import Agent
from edge_agent.alarm_desk import AlarmDesk
from edge_agent.cli import main
from edge_agent.contract.labels import read_labels
from edge_agent.detector import load_detector
from edge_agent.feedback import Feedback
from edge_agent.feedback_cli import _EXAMPLES
from edge_agent.history import read_history
from edge_agent.pipeline import Pipeline
from edge_agent.replay import replay
from edge_agent.settings import load_settings
from tests.broker import Broker, Listener, broker
from tests.commands import Said, run, table, text
from tests.test_agent import ROOT, SCHEMAS, _publish, _running, _wait_for_metric, _wait_until_ready, bundle
from tests.test_feedback import FALSE
from tests.test_feedback_journey import _disturbed
from tests.tiny_machine import TINY_BUNDLE

__all__ = ["broker", "bundle"]
VALID = jsonschema.Draft202012Validator(json.loads((SCHEMAS / "command.json").read_text(encoding="utf-8")))


def _configuration(directory: Path, bundle: Path, port: int, enabled: bool = True) -> Path:
    path = directory / "edge-agent.toml"
    path.write_text(
        f"[bundle]\npath = {json.dumps(str(bundle))}\n[mqtt]\nport = {port}\n[metrics]\nport = 0\n"
        f"[control]\nenabled = {str(enabled).lower()}\n[feedback]\ndirectory = 'state'\n",
        encoding="utf-8",
    )
    return path


@pytest.fixture
def running(broker: Broker, bundle: Path, tmp_path: Path) -> Iterator[tuple[Path, Agent, Listener]]:
    """Give the configuration of an agent that runs, the agent, and a listener."""
    path = _configuration(tmp_path, bundle, broker.port)
    with Listener(broker.port, f"{ROOT}/#") as listener, _running(load_settings(path)) as agent:
        _wait_until_ready(agent, listener)
        yield path, agent, listener


def test_the_agent_is_asked_and_the_file_read(
    running: tuple[Path, Agent, Listener], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each command reaches the agent, its answer ends the program, and list and export show what was said."""
    config, agent, listener = running
    _publish(listener, "p1", _disturbed(1, 5))
    alarm_id = json.loads(listener.wait_for(f"{ROOT}/event/p1", b'"kind":"end"'))["alarm_id"]

    def say(name: str, *words: object) -> Said:
        return run(main, capsys, "feedback", name, "--config", config, *words)

    marked = say("mark", "--alarm-id", alarm_id, "--label", "false_alarm", "--note", "valve, tested")
    assert (marked.code, marked.out, marked.err) == (0, "mark: successful\n", "")
    for name, *words in (
        ("mute", "--for", "2h"),
        ("maintenance", "--until", "2999-01-01T00:00:00Z"),
        ("maintenance", "--for", "8h", "--by", "kim"),
        ("accept-as-normal",),
        ("reset",),
    ):
        answer = say(name, "--asset", "p1", *words, "--json")
        wanted = "failed" if "2999" in str(words) else "successful"
        assert (answer.code, answer.record()["status"]) == (int(wanted == "failed"), wanted), answer.out
        VALID.validate(json.loads(answer.out))
    listed = say("list", "--json").record()
    assert set(listed["muted"]) == set(listed["maintenance"]) == {"p1"}
    (alarm,) = listed["alarms"]
    assert (alarm["alarm_id"], alarm["mark"]["label"]) == (alarm_id, "false_alarm")
    assert alarm["sensors"][0] == "pressure"
    shown = say("list").out
    assert "muted until" in shown and "1 alarms, 1 of them marked" in shown
    assert say("unmute", "--asset", "p1").code == 0
    assert say("list", "--json").record()["muted"] == {}
    out = tmp_path / "labels.csv"
    assert say("export", "--out", out).out == f"{out}: 1 labels\n"
    (label,) = read_labels(out)
    assert (label.asset, label.label, label.note) == ("p1", "false_alarm", "valve, tested")
    assert label.start < label.end
    refused = say("reset", "--asset", "p9")
    assert refused.code == 1
    assert refused.refusal().startswith("edge-agent: reset: failed: asset 'p9' is not known")
    over = say("acknowledge", "--alarm-id", alarm_id)
    assert "is over" in over.refusal()
    _wait_for_metric(agent, 'forewarn_commands_total{name="reset",result="failed"}', 1)
    answers = [payload for topic, payload, _ in listener.heard if "/cmd/" in topic]
    assert answers[-1] == b""


@pytest.mark.parametrize("name", list(_EXAMPLES))
def test_help_of_every_command_has_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`--help` ends with 0 and shows a line that could be typed, with the options it has."""
    said = run(main, capsys, "feedback", name, "--help")
    assert (said.code, said.err) == (0, "")
    assert f"example:\n  edge-agent feedback {name} --config" in said.out


def test_bad_usage_and_configuration_are_one_line(
    tmp_path: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wrong duration, a control that is off, an agent that is away and a missing directory: one line each."""
    off = _configuration(tmp_path, bundle, 1, enabled=False)
    for code, words, rule in (
        (
            2,
            ("mute", "--asset", "p1", "--for", "soon"),
            "--for: is 'soon', must be a number with s, m, h or d",
        ),
        (2, ("mute", "--asset", "p1"), "one of the arguments --for --until is required"),
        (2, ("mute", "--asset", "p1", "--for", "1h", "--timeout", "-1"), "--timeout: is -1"),
        (2, ("mark", "--alarm-id", "x", "--label", "odd"), "--label: invalid choice"),
        (78, ("mute", "--asset", "p1", "--for", "1h"), "control.enabled: is false"),
    ):
        said = run(main, capsys, "feedback", *words, "--config", off)
        assert said.code == code
        assert rule in said.refusal()
    on = _configuration(tmp_path, bundle, 1)
    away = run(main, capsys, "feedback", "unmute", "--asset", "p1", "--config", on, "--timeout", "1")
    assert (away.code, "not reached" in away.refusal()) == (1, True)
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "feedback.json").write_text("{")
    damaged = run(main, capsys, "feedback", "list", "--config", on)
    assert (damaged.code, "feedback.json: file: is damaged" in damaged.refusal()) == (1, True)


def test_an_agent_that_does_not_answer_is_said(
    broker: Broker, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without an agent at the broker the command gives up at its time."""
    config = _configuration(tmp_path, bundle, broker.port)
    said = run(main, capsys, "feedback", "unmute", "--asset", "p1", "--config", config, "--timeout", "0.5")
    assert said.code == 1
    assert "no answer of the agent in 0.5 s" in said.refusal()


def test_replay_suppresses_what_was_marked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the feedback file an alarm that was marked is listed as suppressed, and without it as an alarm."""
    history = tmp_path / "pump.csv"
    history.write_bytes(text(table(300, (100, 160))))
    words = ("replay", "--bundle", TINY_BUNDLE, "--history", history, "--json")
    plain = run(main, capsys, *words).record()
    assert (len(plain["events"]), plain["suppressed"]) == (1, [])
    path = tmp_path / "feedback.json"
    path.write_text(json.dumps(_marked(history)), encoding="utf-8")
    told = run(main, capsys, *words, "--feedback", path).record()
    assert told["events"] == []
    (hidden,) = told["suppressed"]
    assert (hidden["reason"], hidden["look_alike_of"]) == ("look_alike", hidden["alarm_id"])
    assert hidden["end"] is not None
    assert "suppressed: looks like" in run(main, capsys, *words[:-1], "--feedback", path).out
    path.write_text("[]")
    assert "--feedback: " in run(main, capsys, *words, "--feedback", path).refusal()


def _marked(history: Path) -> dict[str, object]:
    """Return what the agent would keep of the file's alarm, marked as false."""
    pipeline = Pipeline(load_detector(TINY_BUNDLE))
    desk = AlarmDesk(Feedback(), pipeline.sensors, pipeline.detector.bundle.sha256)
    replay(pipeline, read_history([history]), desk=desk)
    (alarm_id,) = desk.feedback.state.alarms
    desk.feedback.mark(alarm_id, FALSE)
    return desk.feedback.state.model_dump(by_alias=True, mode="json")
