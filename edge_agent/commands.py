"""Commands over MQTT: a request on `<root>/cmd/<name>/<id>`, and what became of it, retained on the same topic.

The payload's `status` goes `init` (asked for) → `executing` → `successful` or `failed` with a `reason`. A command acts
once: its id is remembered, over restarts too, and a command that comes again is answered again and nothing else.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edge_agent.alarm_desk import Notice
from edge_agent.events import rfc3339, to_json
from edge_agent.feedback import (
    LABELS,
    LONGEST_SECONDS,
    LONGEST_TEXT,
    CommandResult,
    Feedback,
    FeedbackError,
    Label,
    Text,
)

SCHEMA = "forewarn.command/1"
INIT, EXECUTING, SUCCESSFUL, FAILED = "init", "executing", "successful", "failed"
REPEATED = "repeated"
UNKNOWN = "unknown"
"""Stands for every name that is no command, so that no publisher makes up names of series."""
LARGEST_BYTES = 16_384
Moment = str | float


class Request(BaseModel):
    """What a command may carry; each command takes only some of it."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
    version: Literal["forewarn.command/1"] | None = Field(default=None, alias="schema")
    status: Literal["init"]
    time: Moment | None = None
    by: Text | None = None
    note: Text | None = None
    asset: Text | None = None
    alarm_id: Text | None = None
    label: Label | Literal["none"] | None = None
    seconds: float | None = None
    until: Moment | None = None

    def end(self, now: float) -> float:
        """Return until when, seconds since the epoch; `now` where it is to end at once.

        Raises:
            FeedbackError: neither or both of `seconds` and `until` are given, or it is too long or in the past.
        """
        if (self.seconds is None) == (self.until is None):
            raise FeedbackError("seconds or until: one of them must be given")
        until = now + self.seconds if self.seconds is not None else moment(self.until, "until")
        if not now <= until <= now + LONGEST_SECONDS:
            days = LONGEST_SECONDS / 86400
            raise FeedbackError(
                f"{'until' if self.seconds is None else 'seconds'}: must be 0 to {days:g} days ahead"
            )
        return until


@dataclass(frozen=True, slots=True)
class Action:
    """One command: the fields that it needs and may have beside `by`, `note` and `time`, and what it does.

    `run` is given the request and the time, and returns what is to be published of alarms; it raises `FeedbackError`
    where it cannot be done, and has done nothing then.
    """

    needs: tuple[str, ...]
    may: tuple[str, ...]
    run: Callable[[Request, float], list[Notice]]


@dataclass(frozen=True, slots=True)
class Answer:
    """What to publish, retained, on a command's topic; empty clears it."""

    topic: str
    payload: bytes


@dataclass(slots=True)
class Handled:
    """What became of one message.

    Attributes:
        name: of the command, for counting.
        result: `successful`, `failed` or `repeated`.
        answers: to publish, in order.
        notices: of alarms.
    """

    name: str
    result: str
    answers: list[Answer] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)


class CommandDesk:
    """Takes command messages and answers them.

    Args:
        prefix: of the topics, `<root>/cmd/`.
        actions: by name.
        feedback: remembers which commands are done.
        max_age_seconds: a command that carries an older time is not done any more.
        keep: called after an action and before its success is said; raises OSError where nothing could be kept.
    """

    def __init__(
        self,
        prefix: str,
        actions: Mapping[str, Action],
        feedback: Feedback,
        max_age_seconds: float,
        keep: Callable[[], None],
    ) -> None:
        self._prefix = prefix
        self._actions = actions
        self._feedback = feedback
        self._max_age = max_age_seconds
        self._keep = keep

    def take(self, topic: str, payload: bytes, retained: bool, now: float) -> Handled | None:
        """Do what a message asks for; None where it asks for nothing: an answer of our own, or a cleared topic.

        Args:
            topic: of the message.
            payload: of the message.
            retained: whether the broker kept it from before the subscription.
            now: seconds since the epoch.
        """
        command = topic.removeprefix(self._prefix)
        name = command.partition("/")[0]
        counted = name if name in self._actions else UNKNOWN
        content = _object(payload)
        status = content.get("status") if content is not None else INIT
        known = self._feedback.result_of(command)
        if not payload or status in (SUCCESSFUL, FAILED) or (status == EXECUTING and not retained):
            return None
        if known is not None:
            return Handled(counted, REPEATED, [self._answer(topic, content, known)])
        if status == EXECUTING:
            reason = "interrupted: the agent stopped before it was done"
            return self._finished(
                Handled(counted, FAILED), topic, command, content, CommandResult(at=now, reason=reason)
            )
        handled = Handled(counted, SUCCESSFUL, [Answer(topic, self._payload(content, EXECUTING, now))])
        result = CommandResult(at=now)
        try:
            request = self._request(name, payload, content)
            self._check_age(request, retained, now)
            handled.notices = self._actions[name].run(request, now)
        except FeedbackError as error:
            handled.result, result.reason = FAILED, str(error)
        return self._finished(handled, topic, command, content, result)

    def _finished(
        self,
        handled: Handled,
        topic: str,
        command: str,
        content: dict[str, Any] | None,
        result: CommandResult,
    ) -> Handled:
        forgotten = self._feedback.remember(command, result)
        if handled.result == SUCCESSFUL:
            try:
                self._keep()
            except OSError as error:
                handled.result = FAILED
                result.reason = f"in force until the agent restarts, but could not be kept ({error.strerror})"
        handled.answers.append(self._answer(topic, content, result))
        handled.answers += [Answer(f"{self._prefix}{old}", b"") for old in forgotten]
        return handled

    def _request(self, name: str, payload: bytes, content: dict[str, Any] | None) -> Request:
        action = self._actions.get(name)
        if action is None:
            raise FeedbackError(f"no such command; known are {', '.join(sorted(self._actions))}")
        if len(payload) > LARGEST_BYTES:
            raise FeedbackError(f"payload: is larger than {LARGEST_BYTES} bytes")
        if content is None:
            raise FeedbackError("payload: must be a JSON object")
        try:
            request = Request.model_validate(content)
        except ValidationError as error:
            raise FeedbackError(_one_line(error)) from None
        given = request.model_fields_set - {"version", "status", "time", "by", "note"}
        missing = [key for key in action.needs if getattr(request, key) is None]
        foreign = sorted(given - {*action.needs, *action.may})
        if missing:
            raise FeedbackError(f"{missing[0]}: must be given")
        if foreign:
            raise FeedbackError(f"{foreign[0]}: is not a field of {name}")
        return request

    def _check_age(self, request: Request, retained: bool, now: float) -> None:
        if request.time is None:
            if retained:
                raise FeedbackError("time: must be given in a retained command, or it could be of any age")
            return
        age = now - moment(request.time, "time")
        if age > self._max_age:
            raise FeedbackError(f"time: is {age:.0f} s ago, at most {self._max_age:g} are allowed")

    def _answer(self, topic: str, content: dict[str, Any] | None, result: CommandResult) -> Answer:
        status = SUCCESSFUL if result.reason is None else FAILED
        return Answer(topic, self._payload(content, status, result.at, result.reason))

    def _payload(
        self, content: dict[str, Any] | None, status: str, at: float, reason: str | None = None
    ) -> bytes:
        """Return the request with what became of it; what is no field of a request is not repeated."""
        known = {key: value for key, value in (content or {}).items() if _is_repeated(key, value)}
        return to_json(
            {**known, "schema": SCHEMA, "status": status, "reason": reason, "answered": rfc3339(at)}
        )


_LABELS = (*LABELS, "none")
_MOMENTS = ("time", "until")
_NUMBERS = ("seconds", *_MOMENTS)
_TEXTS = ("by", "note", "asset", "alarm_id", *_MOMENTS)


def _is_repeated(key: str, value: Any) -> bool:
    """Return whether a field of a request, good or bad, may stand in its answer."""
    if isinstance(value, str):
        return value in _LABELS if key == "label" else key in _TEXTS and len(value) <= LONGEST_TEXT
    number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e15
    return number and key in _NUMBERS


def _object(payload: bytes) -> dict[str, Any] | None:
    if len(payload) > LARGEST_BYTES:
        return None
    try:
        content = json.loads(payload)
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def _one_line(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    field_name = ".".join(str(part) for part in first["loc"][:1]) or "payload"
    rule = "is no known field" if first["type"] == "extra_forbidden" else first["msg"]
    return f"{field_name[:64]}: {rule}"[:200]


def moment(value: Moment | None, key: str) -> float:
    """Return a time of RFC 3339, or one in seconds since the epoch, as the latter.

    Raises:
        FeedbackError: it is neither.
    """
    if isinstance(value, int | float):
        return float(value)
    try:
        parsed = datetime.fromisoformat(value or "")
    except ValueError:
        raise FeedbackError(f"{key}: must be a time of RFC 3339 or seconds since the epoch") from None
    return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()
