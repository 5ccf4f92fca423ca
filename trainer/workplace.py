"""Where a bundle is made: a hidden directory beside it, with the draft and what an interrupted training left.

Only one process makes a bundle at a time. What is left behind goes on with the next command of the same data and
options, and is thrown away by any other.
"""

import fcntl
import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from edge_agent.contract.errors import ExporterMissingError, ForewarnError, UsageError
from edge_agent.version import VERSION
from trainer.checkpoint import Slot
from trainer.cleaning import Cleaned
from trainer.fit_options import FitOptions
from trainer.release import history_facts

_KEY = "key"
_LOCK = "lock"


@dataclass(frozen=True, slots=True)
class Workplace:
    """The directory of one fit.

    Attributes:
        directory: hidden, beside the bundle.
        resumed: whether an earlier fit of the same data and options left something.
    """

    directory: Path
    resumed: bool

    @property
    def draft(self) -> Path:
        """Return the directory of the bundle while it is incomplete."""
        return self.directory / "draft"

    def slot(self, stage: str) -> Slot:
        """Return where the state of a stage of training is kept."""
        return Slot(self.directory / f"{stage}.npz")


def fit_key(cleaned: Cleaned, options: FitOptions) -> str:
    """Return what must be the same for a training to go on: data, options and program.

    The backend of Keras may be another one: what is trained where there is a GPU is exported where TensorFlow is.
    """
    told = {
        "data": history_facts(cleaned),
        "sensors": list(cleaned.sensors),
        "interval": cleaned.interval,
        "options": asdict(options),
        "version": VERSION,
    }
    return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()


@contextmanager
def workplace(out: Path, key: str) -> Iterator[Workplace]:
    """Open the workplace of a bundle; it is gone when the bundle stands, or when the data or options are refused.

    Where nothing can export it stays: what was learnt can be exported elsewhere.

    Args:
        out: directory of the bundle.
        key: see `fit_key`.

    Raises:
        UsageError: another process makes this bundle.
    """
    directory = out.with_name(f".{out.name}.fitting")
    out.parent.mkdir(parents=True, exist_ok=True)
    directory.mkdir(exist_ok=True)
    with (directory / _LOCK).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as reason:
            raise UsageError(f"--out {out}: another process is fitting this bundle") from reason
        place = Workplace(directory, _prepare(directory, key))
        try:
            yield place
        except BaseException as reason:
            # Interrupted, or nothing to export with: the same command is to go on with what was learnt.
            refused = isinstance(reason, ForewarnError) and not isinstance(reason, ExporterMissingError)
            shutil.rmtree(directory if refused else place.draft, ignore_errors=True)
            raise
        shutil.rmtree(directory, ignore_errors=True)


def _prepare(directory: Path, key: str) -> bool:
    """Throw away what does not go on, and return whether something does."""
    note = directory / _KEY
    same = note.is_file() and note.read_text(encoding="ascii", errors="replace") == key
    for entry in directory.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        elif entry.name != _LOCK and not same:
            entry.unlink()
    (directory / "draft").mkdir()
    note.write_text(key, encoding="ascii")
    return same and any(directory.glob("*.npz"))
