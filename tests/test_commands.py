"""Laws of commands: each acts once, whatever is wrong is one reason, and answers hold to the schema."""

import json
from typing import Any

import jsonschema
import pytest

from edge_agent.alarm_desk import Notice
from edge_agent.commands import Action, CommandDesk, Handled, Request
from edge_agent.feedback import MOST_COMMANDS, Feedback, FeedbackError
from tests.test_events import _schema

PREFIX = "forewarn/edge/cmd/"
NOW = 1_700_000_000.0
VALID = jsonschema.Draft202012Validator(_schema("command"))


class _Said:
    """A desk with one command that notes what it was asked, and refuses the asset `bad`."""

    def __init__(self, feedback: Feedback | None = None) -> None:
        self.feedback = feedback or Feedback()
        self.requests: list[Request] = []
        self.kept = 0
        self.full = False
        action = Action(("asset",), ("seconds", "until"), self._run)
        self.desk = CommandDesk(PREFIX, {"mute": action}, self.feedback, 300.0, self._keep)

    def _run(self, request: Request, now: float) -> list[Notice]:
        if request.asset == "bad":
            raise FeedbackError("asset is bad")
        request.end(now)
        self.requests.append(request)
        return []

    def _keep(self) -> None:
        if self.full:
            raise OSError(28, "No space left on device")
        self.kept += 1

    def take(
        self, content: Any, command: str = "mute/1", retained: bool = False, now: float = NOW
    ) -> Handled | None:
        """Hand a message in."""
        payload = content if isinstance(content, bytes) else json.dumps(content).encode()
        return self.desk.take(PREFIX + command, payload, retained, now)


def _answers(handled: Handled | None) -> list[dict[str, Any]]:
    assert handled is not None
    answers = [json.loads(one.payload) for one in handled.answers if one.payload]
    for answer in answers:
        VALID.validate(answer)
    return answers


GOOD = {"status": "init", "asset": "p1", "seconds": 60}


def test_a_request_is_executed_and_answered() -> None:
    """The answers go executing, successful, and repeat what was asked for."""
    said = _Said()
    VALID.validate(GOOD)
    executing, done = _answers(said.take({**GOOD, "by": "kim", "time": "2023-11-14T22:13:20Z"}))
    assert (executing["status"], done["status"], done["reason"]) == ("executing", "successful", None)
    assert (done["asset"], done["by"], done["answered"]) == ("p1", "kim", "2023-11-14T22:13:20.000Z")
    assert (len(said.requests), said.kept) == (1, 1)


def test_the_same_id_acts_once() -> None:
    """A command that comes again, to this life or the next, is answered with what became of it and not done."""
    said = _Said()
    said.take(GOOD)
    again = said.take(GOOD)
    assert again is not None and again.result == "repeated"
    assert [answer["status"] for answer in _answers(again)] == ["successful"]
    later = _Said(Feedback(said.feedback.state))
    assert later.take(GOOD, retained=True) is not None
    assert (len(said.requests), len(later.requests)) == (1, 0)
    assert _Said().take(GOOD, "mute/2") is not None


def test_our_own_answers_ask_for_nothing() -> None:
    """Answers that come back and cleared topics are not commands; one that was cut short is said to have failed."""
    said = _Said()
    for answer in (said.take(GOOD) or Handled("", "")).answers:
        assert said.take(answer.payload) is None
    assert said.take(b"") is None
    (failed,) = _answers(said.take({**GOOD, "status": "executing"}, "mute/9", retained=True))
    assert (failed["status"], failed["reason"].partition(":")[0]) == ("failed", "interrupted")


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (b"\xff", "payload: must be a JSON object"),
        (b"[1]", "payload: must be a JSON object"),
        (b"[" * 9000, "payload: must be a JSON object"),
        (b'{"status": "init", "note": "' + b"x" * 20_000 + b'"}', "payload: is larger than"),
        ({**GOOD, "status": "go"}, "status: "),
        ({"asset": "p1", "seconds": 60}, "status: Field required"),
        ({**GOOD, "colour": "red"}, "colour: is no known field"),
        ({**GOOD, "alarm_id": "x"}, "alarm_id: is not a field of mute"),
        ({**GOOD, "schema": "forewarn.command/9"}, "schema: "),
        ({"status": "init", "seconds": 60}, "asset: must be given"),
        ({**GOOD, "asset": 3}, "asset: "),
        ({**GOOD, "note": "x" * 501}, "note: "),
        ({"status": "init", "asset": "p1"}, "seconds or until: one of them must be given"),
        ({**GOOD, "until": NOW + 5}, "seconds or until: one of them must be given"),
        ({**GOOD, "seconds": -1}, "seconds: must be 0 to 31 days ahead"),
        ({**GOOD, "seconds": 1e9}, "seconds: must be 0 to 31 days ahead"),
        (b'{"status": "init", "asset": "p1", "seconds": NaN}', "seconds: "),
        ({"status": "init", "asset": "p1", "until": NOW - 5}, "until: must be 0 to 31 days ahead"),
        ({"status": "init", "asset": "p1", "until": "soon"}, "until: must be a time of RFC 3339"),
        ({**GOOD, "time": NOW - 301}, "time: is 301 s ago, at most 300 are allowed"),
        ({**GOOD, "time": "yesterday"}, "time: must be a time of RFC 3339"),
        ({**GOOD, "asset": "bad"}, "asset is bad"),
    ],
)
def test_what_is_wrong_is_one_reason(content: Any, rule: str) -> None:
    """Whatever the payload holds, the command fails with a reason of one line, by the schema, and nothing is done."""
    said = _Said()
    *_, failed = _answers(said.take(content))
    assert failed["status"] == "failed"
    assert failed["reason"].startswith(rule)
    assert "\n" not in failed["reason"]
    assert (said.requests, said.kept) == ([], 0)


def test_unknown_names_are_counted_as_one() -> None:
    """A name that is no command fails, and is not made into a label of a series."""
    handled = _Said().take(GOOD, "explode/1")
    assert handled is not None
    assert (handled.name, handled.result) == ("unknown", "failed")
    assert "known are mute" in _answers(handled)[-1]["reason"]


def test_a_retained_request_needs_a_time() -> None:
    """Without one it could be of any age; a fresh one is done."""
    said = _Said()
    assert "time: must be given" in _answers(said.take(GOOD, retained=True))[-1]["reason"]
    (*_, done) = _answers(said.take({**GOOD, "time": NOW - 10}, "mute/2", retained=True))
    assert done["status"] == "successful"


def test_what_cannot_be_kept_is_no_success() -> None:
    """When the disk is full the command says that it will not outlive the agent."""
    said = _Said()
    said.full = True
    *_, failed = _answers(said.take(GOOD))
    assert failed["status"] == "failed"
    assert "could not be kept (No space left on device)" in failed["reason"]
    assert len(said.requests) == 1


def test_forgotten_commands_are_cleared_from_the_broker() -> None:
    """Ids are remembered up to a number; the retained answer of a forgotten one is taken away."""
    said = _Said()
    for number in range(MOST_COMMANDS + 1):
        last = said.take(GOOD, f"mute/{number}")
    assert last is not None
    assert [one.topic for one in last.answers if not one.payload] == [f"{PREFIX}mute/0"]
