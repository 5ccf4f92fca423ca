"""Training data: one array of scaled samples, and sub-sequences gathered from it by index.

No tensor of all windows is ever made: a batch is cut out of the array when it is asked for, so memory is that
of the history itself plus one batch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from edge_agent.contract.errors import HistoryError
from edge_agent.contract.inputs import InputLayout
from edge_agent.contract.types import Bool, Float32, Float64, Int64

FILLINGS = ("mask", "forward-fill", "interpolate")


@dataclass(frozen=True, slots=True)
class Filling:
    """What the forecaster is told of missing cells while it is fitted.

    Daemon and calibration see them as missing, whatever is chosen here: no live reading can be interpolated.

    Attributes:
        policy: `mask` (held, marked as missing, no target), `forward-fill` (the first cells of a gap count as if they
            had been read as before) or `interpolate` (a gap counts as a straight line between its ends).
        limit: rows; of a longer gap only the first are filled forward, and none is interpolated.
    """

    policy: str = "mask"
    limit: int = 5


MASKED = Filling()
_ROUNDING = 1e-6
"""Scaled units; a sensor that never moved is not exactly at the mean of its readings."""


def _is_zero(columns: Float32) -> Bool:
    """Return (C,) which columns (N, C) are zero but for rounding; without a copy, as a history is large."""
    if not columns.size:
        return np.ones(columns.shape[1], np.bool_)
    return np.asarray(np.maximum(columns.max(axis=0), -columns.min(axis=0)) <= _ROUNDING)


def _no_context() -> Float32:
    return np.empty((0, 0), np.float32)


def _no_rest() -> Bool:
    return np.empty(0, np.bool_)


@dataclass(frozen=True, slots=True)
class Segments:
    """Unbroken stretches of samples, one after the other in one array.

    Attributes:
        values: (N, F) scaled; a missing cell holds the last value of its sensor, or 0 (the centre) before the first.
        missing: (N, F) True where the cell was not measured.
        starts: (S,) first row of each segment, ascending, `starts[0] == 0`.
        context: (N, X) what is read beside the sensors and not forecast, see `InputLayout`; X is 0 where not given.
        resting: (N,) rows that are no target, as the machine is off or settles; none where not given.
    """

    values: Float32
    missing: Bool
    starts: Int64
    context: Float32 = field(default_factory=_no_context)
    resting: Bool = field(default_factory=_no_rest)

    def __post_init__(self) -> None:
        """Give what was left out its rows."""
        if len(self.context) != len(self.values):
            object.__setattr__(self, "context", np.empty((len(self.values), 0), np.float32))
        if len(self.resting) != len(self.values):
            object.__setattr__(self, "resting", np.zeros(len(self.values), np.bool_))

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.values)

    def still(self) -> Bool:
        """Return (2F + X,) the inputs that are zero throughout: those of sensors and set points that never moved."""
        unmarked = np.zeros(self.missing.shape[1], np.bool_)
        return np.concatenate([_is_zero(self.values), unmarked, _is_zero(self.context)])

    def bounds(self) -> Iterator[tuple[int, int]]:
        """Yield first row and row after the last of each segment."""
        ends = np.append(self.starts[1:], len(self.values))
        for start, end in zip(self.starts, ends, strict=True):
            yield int(start), int(end)

    def rows(self, first: int, last: int) -> "Segments":
        """Return the rows `first` to `last` (exclusive) as segments of their own; the arrays are views."""
        inside = self.starts[(self.starts > first) & (self.starts < last)] - first
        starts = np.concatenate([np.zeros(1 if last > first else 0, np.int64), inside])
        part = slice(first, last)
        return Segments(self.values[part], self.missing[part], starts, self.context[part], self.resting[part])

    @staticmethod
    def concatenate(parts: "Sequence[Segments]") -> "Segments":
        """Return the parts as one; every part begins a segment."""
        offsets = np.cumsum([0, *(len(part) for part in parts)])
        return Segments(
            np.concatenate([part.values for part in parts]),
            np.concatenate([part.missing for part in parts]),
            np.concatenate([part.starts + offset for part, offset in zip(parts, offsets, strict=False)]),
            np.concatenate([part.context for part in parts]),
            np.concatenate([part.resting for part in parts]),
        )


def build_segments(
    ticks: Int64,
    values: Float32,
    centre: Float64,
    scale: Float64,
    max_gap_ticks: int,
    layout: InputLayout | None = None,
    resting: Bool | None = None,
    filling: Filling = MASKED,
) -> Segments:
    """Scale the samples of one asset, with missing cells held and masked.

    Args:
        ticks: (n,) ascending tick numbers.
        values: (n, F) engineering units, NaN where missing.
        centre: (F,) engineering units.
        scale: (F,) engineering units, positive.
        max_gap_ticks: a longer jump between ticks begins a new segment; over a shorter one samples follow each other
            as they do in the daemon.
        layout: which columns are forecast and what is read beside them; None forecasts all.
        resting: (n,) see `Segments`.
        filling: of missing cells; exogenous quantities are held always.

    Raises:
        HistoryError: there is no sample at all.
    """
    if len(ticks) == 0:
        raise HistoryError("the history has no samples to train on")
    held = np.asarray((values - centre.astype(np.float32)) / scale.astype(np.float32), np.float32)
    missing = np.isnan(held)
    starts = np.concatenate([[0], np.flatnonzero(np.diff(ticks) - 1 > max_gap_ticks) + 1]).astype(np.int64)
    for first, last in zip(starts, np.append(starts[1:], len(held)), strict=True):
        _fill(held[first:last], missing[first:last], filling)
        _hold(held[first:last], missing[first:last])
    if layout is None or not layout.context_width:
        return Segments(held, missing, starts, resting=_no_rest() if resting is None else resting)
    context = layout.context(held, ticks)
    if len(layout.exogenous):
        held, missing = held[:, layout.forecast], missing[:, layout.forecast]
    return Segments(held, missing, starts, context, _no_rest() if resting is None else resting)


def _fill(values: Float32, missing: Bool, filling: Filling) -> None:
    """Fill gaps as `filling` says, in place; what is filled is no longer missing."""
    if filling.policy == "mask":
        return
    for sensor in np.flatnonzero(missing.any(axis=0)):
        edges = np.flatnonzero(np.diff(missing[:, sensor].astype(np.int8), prepend=0, append=0))
        for first, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
            if first == 0:
                continue
            if filling.policy == "forward-fill":
                end = min(end, first + filling.limit)
                filled = values[first - 1, sensor]
            elif end == len(values) or end - first > filling.limit:
                continue
            else:
                filled = np.linspace(values[first - 1, sensor], values[end, sensor], end - first + 2)[1:-1]
            values[first:end, sensor], missing[first:end, sensor] = filled, False


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
        """Return (n, length, 2F + X): held values, the missing mask, and the context."""
        rows = self.start_rows(numbers)[:, None] + np.arange(self.length)
        mask = self.segments.missing[rows].astype(np.float32)
        return np.concatenate([self.segments.values[rows], mask, self.segments.context[rows]], axis=2)

    def targets(self, numbers: Int64) -> tuple[Float32, Float32]:
        """Return values and weights, each (n, length, horizons * F); one that is missing or rests weighs 0."""
        steps = np.arange(self.length)[:, None] + 1 + np.arange(self.horizons)
        rows = self.start_rows(numbers)[:, None, None] + steps
        shape = (len(numbers), self.length, -1)
        values = self.segments.values[rows].reshape(shape)
        counted = ~(self.segments.missing[rows] | self.segments.resting[rows][..., None])
        weights = counted.astype(np.float32).reshape(shape)
        return values, weights


def mask_cells(
    inputs: Float32, ratio: float, rng: np.random.Generator, sensors: int | None = None
) -> Float32:
    """Return the inputs with a share of their cells hidden: value held from the row before, mask set to 1.

    The first row of a sub-sequence is left as it is, since there is nothing to hold.

    Args:
        inputs: (n, T, 2F + X) values, mask and context.
        ratio: share of cells hidden, 0 to 1.
        rng: source of randomness.
        sensors: F; None where there is no context.
    """
    sensors = inputs.shape[2] // 2 if sensors is None else sensors
    hidden = rng.random((*inputs.shape[:2], sensors), dtype=np.float32) < ratio
    hidden[:, 0] = False
    rows = np.arange(inputs.shape[1])[None, :, None]
    source = np.maximum.accumulate(np.where(hidden, 0, rows), axis=1)
    values = np.take_along_axis(inputs[:, :, :sensors], source, axis=1)
    mask = np.maximum(inputs[:, :, sensors : 2 * sensors], hidden.astype(np.float32))
    return np.concatenate([values, mask, inputs[:, :, 2 * sensors :]], axis=2)
