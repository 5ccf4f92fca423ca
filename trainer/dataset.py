"""Training data: one array of scaled samples, and sub-sequences gathered from it by index.

No tensor of all windows is ever made: a batch is cut out of the array when it is asked for, so memory is that
of the history itself plus one batch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from edge_agent.contract.errors import HistoryError
from edge_agent.contract.types import Bool, Float32, Float64, Int64


@dataclass(frozen=True, slots=True)
class Segments:
    """Unbroken stretches of samples, one after the other in one array.

    Attributes:
        values: (N, F) scaled; a missing cell holds the last value of its sensor, or 0 (the centre) before the first.
        missing: (N, F) True where the cell was not measured.
        starts: (S,) first row of each segment, ascending, `starts[0] == 0`.
    """

    values: Float32
    missing: Bool
    starts: Int64

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.values)

    def bounds(self) -> Iterator[tuple[int, int]]:
        """Yield first row and row after the last of each segment."""
        ends = np.append(self.starts[1:], len(self.values))
        for start, end in zip(self.starts, ends, strict=True):
            yield int(start), int(end)

    def rows(self, first: int, last: int) -> "Segments":
        """Return the rows `first` to `last` (exclusive) as segments of their own; the arrays are views."""
        inside = self.starts[(self.starts > first) & (self.starts < last)] - first
        starts = np.concatenate([np.zeros(1 if last > first else 0, np.int64), inside])
        return Segments(self.values[first:last], self.missing[first:last], starts)

    @staticmethod
    def concatenate(parts: "Sequence[Segments]") -> "Segments":
        """Return the parts as one; every part begins a segment."""
        offsets = np.cumsum([0, *(len(part) for part in parts)])
        return Segments(
            np.concatenate([part.values for part in parts]),
            np.concatenate([part.missing for part in parts]),
            np.concatenate([part.starts + offset for part, offset in zip(parts, offsets, strict=False)]),
        )


def build_segments(
    ticks: Int64, values: Float32, centre: Float64, scale: Float64, max_gap_ticks: int
) -> Segments:
    """Scale the samples of one asset, with missing cells held and masked.

    Args:
        ticks: (n,) ascending tick numbers.
        values: (n, F) engineering units, NaN where missing.
        centre: (F,) engineering units.
        scale: (F,) engineering units, positive.
        max_gap_ticks: a longer jump between ticks begins a new segment; over a shorter one samples follow each other
            as they do in the daemon.

    Raises:
        HistoryError: there is no sample at all.
    """
    if len(ticks) == 0:
        raise HistoryError("the history has no samples to train on")
    held = np.asarray((values - centre.astype(np.float32)) / scale.astype(np.float32), np.float32)
    missing = np.isnan(held)
    starts = np.concatenate([[0], np.flatnonzero(np.diff(ticks) - 1 > max_gap_ticks) + 1]).astype(np.int64)
    for first, last in zip(starts, np.append(starts[1:], len(held)), strict=True):
        _hold(held[first:last], missing[first:last])
    return Segments(held, missing, starts)


def _hold(values: Float32, missing: Bool) -> None:
    """Fill missing cells with the last value of their sensor, in place, one sensor at a time to save memory."""
    rows = np.arange(len(values))
    for sensor in np.flatnonzero(missing.any(axis=0)):
        source = np.maximum.accumulate(np.where(missing[:, sensor], -1, rows))
        column = values[np.maximum(source, 0), sensor]
        values[:, sensor] = np.where(source < 0, np.float32(0), column)


class SubSequences:
    """All sub-sequences of `length` inputs and `horizons` targets beyond them, numbered but not stored."""

    def __init__(self, segments: Segments, length: int, horizons: int) -> None:
        """Count the sub-sequences.

        Raises:
            HistoryError: no segment is long enough for one sub-sequence.
        """
        self.segments = segments
        self.length = length
        self.horizons = horizons
        bounds = list(segments.bounds())
        counts = np.array([max(0, end - start - length - horizons + 1) for start, end in bounds], np.int64)
        self._ends = np.cumsum(counts)
        self._first = np.array([start for start, _ in bounds], np.int64)
        self._before = self._ends - counts
        if len(self) == 0:
            longest = max((end - start for start, end in bounds), default=0)
            raise HistoryError(
                f"the longest unbroken stretch has {longest} samples, "
                f"training needs at least {length + horizons} (window and horizon)"
            )

    def __len__(self) -> int:
        """Return how many sub-sequences there are."""
        return int(self._ends[-1]) if len(self._ends) else 0

    def start_rows(self, numbers: Int64) -> Int64:
        """Return the (n,) first rows of the sub-sequences with these numbers."""
        segment = np.searchsorted(self._ends, numbers, side="right")
        return self._first[segment] + numbers - self._before[segment]

    def inputs(self, numbers: Int64) -> Float32:
        """Return (n, length, 2F): held values and the missing mask."""
        rows = self.start_rows(numbers)[:, None] + np.arange(self.length)
        mask = self.segments.missing[rows].astype(np.float32)
        return np.concatenate([self.segments.values[rows], mask], axis=2)

    def targets(self, numbers: Int64) -> tuple[Float32, Float32]:
        """Return values and weights, each (n, length, horizons * F); a missing target weighs 0."""
        steps = np.arange(self.length)[:, None] + 1 + np.arange(self.horizons)
        rows = self.start_rows(numbers)[:, None, None] + steps
        shape = (len(numbers), self.length, -1)
        values = self.segments.values[rows].reshape(shape)
        weights = (~self.segments.missing[rows]).astype(np.float32).reshape(shape)
        return values, weights


def mask_cells(inputs: Float32, ratio: float, rng: np.random.Generator) -> Float32:
    """Return the inputs with a share of their cells hidden: value held from the row before, mask set to 1.

    The first row of a sub-sequence is left as it is, since there is nothing to hold.

    Args:
        inputs: (n, T, 2F) values and mask.
        ratio: share of cells hidden, 0 to 1.
        rng: source of randomness.
    """
    sensors = inputs.shape[2] // 2
    hidden = rng.random((*inputs.shape[:2], sensors), dtype=np.float32) < ratio
    hidden[:, 0] = False
    rows = np.arange(inputs.shape[1])[None, :, None]
    source = np.maximum.accumulate(np.where(hidden, 0, rows), axis=1)
    values = np.take_along_axis(inputs[:, :, :sensors], source, axis=1)
    mask = np.maximum(inputs[:, :, sensors:], hidden.astype(np.float32))
    return np.concatenate([values, mask], axis=2)
