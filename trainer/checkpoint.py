"""What an interrupted training left behind: one file a stage, written after each epoch, in one step.

Killed at any moment, the file is that of the last whole epoch. It holds arrays alone, no code.
"""

import json
import os
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_FACTS = "facts"


@dataclass(frozen=True)
class TrainingState:
    """Where a training stands after an epoch.

    Attributes:
        facts: numbers and lists of numbers, by name.
        groups: arrays in order, by name.
    """

    facts: dict[str, Any]
    groups: dict[str, list[NDArray[Any]]]


@dataclass(frozen=True, slots=True)
class Slot:
    """The place of one stage's state.

    Attributes:
        path: of the file.
    """

    path: Path

    def load(self) -> TrainingState | None:
        """Return what was saved; None where there is nothing, or nothing that can be read."""
        try:
            with np.load(self.path, allow_pickle=False) as archive:
                facts = json.loads(archive[_FACTS].tobytes())
                sizes = facts.pop("groups")
                groups = {
                    name: [archive[f"{name}-{number}"] for number in range(count)]
                    for name, count in sizes.items()
                }
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None
        return TrainingState(facts, groups)

    def save(self, facts: Mapping[str, Any], groups: Mapping[str, Sequence[NDArray[Any]]]) -> None:
        """Put a state in place of the one before.

        Raises:
            OSError: it could not be written; the one before is still there.
        """
        sizes = {name: len(arrays) for name, arrays in groups.items()}
        told = np.frombuffer(json.dumps({**facts, "groups": sizes}).encode(), np.uint8)
        arrays = {
            f"{name}-{number}": array for name, group in groups.items() for number, array in enumerate(group)
        }
        draft = self.path.with_suffix(".new")
        with draft.open("wb") as file:
            np.savez(file, **{_FACTS: told, **arrays})  # type: ignore[arg-type]  # keywords are arrays, all of them
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self.path)
