"""Laws of feedback that several workers keep: with another number of them nothing of it is lost, nor by a break."""

from pathlib import Path

import pytest

from edge_agent.contract.errors import ConfigurationError
from edge_agent.feedback import AlarmRecord, AssetFeedback, CommandResult, Feedback, FeedbackState
from edge_agent.feedback_file import FeedbackFile, read_feedback
from edge_agent.feedback_shares import arrange, divided, read_shares, share_name, united
from edge_agent.partition import owner

ASSETS = [f"p{number}" for number in range(20)]


def _state() -> FeedbackState:
    alarms = {
        f"alarm {asset}": AlarmRecord(
            alarm_id=f"alarm {asset}", asset=asset, onset=1.0, start=2.0, last=3.0, severity="warning",
            peak_score=1.5, score_basis="margin", named=("flow",), sensors=("flow",), directions=[(1.0,)],
            ended=True,
        )
        for asset in ASSETS[:10]
    }  # fmt: skip
    return FeedbackState(
        assets={asset: AssetFeedback(muted_until=float(at)) for at, asset in enumerate(ASSETS)},
        alarms=alarms,
        commands={f"mute/{number}": CommandResult(at=float(number)) for number in range(5)},
    )


def _names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_parts_are_the_whole() -> None:
    """Each worker gets what is about its assets, all know all commands, and together they are what was divided."""
    parts = divided(_state(), 3)
    for worker, part in enumerate(parts):
        assert {owner(asset, 3) for asset in part.assets} == {worker}
        assert {owner(record.asset, 3) for record in part.alarms.values()} <= {worker}
        assert len(part.commands) == 5
    assert united(parts) == _state()


def test_files_follow_the_number_of_workers(tmp_path: Path) -> None:
    """From one to three to two to one: the files are those of the number, and what they hold is the same."""
    FeedbackFile(tmp_path).write(Feedback(_state()))
    for workers in (1, 3, 3, 2, 1):
        arrange(tmp_path, workers)
        assert _names(tmp_path) == sorted(share_name(worker, workers) for worker in range(workers))
        assert read_shares(tmp_path) == _state()
    assert read_feedback(tmp_path / "feedback.json") == _state()


def test_a_break_between_two_files_loses_nothing(tmp_path: Path) -> None:
    """Where new files stand beside the old ones, all are read and the old ones go."""
    FeedbackFile(tmp_path).write(Feedback(_state()))
    FeedbackFile(tmp_path, share_name(0, 2)).write(Feedback(divided(_state(), 2)[0]))
    assert read_shares(tmp_path) == _state()
    arrange(tmp_path, 2)
    assert _names(tmp_path) == ["feedback-1-of-2.json", "feedback-2-of-2.json"]
    assert read_shares(tmp_path) == _state()


def test_files_in_place_are_left_alone(tmp_path: Path) -> None:
    """What is kept for this number of workers is not written again, and what is no file of ours does not count."""
    arrange(tmp_path, 2)
    assert _names(tmp_path) == []
    assert read_shares(tmp_path / "none") == FeedbackState()
    FeedbackFile(tmp_path, share_name(1, 2)).write(Feedback(divided(_state(), 2)[1]))
    (tmp_path / "feedback.damaged").touch()
    arrange(tmp_path, 2)
    assert _names(tmp_path) == ["feedback-2-of-2.json", "feedback.damaged"]


def test_a_damaged_file_is_set_aside(tmp_path: Path) -> None:
    """It costs what it held and neither the start nor the other files."""
    first, second = divided(_state(), 2)
    FeedbackFile(tmp_path, share_name(0, 2)).write(Feedback(first))
    (tmp_path / share_name(1, 2)).write_text("{")
    with pytest.raises(ValueError, match=r"feedback-2-of-2\.json: file: is damaged"):
        read_shares(tmp_path)
    arrange(tmp_path, 1)
    assert _names(tmp_path) == ["feedback-2-of-2.damaged", "feedback.json"]
    assert read_shares(tmp_path) == first
    assert second.assets


def test_a_place_that_takes_no_file_stops_the_start(tmp_path: Path) -> None:
    """Rather than forget what operators said the daemon does not start, and says which setting it is."""
    FeedbackFile(tmp_path).write(Feedback(_state()))
    (tmp_path / "feedback-1-of-2.draft").mkdir()
    with pytest.raises(ConfigurationError, match=r"feedback\.directory: cannot be written to"):
        arrange(tmp_path, 2)
    assert read_shares(tmp_path) == _state()
