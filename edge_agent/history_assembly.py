"""The batches of a history put together; what only the whole data can decide is decided here."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edge_agent.contract.errors import HistoryError
from edge_agent.contract.types import Bool, Float32, Float64, Int64
from edge_agent.history_time import choose_date_order
from edge_agent.history_wide import readings_to_rows

TOO_LARGE = 1e15
"""Beyond this a number is a marker or an overflow: no sensor measures it, and its square leaves float32's range."""


@dataclass(frozen=True)
class History:
    """Readings of one or more assets in the order of the files.

    Attributes:
        source: the file or files, for messages.
        sensors: names of the F sensors.
        assets: ids of the assets.
        asset: (n,) int64, index into `assets`.
        time: (n,) float64, seconds since the epoch; a time without a zone is read as UTC.
        values: (n, F) float32 in the units of the file; NaN where missing.
        labels: (n,) int8, 1 where the file marks a fault; None without labels.
        notices: what the user should know, a sentence each.
        repairs: how many cells or rows were repaired, by kind.
    """

    source: str
    sensors: tuple[str, ...]
    assets: tuple[str, ...]
    asset: Int64
    time: Float64
    values: Float32
    labels: NDArray[np.int8] | None
    notices: tuple[str, ...]
    repairs: dict[str, int]


@dataclass
class Assembly:
    """What has been read so far, as compact arrays; the text of a batch is let go with the batch."""

    source: str
    time_format: str | None = None
    notices: list[str] = field(default_factory=list)
    repairs: Counter[str] = field(default_factory=Counter)
    rows: int = 0
    sensors: dict[str, int] = field(default_factory=dict)
    assets: dict[str, int] = field(default_factory=dict)
    numbers: Counter[str] = field(default_factory=Counter)
    """How many numbers a sensor has."""
    texts: Counter[str] = field(default_factory=Counter)
    """How many cells of a sensor are text."""
    time: list[tuple[Float64, Float64]] = field(default_factory=list)
    """Per batch the times read day first and month first."""
    asset: list[Int64] = field(default_factory=list)
    labels: list[NDArray[np.int8]] = field(default_factory=list)
    labelled: bool = False
    tag: list[Int64] = field(default_factory=list)
    """Long layout: per batch the sensor of each row."""
    values: list[tuple[list[int], Float32]] = field(default_factory=list)
    """Per batch the sensors of its columns, and its cells."""

    def add_rows(
        self, time: tuple[Float64, Float64], asset: Int64, labels: NDArray[np.int8] | None, tag: Int64 | None
    ) -> None:
        """Take in what tells the rows of a batch apart; the values of the same rows follow by `add_values`."""
        self.rows += len(asset)
        self.time.append(time)
        self.asset.append(asset)
        self.labelled |= labels is not None
        self.labels.append(np.zeros(len(asset), np.int8) if labels is None else labels)
        if (tag is None and self.tag) or (tag is not None and len(self.values) != len(self.tag)):
            raise HistoryError(f"{self.source}: the files are partly wide and partly long; read them apart")
        if tag is not None:
            self.tag.append(tag)

    def add_values(self, names: Sequence[str], columns: Sequence[tuple[Float64, int]]) -> None:
        """Take in the values of a batch: per column its numbers (n,), NaN where missing, and its cells of text."""
        values = np.empty((len(self.asset[-1]), len(names)), np.float32)
        for place, (name, (numbers, text)) in enumerate(zip(names, columns, strict=True)):
            values[:, place] = self._plausible(numbers)
            self.numbers[name] += int(np.isfinite(numbers).sum())
            self.texts[name] += text
        wide = [] if self.tag else [self.sensors.setdefault(name, len(self.sensors)) for name in names]
        self.values.append((wide, values))

    def _plausible(self, numbers: Float64) -> Float64:
        infinite = np.isinf(numbers)
        large = np.abs(numbers) > TOO_LARGE
        if large.any():
            self.repairs["infinite value"] += int(infinite.sum())
            self.repairs["value too large"] += int((large & ~infinite).sum())
            numbers[large] = np.nan
        return numbers

    def finish(self) -> History:
        """Put the batches together and decide what only the whole data can decide."""
        time = self._decide_time()
        asset, labels = np.concatenate(self.asset), np.concatenate(self.labels)
        keep = np.isfinite(time) & (asset >= 0)
        self.repairs["time not readable"] += int((~np.isfinite(time)).sum())
        self.repairs["asset not named"] += int((asset < 0).sum())
        if keep.sum() * 2 < len(keep):
            how = f" as {self.time_format!r}" if self.time_format else ""
            raise HistoryError(
                f"{self.source}: most rows have a time that cannot be read{how}; give their --time-format"
            )
        values = self._take_long(keep, asset, time) if self.tag else None
        if values is None:
            table = self._take_wide()
            values = (np.arange(len(time)), table) if keep.all() else (np.flatnonzero(keep), table[keep])
        rows, table = values
        whole = len(rows) == len(time)
        return History(
            source=self.source,
            sensors=tuple(self.sensors),
            assets=tuple(self.assets),
            asset=asset if whole else asset[rows],
            time=time if whole else time[rows],
            values=table,
            labels=(labels if whole else labels[rows]) if self.labelled else None,
            notices=tuple(dict.fromkeys(self.notices)),
            repairs={kind: count for kind, count in self.repairs.items() if count},
        )

    def _decide_time(self) -> Float64:
        day_first = np.concatenate([batch[0] for batch in self.time])
        month_first = np.concatenate([batch[1] for batch in self.time])
        self.time.clear()
        if self.time_format in ("day-first", "month-first"):
            return day_first if self.time_format == "day-first" else month_first
        time, order, certain = choose_date_order(day_first, month_first)
        if not certain:
            self.notices.append(f"{self.source}: the dates can be read two ways, they are read {order}")
        return time

    def _take_wide(self) -> Float32:
        """Return (n, F'), without the columns that are text throughout."""
        for name in [name for name in self.sensors if self.texts[name] and not self.numbers[name]]:
            self.notices.append(f"{self.source}: column {name} is text and is ignored")
            del self.texts[name]
        self.repairs["text in a number column"] += sum(self.texts.values())
        dropped = [name for name in self.sensors if name not in self.texts]
        old = list(self.sensors)
        self.sensors = {name: place for place, name in enumerate(n for n in old if n not in dropped)}
        if not self.sensors:
            raise HistoryError(f"{self.source}: no column holds numbers")
        table = np.full((sum(len(part) for _, part in self.values), len(self.sensors)), np.nan, np.float32)
        row = 0
        for index in range(len(self.values)):
            wide, part = self.values[index]
            self.values[index] = ([], part[:0])
            for place, column in enumerate(wide):
                if old[column] in self.sensors:
                    table[row : row + len(part), self.sensors[old[column]]] = part[:, place]
            row += len(part)
        return table

    def _take_long(self, keep: Bool, asset: Int64, time: Float64) -> tuple[Int64, Float32]:
        """Return the first row of each sample and the samples (m, F)."""
        tag = np.concatenate(self.tag)
        cells = np.concatenate([part[:, 0] for _, part in self.values])
        self.repairs["text in a number column"] += sum(self.texts.values())
        self.repairs["sensor not named"] += int((tag < 0).sum())
        rows = np.flatnonzero(keep & (tag >= 0))
        starts, table = readings_to_rows(asset[rows], time[rows], tag[rows], cells[rows], len(self.sensors))
        return rows[starts], table
