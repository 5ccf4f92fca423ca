"""What operators said, in one file for each worker; what was kept with another number of workers is moved over.

Each worker writes its own file, so that a command is on disk before it is answered, as with one process. Files are only
moved while no worker runs, the new ones first: whenever that breaks off, nothing is lost, and it is done again.
"""

import re
from collections.abc import Iterable
from pathlib import Path

from edge_agent.contract.errors import ConfigurationError
from edge_agent.feedback import Feedback, FeedbackState
from edge_agent.feedback_file import FILE_NAME, FeedbackFile, read_feedback
from edge_agent.partition import owner

_SHARE = re.compile(r"feedback-\d+-of-\d+\.json")


def share_name(worker: int, workers: int) -> str:
    """Return the file name of a worker, counted from 0."""
    return FILE_NAME if workers == 1 else f"feedback-{worker + 1}-of-{workers}.json"


def read_shares(directory: Path) -> FeedbackState:
    """Return what all files of a directory hold together; nothing where there are none.

    Raises:
        OSError: one cannot be read.
        ValueError: one is damaged or of another version; one line `file: field: rule`.
    """
    return united(read_feedback(directory / name) for name in _names(directory))


def arrange(directory: Path, workers: int) -> None:
    """Bring what is kept into the files of so many workers; a damaged file is set aside.

    Raises:
        ConfigurationError: the new files cannot be written.
    """
    wanted = [share_name(worker, workers) for worker in range(workers)]
    found = _names(directory)
    if set(found) <= set(wanted):
        return
    kept = united(FeedbackFile(directory, name).read().state for name in found)
    try:
        for name, part in zip(wanted, divided(kept, workers), strict=True):
            FeedbackFile(directory, name).write(Feedback(part))
        for name in set(found) - set(wanted):
            (directory / name).unlink(missing_ok=True)
    except OSError as error:
        raise ConfigurationError(
            f"{directory}: feedback.directory: cannot be written to ({error.strerror})"
        ) from error


def united(states: Iterable[FeedbackState]) -> FeedbackState:
    """Return several states as one."""
    whole = FeedbackState()
    for state in states:
        whole.assets |= state.assets
        whole.alarms |= state.alarms
        whole.commands |= state.commands
    # The oldest give way first.
    whole.commands = dict(sorted(whole.commands.items(), key=lambda item: item[1].at))
    return whole


def divided(state: FeedbackState, workers: int) -> list[FeedbackState]:
    """Return each worker's part of a state; which command was about which asset is not known, all get them all."""
    parts = [FeedbackState(commands=dict(state.commands)) for _ in range(workers)]
    for asset, said in state.assets.items():
        parts[owner(asset, workers)].assets[asset] = said
    for alarm_id, record in state.alarms.items():
        parts[owner(record.asset, workers)].alarms[alarm_id] = record
    return parts


def _names(directory: Path) -> list[str]:
    if not directory.is_dir():
        return []
    every = (path.name for path in directory.iterdir())
    return sorted(name for name in every if name == FILE_NAME or _SHARE.fullmatch(name))
