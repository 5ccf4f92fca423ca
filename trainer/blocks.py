"""Blocks of a history in time order: what is fitted on, what stops training, what calibrates; folds of a short one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from edge_agent.contract.errors import HistoryError
from edge_agent.contract.scaling import Scaling, fit_scaling
from edge_agent.contract.types import Bool, Float32, Samples
from trainer.calibrate import CalibrationHistory
from trainer.cleaning import Cleaned, Series
from trainer.dataset import Segments, build_segments
from trainer.fit_options import FitOptions
from trainer.model import ModelSpec

HELD_ROWS = 200_000
"""An asset's calibration block is no longer: more would change the tail little, and the forecaster can use them."""
LEARNT_ROWS = 50_000
"""The newest rows before the calibration block that the scales of residuals and levels come from."""
SHORT_HISTORY = 2000
"""Samples of an asset; with fewer, a block of its own for calibration would be minutes, and all are used in folds."""
FOLDS = 8
"""With four, each fold misses a quarter of a history that has no row to spare (docs/decisions/0002)."""

Rows = tuple[int, int]
"""First row and row after the last."""


@dataclass(frozen=True)
class Cuts:
    """Where one asset's history is cut.

    Attributes:
        rows: in the history.
        stop: first row of the early-stopping block; the rows before it are fitted on.
        held: first row of the calibration block.
    """

    rows: int
    stop: int
    held: int

    @property
    def folds(self) -> tuple[Rows, ...]:
        """Return `FOLDS` blocks of about the same length that cover all rows."""
        edges = np.linspace(0, self.rows, FOLDS + 1).astype(int)
        return tuple((int(a), int(b)) for a, b in pairwise(edges))


def cut(count: int, window: int, in_folds: bool) -> Cuts:
    """Return where to cut `count` samples for a window of `window` ticks.

    Args:
        count: samples of the asset.
        window: ticks.
        in_folds: calibrated out of fold, so that no block is held for it.

    Raises:
        HistoryError: the history is too short.
    """
    held = count if in_folds else count - min(int(count * 0.25), HELD_ROWS)
    stop = held - max(int(count * 0.15), window + 8)
    if stop < window + 8:
        share = 1.0 if in_folds else 0.75
        raise HistoryError(
            f"history too short: {count} samples of an asset, a window of {window} needs at least "
            f"{int((2 * window + 16) / share) + 1}; give more history or a smaller --window"
        )
    return Cuts(count, stop, held)


def _segments_of(
    series: Sequence[Series], chosen: Sequence[Sequence[Rows]], scaling: Scaling, max_gap_ticks: int
) -> Segments:
    """Return the chosen rows of each asset as segments; each stretch begins one."""
    parts = [
        build_segments(
            one.ticks[first:last], one.values[first:last], scaling.centre, scaling.scale, max_gap_ticks
        )
        for one, stretches in zip(series, chosen, strict=True)
        for first, last in stretches
        if last > first
    ]
    return parts[0] if len(parts) == 1 else Segments.concatenate(parts)


@dataclass(frozen=True)
class Plan:
    """What is decided before anything is learnt.

    Attributes:
        cleaned: the history.
        options: how to fit.
        spec: shape of the forecaster.
        in_folds: calibrated out of fold.
        cuts: of each asset.
        scaling: of the rows that the forecaster is fitted on.
    """

    cleaned: Cleaned
    options: FitOptions
    spec: ModelSpec
    in_folds: bool
    cuts: tuple[Cuts, ...]
    scaling: Scaling

    def segments(self, chosen: Callable[[Cuts], Sequence[Rows]]) -> Segments:
        """Return chosen rows of every asset, scaled."""
        rows = [chosen(cuts) for cuts in self.cuts]
        return _segments_of(self.cleaned.series, rows, self.scaling, self.options.max_gap_ticks)

    def fold(self, number: int) -> Segments:
        """Return the rows of one fold of every asset."""
        return self.segments(lambda cuts: [cuts.folds[number]])

    def without_fold(self, number: int) -> Segments:
        """Return the rows of all other folds of every asset."""
        return self.segments(lambda cuts: [(0, cuts.folds[number][0]), (cuts.folds[number][1], cuts.rows)])

    def rows_of_fold(self, number: int) -> Bool:
        """Return (n,) which rows of the calibration history are in a fold."""
        inside = []
        for cuts in self.cuts:
            first, last = cuts.folds[number]
            rows = np.arange(cuts.rows)
            inside.append((rows >= first) & (rows < last))
        return np.concatenate(inside)

    def calibration_history(self) -> CalibrationHistory:
        """Return the rows that calibrate and those that their scales come from."""
        parts, held = [], []
        for number, (one, cuts) in enumerate(zip(self.cleaned.series, self.cuts, strict=True)):
            rows = np.arange(cuts.rows)
            if not self.in_folds:
                rows = np.arange(max(0, cuts.held - LEARNT_ROWS), cuts.rows)
            parts.append(Samples(np.full(len(rows), number), one.ticks[rows], one.values[rows]))
            held.append((rows >= cuts.held) | self.in_folds)
        width = self.cleaned.series[0].values.shape[1]
        return CalibrationHistory(Samples.concatenate(parts, width), np.concatenate(held))


def make_plan(cleaned: Cleaned, options: FitOptions) -> Plan:
    """Decide window, blocks and scaling.

    Raises:
        HistoryError: the history cannot carry a model.
    """
    samples = min(len(series.ticks) for series in cleaned.series)
    window = options.window_length or max(8, min(60, samples // 10))
    # Folds would need a window graph each, whose export takes as long as all the rest.
    in_folds = samples < SHORT_HISTORY and options.inference == "step"
    cuts = tuple(cut(len(series.ticks), window, in_folds) for series in cleaned.series)
    scaling = fit_scaling(_fit_rows(cleaned, cuts, in_folds))
    return Plan(
        cleaned, options, ModelSpec(len(cleaned.sensors), window, options.units), in_folds, cuts, scaling
    )


def _fit_rows(cleaned: Cleaned, cuts: Sequence[Cuts], in_folds: bool) -> Float32:
    """Return the rows that scales come from: all that the released forecaster is fitted on."""
    pairs = list(zip(cleaned.series, cuts, strict=True))
    first = np.concatenate([one.values[: cuts_of_one.stop] for one, cuts_of_one in pairs])
    empty = np.flatnonzero(~np.isfinite(first).any(axis=0))
    if len(empty):
        raise HistoryError(
            f"sensor {cleaned.sensors[empty[0]]} has no value in the part that the model is fitted on; "
            "leave it out with --ignore-column"
        )
    return np.concatenate([one.values for one in cleaned.series]) if in_folds else first
