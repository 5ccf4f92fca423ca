"""Laws of the desk: a start that is told has its end, what is hidden is said, what comes out of hiding is told."""

import math
from dataclasses import replace

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.alarm_desk import AlarmDesk, Notice
from edge_agent.contract.types import AlarmEvent
from edge_agent.events import EventWriter
from edge_agent.feedback import Feedback, FeedbackError, Mark, Remark
from tests.test_events import BUNDLE, _schema
from tests.test_feedback import FALSE, SENSORS, TRUE, _event


def _desk() -> AlarmDesk:
    return AlarmDesk(Feedback(), SENSORS, BUNDLE.sha256)


def _said(notices: list[Notice]) -> list[str]:
    """Return notices as words: `start`, or `hidden start muted`."""
    return [one.event.kind if one.hidden is None else f"hidden {one.hidden} {one.reason}" for one in notices]


def _life(desk: AlarmDesk, *events: AlarmEvent, now: float = 0.0) -> list[str]:
    return [word for event in events for word in _said(desk.take(event, "p1", now))]


def _later(event: AlarmEvent, kind: str, **more: float) -> AlarmEvent:
    return replace(event, kind=kind, **more)  # type: ignore[arg-type]  # numbers for fields that are numbers


def _mark_first(desk: AlarmDesk, mark: Mark) -> str:
    """Let an alarm come and go, mark it, and return its id."""
    first = _event(start=10.0)
    (notice,) = desk.take(first, "p1", 0.0)
    desk.take(_later(first, "end"), "p1", 0.0)
    desk.mark(notice.alarm_id, mark, 0.0)
    return notice.alarm_id


def test_without_feedback_events_pass() -> None:
    """Start, update and end go through as they are."""
    start = _event()
    events = [start, _later(start, "update"), _later(start, "end")]
    assert _life(_desk(), *events) == ["start", "update", "end"]


def test_a_look_alike_is_hidden_to_its_end() -> None:
    """It is said once that it is suppressed and when that is over, and the marked alarm is named."""
    desk = _desk()
    first = _mark_first(desk, FALSE)
    start = _event(0.1)
    (hidden,) = desk.take(start, "p1", 0.0)
    assert (hidden.hidden, hidden.reason, hidden.look_alike_of) == ("start", "look_alike", first)
    assert desk.hidden == {"p1"}
    assert _life(desk, _later(start, "update")) == []
    assert _life(desk, _later(start, "end")) == ["hidden end look_alike"]
    assert desk.hidden == frozenset()


@pytest.mark.parametrize(
    "grown", [_event(0.1, "update", peak=3.1), _event(1.5, "update")], ids=["stronger", "turned"]
)
def test_a_look_alike_that_becomes_more_is_told(grown: AlarmEvent) -> None:
    """One that grows far beyond the marked one or turns away is started then, and ended at its end."""
    desk = _desk()
    _mark_first(desk, FALSE)
    start = _event(0.1)
    assert _life(desk, start) == ["hidden start look_alike"]
    grown = replace(grown, start_time=start.start_time)
    assert _life(desk, grown, _later(grown, "end")) == ["hidden end look_alike", "start", "end"]


def test_what_was_told_of_stays_so() -> None:
    """An alarm that only later comes to look like a marked one is not taken back."""
    desk = _desk()
    _mark_first(desk, FALSE)
    start = _event(1.5)
    update = replace(_event(0.0, "update"), start_time=start.start_time)
    assert _life(desk, start, update) == ["start", "update"]


def test_marking_the_open_alarm() -> None:
    """As false it is hidden at once, as true it is told of again, and its end is published."""
    desk = _desk()
    start = _event()
    (notice,) = desk.take(start, "p1", 0.0)
    assert _said(desk.mark(notice.alarm_id, FALSE, 0.0)) == ["hidden start look_alike"]
    assert _said(desk.mark(notice.alarm_id, TRUE, 0.0)) == ["hidden end look_alike", "update"]
    assert _said(desk.mark(notice.alarm_id, FALSE, 0.0)) == ["hidden start look_alike"]
    assert _life(desk, _later(start, "end")) == ["hidden end look_alike", "end"]


def test_a_mute_runs_out() -> None:
    """An alarm under a mute is hidden, comes out when the mute is over, and infinity heeds no mute."""
    desk = _desk()
    desk.feedback.mute("p1", 50.0)
    start = _event()
    assert _life(desk, start, now=49.0) == ["hidden start muted"]
    assert _said(desk.refresh_all(49.9)) == []
    assert _said(desk.refresh_all(50.0)) == ["hidden end muted", "start"]
    desk.feedback.mute("p1", 90.0)
    assert _said(desk.refresh("p1", 60.0)) == ["hidden start muted"]
    assert _life(_desk(), start, now=math.inf) == ["start"]


def test_an_acknowledgement_is_carried_on() -> None:
    """It is published as an update, and every later event of the alarm has it; it hides nothing."""
    desk = _desk()
    start = _event()
    (notice,) = desk.take(start, "p1", 0.0)
    (update,) = desk.acknowledge(notice.alarm_id, Remark(by="kim", at=5.0))
    assert (update.event.kind, update.acknowledged) == ("update", Remark(by="kim", at=5.0))
    (worse,) = desk.take(_later(start, "update", peak_score=9.0), "p1", 0.0)
    assert worse.acknowledged is not None
    desk.take(_later(start, "end"), "p1", 0.0)
    with pytest.raises(FeedbackError, match="is over"):
        desk.acknowledge(notice.alarm_id, Remark(at=6.0))


def test_an_alarm_is_ended_from_outside() -> None:
    """It ends with the reason given and not before its start; without an open alarm there is nothing to end."""
    desk = _desk()
    assert desk.end("p1", 200.0, "reset") == []
    (notice,) = desk.take(_event(), "p1", 0.0)
    (end,) = desk.end("p1", 50.0, "reset")
    assert (end.event.kind, end.event.end_reason, end.event.time) == ("end", "reset", 100.0)
    assert desk.feedback.alarm(notice.alarm_id).ended


VALID = jsonschema.Draft202012Validator(_schema("event"))


def test_the_same_alarm_once_more_is_a_new_one() -> None:
    """An alarm that comes again from its start, as in a replay, is judged anew; marked as false it is hidden."""
    desk = _desk()
    start = _event()
    (notice, *_) = desk.take(start, "p1", 0.0)
    desk.take(_later(start, "end"), "p1", 0.0)
    desk.mark(notice.alarm_id, FALSE, 0.0)
    assert _life(desk, start, _later(start, "end")) == ["hidden start look_alike", "hidden end look_alike"]


def test_an_alarm_that_goes_on_after_its_end() -> None:
    """An update after the end takes the same alarm up: as shown or as hidden as it was."""
    desk = _desk()
    start = _event()
    assert _life(desk, start, _later(start, "end"), _later(start, "update")) == ["start", "end", "update"]
    hidden = _desk()
    _mark_first(hidden, FALSE)
    words = _life(hidden, start, _later(start, "end"), _later(start, "update"))
    assert words == ["hidden start look_alike", "hidden end look_alike", "hidden start look_alike"]


SAYINGS = st.lists(
    st.tuples(
        st.sampled_from(["event", "mute", "unmute", "false_alarm", "true_fault", "none", "time"]),
        st.floats(0.0, 3.0),
        st.floats(1.0, 8.0),
    ),
    max_size=20,
)


@settings(max_examples=60, deadline=None)
@given(SAYINGS)
def test_starts_and_ends_pair_whatever_is_said(sayings: list[tuple[str, float, float]]) -> None:
    """Whatever is said, starts, ends and hidden times of an alarm pair up, and payloads hold to the schema."""
    desk, writer = _desk(), EventWriter(BUNDLE)
    _mark_first(desk, FALSE)
    start = _event()
    notices = desk.take(start, "p1", 0.0)
    alarm_id = notices[0].alarm_id
    for now, (word, angle, peak) in enumerate(sayings, start=1):
        if word == "event":
            update = replace(_event(angle, "update", peak), start_time=start.start_time)
            notices += desk.take(update, "p1", now)
        elif word == "mute":
            desk.feedback.mute("p1", now + angle)
            notices += desk.refresh("p1", now)
        elif word == "unmute":
            desk.feedback.unmute("p1")
            notices += desk.refresh("p1", now)
        elif word != "time":
            mark = None if word == "none" else Mark.model_validate({"at": now, "label": word})
            notices += desk.mark(alarm_id, mark, now)
        notices += desk.refresh_all(now)
    notices += desk.take(_later(start, "end"), "p1", 99.0)
    words = _said(notices)
    assert words.count("start") == words.count("end") <= 1
    hidden = [word.split()[1] for word in words if word.startswith("hidden")]
    assert hidden == ["start", "end"] * (len(hidden) // 2)
    for number, one in enumerate(notices, start=1):
        payload = (
            writer.write(one.event, one.asset)
            if one.hidden is None
            else writer.write_suppressed(one.event, one.asset, one.hidden, one.reason, one.look_alike_of)
        )
        VALID.validate(payload)
        assert (payload["alarm_id"], payload["sequence"]) == (alarm_id, number)
