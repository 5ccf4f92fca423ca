"""What operators said, on disk: one JSON file, replaced as a whole, so that a power cut leaves the old or the new one.

A damaged file is set aside and never stops the agent.
"""

import json
import logging
import os
from pathlib import Path

from pydantic import ValidationError

from edge_agent.contract.errors import ConfigurationError
from edge_agent.feedback import SCHEMA, Feedback, FeedbackState
from edge_agent.settings import Settings

FILE_NAME = "feedback.json"
LARGEST_BYTES = 64 * 2**20
"""Far beyond what the bounds of the state allow; a file of this size is not ours."""
log = logging.getLogger(__name__)


class FeedbackFile:
    """The file in a state directory.

    Args:
        directory: made when it does not exist.
        name: of the file.

    Raises:
        ConfigurationError: the directory cannot be made or written to.
    """

    def __init__(self, directory: Path, name: str = FILE_NAME) -> None:
        self.path = directory / name
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(
                f"{directory}: feedback.directory: cannot be made ({error.strerror})"
            ) from error
        if not os.access(directory, os.W_OK | os.X_OK):
            raise ConfigurationError(f"{directory}: feedback.directory: cannot be written to")

    def read(self) -> Feedback:
        """Return what the file holds; a damaged one is renamed and said so, and nothing is in force."""
        try:
            return Feedback(read_feedback(self.path))
        except FileNotFoundError:
            return Feedback()
        except (OSError, ValueError) as error:
            log.error("%s; set aside as %s, no feedback is in force", error, self._set_aside())  # noqa: TRY400 - one line
            return Feedback()

    def write(self, feedback: Feedback) -> None:
        """Put the state into the file, all of it or nothing.

        Raises:
            OSError: the disk is full or gone; the old file stands.
        """
        draft = self.path.with_suffix(".draft")
        with draft.open("wb") as stream:
            stream.write(feedback.state.model_dump_json(by_alias=True).encode())
            stream.flush()
            os.fsync(stream.fileno())
        draft.replace(self.path)
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        feedback.changed = False

    def _set_aside(self) -> str:
        place = self.path.with_suffix(".damaged")
        try:
            self.path.replace(place)
        except OSError as error:
            return f"nothing ({error.strerror})"
        return place.name


def feedback_directory(settings: Settings) -> Path | None:
    """Return where feedback is kept; None where it is not, which only an agent without control may do.

    Raises:
        ConfigurationError: operators may command the agent, and there is no place for what they say.
    """
    directory = settings.feedback.effective_directory
    if directory is None and settings.control.enabled:
        raise ConfigurationError(
            "control.enabled: needs feedback.directory, or what operators say is lost with a restart"
        )
    return directory


def feedback_file(settings: Settings, name: str = FILE_NAME) -> FeedbackFile | None:
    """Return the file of a name in which feedback is kept, None where it is not.

    Raises:
        ConfigurationError: there is no place for it, though there must be, or it cannot be written to.
    """
    directory = feedback_directory(settings)
    return None if directory is None else FeedbackFile(directory, name)


def read_feedback(path: Path) -> FeedbackState:
    """Return what a file holds.

    Raises:
        FileNotFoundError: it does not exist.
        OSError: it cannot be read.
        ValueError: it is damaged or of another version; one line `file: field: rule`.
    """
    if path.stat().st_size > LARGEST_BYTES:
        raise ValueError(f"{path}: file: is larger than {LARGEST_BYTES} bytes")
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: file: is damaged ({type(error).__name__})") from None
    version = content.get("schema") if isinstance(content, dict) else None
    if version != SCHEMA:
        raise ValueError(f"{path}: schema: is {version!r}, this program reads {SCHEMA!r}")
    try:
        return FeedbackState.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"{path}: {field}: {first['msg']}") from None
