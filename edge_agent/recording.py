"""What is recorded: readings gathered in memory, put on disk as Parquet files that `trainer fit` reads as a history.

A file appears whole or not at all: it is written under a hidden name, which no reader looks at, and renamed. Readings
of one asset and time share a row, however many messages they came in.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_agent.contract.types import Float32, Float64, Int64, Rows
from edge_agent.history import write_parquet
from edge_agent.history_wide import readings_to_rows

MOST_READINGS = 2_000_000
"""In one file, whatever else was asked for; 24 bytes each while they wait."""
WAITING_FILES = 4
"""As many as these may wait while the disk is full; what comes then is lost, and counted."""
_RESERVED = ("time", "asset")


class Recording:
    """Files of one directory, and the readings that wait to be written.

    Args:
        directory: made if it is not there; files of an earlier life stay.
        rows: messages' rows of a file, at most.
    """

    def __init__(self, directory: Path, rows: int) -> None:
        self.directory = directory
        self.files = 0
        """Files written."""
        self.written = 0
        """Readings written."""
        self.lost = 0
        """Readings that there was no room for."""
        self._most_rows = rows
        self._parts: list[tuple[Int64, Float64, Int64, Float32]] = []
        self._rows = 0
        self.waiting = 0
        """Readings that wait to be written."""
        directory.mkdir(parents=True, exist_ok=True)
        for unfinished in directory.glob(".*.parquet.part"):
            unfinished.unlink()

    @property
    def is_full(self) -> bool:
        """Return whether a file's worth waits."""
        return self._rows >= self._most_rows or self.waiting >= MOST_READINGS

    def add(self, rows: Rows) -> None:
        """Take readings in; what there is no room for is counted as lost."""
        row, sensor = np.nonzero(np.isfinite(rows.values))
        room = self._rows < WAITING_FILES * self._most_rows and self.waiting < WAITING_FILES * MOST_READINGS
        if not room:
            self.lost += len(row)
            return
        self._parts.append((rows.asset[row], rows.time[row], sensor, rows.values[row, sensor]))
        self._rows += len(rows)
        self.waiting += len(row)

    def write(self, assets: list[str], sensors: list[str]) -> Path | None:
        """Put what waits into one file; returns it, None where nothing waits.

        Args:
            assets: names by the row that readings carry.
            sensors: names by the column that readings carry.

        Raises:
            HistoryError: the file cannot be written; the readings go on waiting.
            OSError: the same.
        """
        if not self.waiting:
            return None
        asset, time, sensor, value = (np.concatenate(part) for part in zip(*self._parts, strict=True))
        starts, table = readings_to_rows(asset, time, sensor, value, len(sensors))
        columns: dict[str, NDArray[Any]] = {
            "time": np.round(time[starts] * 1e6).astype("datetime64[us]"),
            "asset": np.array(assets)[asset[starts]],
        }
        # A column without a reading says nothing, and a later file may bring it.
        for place in np.flatnonzero(np.isfinite(table).any(axis=0)):
            columns[_column(sensors[place])] = table[:, place]
        path = self._free_name(columns["time"][0])
        draft = path.with_name(f".{path.name}.part")
        try:
            write_parquet(draft, columns)
            with draft.open("rb+") as stream:
                os.fsync(stream.fileno())
            draft.rename(path)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
        self.files += 1
        self.written += self.waiting
        self._parts, self._rows, self.waiting = [], 0, 0
        return path

    def _free_name(self, first: np.datetime64) -> Path:
        """Return a name that sorts by the time of the first reading and that no file has."""
        stamp = np.datetime_as_string(first, unit="s").replace("-", "").replace(":", "")
        number = 0
        while (path := self.directory / f"readings-{stamp}Z-{number:03d}.parquet").exists():
            number += 1
        return path


def _column(sensor: str) -> str:
    """Return the name of a sensor's column, which must not be that of another thing."""
    return f"sensor {sensor}" if sensor in _RESERVED else sensor
