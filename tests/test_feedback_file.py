"""Laws of the file: what is written is read, a damaged one stops nothing, the old one stands until the new one does."""

import json
import logging
import os
from pathlib import Path

import pytest

from edge_agent.contract.errors import ConfigurationError
from edge_agent.feedback import CommandResult, Feedback, Mark, Remark
from edge_agent.feedback_file import FeedbackFile, read_feedback
from tests.test_feedback import SENSORS, _event


def _said() -> Feedback:
    feedback = Feedback()
    feedback.mute("pump/1", 5e9)
    feedback.maintain("p2", 1.0, 2.0)
    feedback.take(_event(0.3), "a", "p1", SENSORS)
    feedback.acknowledge("a", Remark(at=3.0, by="kim", note="seen"))
    feedback.mark("a", Mark(at=4.0, label="false_alarm", note="Prüfung"))
    feedback.remember("mute/1", CommandResult(at=1.0, reason="no"))
    return feedback


def test_what_is_written_is_read(tmp_path: Path) -> None:
    """Everything comes back, in a directory that is made, and the file says its version."""
    file = FeedbackFile(tmp_path / "state" / "deep")
    feedback = _said()
    file.write(feedback)
    assert not feedback.changed
    found = file.read()
    feedback.state.alarms["a"].ended = True
    assert found.state == feedback.state
    assert json.loads(file.path.read_text(encoding="utf-8"))["schema"] == "forewarn.feedback/1"
    assert [path.name for path in file.path.parent.iterdir()] == ["feedback.json"]


def test_no_file_is_no_feedback(tmp_path: Path) -> None:
    """The first start has nothing to read and says nothing."""
    assert FeedbackFile(tmp_path).read().state == Feedback().state


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (b"", "file: is damaged"),
        (b'{"schema": "forewarn.fe', "file: is damaged"),
        (b"\xff\xfe", "file: is damaged"),
        (b"[" * 100_000, "file: is damaged"),
        (b"[]", "schema: is None"),
        (b'{"schema": "forewarn.feedback/9"}', "schema: is 'forewarn.feedback/9'"),
        (
            b'{"schema": "forewarn.feedback/1", "assets": {"p": {"muted_until": "x"}}}',
            "assets.p.muted_until: ",
        ),
        (
            b'{"schema": "forewarn.feedback/1", "assets": {"p": {"muted_until": NaN}}}',
            "assets.p.muted_until: ",
        ),
        (b'{"schema": "forewarn.feedback/1", "more": 1}', "more: "),
    ],
)
def test_a_damaged_file_is_set_aside(
    content: bytes, rule: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever stands in the file, the agent starts with nothing in force, one line says so, and the file is kept."""
    file = FeedbackFile(tmp_path)
    file.path.write_bytes(content)
    with caplog.at_level(logging.ERROR):
        assert file.read().state == Feedback().state
    (line,) = caplog.messages
    assert line.startswith(f"{file.path}: {rule}")
    assert "set aside as feedback.damaged" in line
    assert "\n" not in line
    assert (tmp_path / "feedback.damaged").read_bytes() == content
    file.write(_said())
    assert file.read().state.alarms


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the disk refuses, the old file stands whole and the change is still to be kept."""
    file = FeedbackFile(tmp_path)
    file.write(_said())
    before = file.path.read_bytes()

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    feedback = _said()
    with pytest.raises(OSError, match="No space left"):
        file.write(feedback)
    assert feedback.changed
    assert file.path.read_bytes() == before


def test_a_directory_that_cannot_be_is_a_configuration_error(tmp_path: Path) -> None:
    """A place that is a file is named with the key."""
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match=r"feedback\.directory: cannot be made"):
        FeedbackFile(tmp_path / "file")


def test_reading_is_for_others_too(tmp_path: Path) -> None:
    """A reader gets the state, or the reason in one line, and changes nothing."""
    file = FeedbackFile(tmp_path)
    file.write(_said())
    assert read_feedback(file.path).alarms["a"].asset == "p1"
    file.path.write_bytes(b"{")
    with pytest.raises(ValueError, match="is damaged"):
        read_feedback(file.path)
    assert file.path.exists()
