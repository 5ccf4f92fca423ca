"""Laws of feedback: what a mark suppresses and what it must not, and that nothing grows without bound."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent import feedback as module
from edge_agent.contract.types import AlarmEvent
from edge_agent.feedback import SIMILAR, STRONGER, CommandResult, Feedback, FeedbackError, Mark, Remark
from tests.test_events import EVENT

SENSORS = ("bearing", "flow")
FALSE = Mark(at=1.0, label="false_alarm")
TRUE = Mark(at=1.0, label="true_fault")


def _event(angle: float = 0.0, kind: str = "start", peak: float = 2.0, start: float = 100.0) -> AlarmEvent:
    """Return an event whose signature stands at an angle, radians."""
    signature = (float(np.cos(angle)), float(np.sin(angle)), 0.0, 0.0)
    return replace(
        EVENT, kind=kind, signature=signature, peak_score=peak, score=peak, start_time=start, time=start
    )


def _marked(mark: Mark = FALSE) -> Feedback:
    feedback = Feedback()
    feedback.take(_event(), "marked", "p1", SENSORS)
    feedback.mark("marked", mark)
    return feedback


@given(st.floats(-np.pi, np.pi), st.floats(1.0, 10.0))
def test_a_mark_suppresses_its_like_and_nothing_else(angle: float, score: float) -> None:
    """An alarm is suppressed where it points within the limit of the marked one and is not far stronger."""
    feedback = _marked()
    found = feedback.look_alike(feedback.take(_event(angle), "new", "p1", SENSORS), score)
    cosine = float(np.cos(angle))
    if abs(cosine - SIMILAR) > 0.01:
        assert (found == "marked") == (cosine > SIMILAR and score <= STRONGER * 2.0)


def test_only_the_same_machine_and_model_count() -> None:
    """Another asset, other sensors or another basis of the score: no look-alike."""
    feedback = _marked()
    assert feedback.look_alike(feedback.take(_event(), "a", "p2", SENSORS), 1.5) is None
    assert feedback.look_alike(feedback.take(_event(), "b", "p1", SENSORS[::-1]), 1.5) is None
    margin = replace(_event(), score_basis="margin")
    assert feedback.look_alike(feedback.take(margin, "c", "p1", SENSORS), 1.5) is None
    assert feedback.look_alike(feedback.take(_event(), "d", "p1", SENSORS), 1.5) == "marked"


def test_a_true_fault_wins() -> None:
    """What looks like a confirmed fault is told of, though a false alarm looks the same; a mark can be taken back."""
    feedback = _marked()
    feedback.take(_event(0.1), "fault", "p1", SENSORS)
    feedback.mark("fault", TRUE)
    record = feedback.take(_event(0.05), "new", "p1", SENSORS)
    assert feedback.look_alike(record, 1.5) is None
    feedback.mark("fault", None)
    assert feedback.look_alike(record, 1.5) == "marked"
    feedback.mark("marked", None)
    assert feedback.look_alike(record, 1.5) is None


def test_an_alarm_without_direction_is_no_look_alike() -> None:
    """Zeros say nothing: neither do they suppress nor are they suppressed."""
    feedback = Feedback()
    none = replace(_event(), signature=(0.0,) * 4)
    feedback.take(none, "marked", "p1", SENSORS)
    feedback.mark("marked", FALSE)
    assert feedback.look_alike(feedback.take(none, "new", "p1", SENSORS), 1.0) is None


def test_the_end_of_an_alarm_teaches_no_direction() -> None:
    """Start and latest updates are kept of an alarm, a few at most; what it looks like while it ends is not."""
    feedback = Feedback()
    record = feedback.take(_event(0.0), "a", "p1", SENSORS)
    for angle in np.linspace(0.1, 1.0, 10):
        feedback.take(_event(float(angle), "update"), "a", "p1", SENSORS)
    feedback.take(_event(3.0, "end"), "a", "p1", SENSORS)
    assert len(record.directions) == module.MOST_DIRECTIONS
    assert record.directions[0][0] == 1.0
    assert record.directions[-1][0] == pytest.approx(np.cos(1.0), abs=1e-3)
    assert record.ended


def test_only_a_known_active_alarm_is_acknowledged() -> None:
    """An unknown alarm and one that is over are refused; after a restart every alarm is over."""
    feedback = Feedback()
    feedback.take(_event(), "a", "p1", SENSORS)
    assert feedback.acknowledge("a", Remark(at=1.0, by="kim")).acknowledged is not None
    with pytest.raises(FeedbackError, match="alarm 'b' is not known"):
        feedback.acknowledge("b", Remark(at=1.0))
    with pytest.raises(FeedbackError, match="is over"):
        Feedback(feedback.state).acknowledge("a", Remark(at=1.0))


def test_mute_and_maintenance_run_out() -> None:
    """Both are in force until their time and not at it."""
    feedback = Feedback()
    feedback.mute("p1", 10.0)
    feedback.maintain("p1", 5.0, 20.0)
    assert [feedback.is_muted("p1", now) for now in (0.0, 9.9, 10.0)] == [True, True, False]
    assert [feedback.in_maintenance("p1", now) for now in (4.9, 5.0, 19.9, 20.0)] == [
        False,
        True,
        True,
        False,
    ]
    feedback.end_maintenance("p1", 12.0)
    assert not feedback.in_maintenance("p1", 12.0)
    assert feedback.maintenance("p2") == (0.0, 0.0)
    assert (feedback.knows("p1"), feedback.knows("p2")) == (True, False)


def test_everything_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Alarms with and without a mark, commands and assets are each kept up to a number, the newest of them."""
    for name in ("MOST_ALARMS", "MOST_COMMANDS", "MOST_ASSETS"):
        monkeypatch.setattr(module, name, 5)
    feedback = Feedback()
    for number in range(20):
        feedback.take(_event(kind="end", start=100.0 + number), f"a{number}", "p1", SENSORS)
        feedback.mute(f"p{number}", 1e12)
        if number % 2:
            feedback.mark(f"a{number}", FALSE)
        forgotten = feedback.remember(f"c{number}", CommandResult(at=0.0))
        assert forgotten == ([f"c{number - 5}"] if number >= 5 else [])
    marked = [key for key, one in feedback.state.alarms.items() if one.mark]
    plain = [key for key, one in feedback.state.alarms.items() if not one.mark]
    assert marked == ["a11", "a13", "a15", "a17", "a19"]
    assert len(plain) <= 5 and "a18" in plain
    assert list(feedback.state.assets) == [f"p{number}" for number in range(15, 20)]
    assert len(feedback.state.commands) == 5
