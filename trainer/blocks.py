"""Blocks of a history in time order: what is fitted on, what stops training, what calibrates; folds of a short one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from edge_agent.contract.errors import HistoryError
from edge_agent.contract.grid import Axis
from edge_agent.contract.inputs import InputLayout
from edge_agent.contract.scaling import Scaling, fit_scaling
from edge_agent.contract.types import Bool, Float32, Samples
from trainer.calibrate import LANE_WARM_UP, CalibrationHistory
from trainer.cleaning import Cleaned, Series
from trainer.dataset import Filling, Segments, build_segments
from trainer.fit_options import FitOptions
from trainer.heads import Head
from trainer.model import ModelSpec
from trainer.starts import starts_notice

HELD_ROWS = 200_000
"""An asset's calibration block is no longer: more would change the tail little, and the forecaster can use them."""
LEARNT_ROWS = 50_000
"""The newest rows before the calibration block that the scales of residuals and levels come from."""
SHORT_HISTORY = 2000
"""Samples of an asset; with fewer, a block of its own for calibration would be minutes, and all are used in folds."""
FOLDS = 8
"""With four, each fold misses a quarter of a history that has no row to spare (docs/decisions/0002)."""
MOST_STATES = 32
"""An operating state is one of a few; what has more values is measured."""

Rows = tuple[int, int]
"""First row and row after the last."""


@dataclass(frozen=True)
class Cuts:
    """Where one asset's history is cut.

    Attributes:
        rows: in the history.
        stop: first row of the early-stopping block; the rows before it are fitted on.
        held: first row of the calibration block.
        shown: stretches before it that an operator marked as false alarms: they calibrate, nothing is fitted on them.
    """

    rows: int
    stop: int
    held: int
    shown: tuple[Rows, ...] = ()

    def fitted(self, first: int, last: int) -> list[Rows]:
        """Return the stretches of the rows `first` to `last` (exclusive) that are fitted on."""
        edges = [first, *(min(max(edge, first), last) for stretch in self.shown for edge in stretch), last]
        return [(a, b) for a, b in zip(edges[::2], edges[1::2], strict=True) if b > a]

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
        layout: what the forecaster reads.
        resting: of each asset (n,) which rows are of a machine that is off or settles.
    """

    cleaned: Cleaned
    options: FitOptions
    spec: ModelSpec
    in_folds: bool
    cuts: tuple[Cuts, ...]
    scaling: Scaling
    layout: InputLayout
    resting: tuple[Bool, ...]

    def segments(self, chosen: Callable[[Cuts], Sequence[Rows]]) -> Segments:
        """Return chosen rows of every asset, scaled; each stretch of them begins a segment."""
        parts = [
            self._segment(one, resting, first, last)
            for one, cuts, resting in zip(self.cleaned.series, self.cuts, self.resting, strict=True)
            for first, last in chosen(cuts)
            if last > first
        ]
        return parts[0] if len(parts) == 1 else Segments.concatenate(parts)

    def _segment(self, one: Series, resting: Bool, first: int, last: int) -> Segments:
        options, scaling = self.options, self.scaling
        return build_segments(
            one.ticks[first:last], one.values[first:last], scaling.centre, scaling.scale,
            options.max_gap_ticks, self.layout, resting[first:last],
            Filling(options.missing, options.fill_limit),
        )  # fmt: skip

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

    def over(self, cleaned: Cleaned) -> "Plan":
        """Return the plan of other samples of the machine, which judge: all in one block, scaled as before.

        What is missing in them is masked, as it is in the daemon: a cell that was filled would be judged as if it had
        been read.
        """
        cuts = tuple(Cuts(len(one.ticks), len(one.ticks), len(one.ticks)) for one in cleaned.series)
        options, resting = replace(self.options, missing="mask"), resting_rows(cleaned, self.options)
        return replace(self, cleaned=cleaned, options=options, cuts=cuts, resting=resting)

    def starts_notice(self) -> str | None:
        """Return what is to be said of a calibration with few starts of a machine that stops now and then."""
        held = [0 if self.in_folds else cuts.held for cuts in self.cuts]
        return starts_notice(self.resting, held) if self.options.off_when else None

    def calibration_history(self) -> CalibrationHistory:
        """Return the rows that calibrate and those that their scales come from."""
        parts, held, told = [], [], []
        for number, (one, cuts) in enumerate(zip(self.cleaned.series, self.cuts, strict=True)):
            marked = _rows_in(cuts.shown, cuts.rows)
            used = marked | _rows_in([(a - LANE_WARM_UP, a) for a, _ in cuts.shown], cuts.rows)
            used[0 if self.in_folds else max(0, cuts.held - LEARNT_ROWS) :] = True
            rows = np.flatnonzero(used)
            parts.append(Samples(np.full(len(rows), number), one.ticks[rows], one.values[rows]))
            held.append((rows >= cuts.held) | marked[rows] | self.in_folds)
            told.append(marked[rows] if one.false_alarms is None else one.false_alarms[rows])
        width = self.cleaned.series[0].values.shape[1]
        return CalibrationHistory(
            Samples.concatenate(parts, width), np.concatenate(held), np.concatenate(told)
        )


def make_plan(cleaned: Cleaned, options: FitOptions, calibrated: bool = True) -> Plan:
    """Decide window, blocks and scaling.

    Args:
        cleaned: the history.
        options: how to fit.
        calibrated: False where only the forecast is asked for, so that no block is held back for a threshold.

    Raises:
        HistoryError: the history cannot carry a model.
    """
    samples = min(len(series.ticks) for series in cleaned.series)
    window = options.window_length or max(8, min(60, samples // 10))
    # Folds would need a window graph each, whose export takes as long as all the rest.
    in_folds = calibrated and samples < SHORT_HISTORY and options.mode == "step"
    cuts = tuple(
        _with_shown(cut(len(series.ticks), window, in_folds or not calibrated), series, in_folds)
        for series in cleaned.series
    )
    layout = options.layout(cleaned.sensors, Axis(cleaned.interval, cleaned.phase))
    resting = resting_rows(cleaned, options)
    if all(one.all() for one in resting):
        raise HistoryError(f"the machine is off throughout, as {options.off_when} says")
    rows = _fit_rows(cleaned, cuts, in_folds, resting)
    scaling = fit_scaling(rows, options.scaling)
    spec = ModelSpec(
        len(layout.forecast),
        window,
        options.units,
        options.horizons,
        highway=options.highway,
        convolution=options.convolution,
        attention_heads=options.attention_heads,
        normalisation=options.normalisation,
        head=_head(cleaned.sensors, layout, options, rows, scaling),
        context=layout.context_width,
    )
    return Plan(cleaned, options, spec, in_folds, cuts, scaling, layout, resting)


def resting_rows(cleaned: Cleaned, options: FitOptions) -> tuple[Bool, ...]:
    """Return of each asset (n,) which rows are of a machine that is off or settles."""
    condition = options.off_condition(cleaned.sensors)
    if condition is None:
        return tuple(np.zeros(len(one.ticks), np.bool_) for one in cleaned.series)
    place = cleaned.sensors.index(condition.sensor)
    return tuple(condition.resting(one.values[:, place]) for one in cleaned.series)


def _head(
    sensors: Sequence[str], layout: InputLayout, options: FitOptions, rows: Float32, scaling: Scaling
) -> Head:
    """Return the head; its states are the values that the sensor has in the rows (n, F) that are fitted on.

    Raises:
        HistoryError: there is no such sensor, or it is no operating state.
    """
    if options.head == "quantile":
        return Head("quantile", tuple(sorted(options.quantiles, key=lambda q: (q != 0.5, q))))
    if options.head != "softmax":
        return Head(options.head)
    name = options.state_sensor
    forecast = [sensors[place] for place in layout.forecast]
    if name not in forecast:
        raise HistoryError(
            f"no sensor {name}, which would hold the operating state; there are {', '.join(forecast)}"
        )
    scaled = scaling.apply(rows)[:, list(sensors).index(name)]
    values = np.unique(scaled[np.isfinite(scaled)])
    if not 2 <= len(values) <= MOST_STATES:
        raise HistoryError(
            f"sensor {name} has {len(values)} different values where the model is fitted; an operating state "
            f"has 2 to {MOST_STATES}"
        )
    return Head(
        "softmax", state_sensor=forecast.index(name), state_values=tuple(float(value) for value in values)
    )


def _with_shown(cuts: Cuts, series: Series, in_folds: bool) -> Cuts:
    """Return the cuts with the stretches of false alarms that would otherwise be fitted on and never calibrate."""
    if series.false_alarms is None or in_folds:
        return cuts
    marked = np.zeros(cuts.rows + 2, np.int8)
    marked[1 : cuts.held + 1] = series.false_alarms[: cuts.held]
    first, last = np.flatnonzero(np.diff(marked) == 1), np.flatnonzero(np.diff(marked) == -1)
    return replace(cuts, shown=tuple((int(a), int(b)) for a, b in zip(first, last, strict=True)))


def _rows_in(stretches: Sequence[Rows], count: int) -> Bool:
    """Return (count,) which rows are in any of the stretches."""
    inside = np.zeros(count, np.bool_)
    for first, last in stretches:
        inside[max(first, 0) : last] = True
    return inside


def _fit_rows(cleaned: Cleaned, cuts: Sequence[Cuts], in_folds: bool, resting: Sequence[Bool]) -> Float32:
    """Return the rows that scales come from: all that the released forecaster is fitted on while the machine runs."""
    first = np.concatenate(
        [
            one.values[a:b][~rows[a:b]] if rows[a:b].any() else one.values[a:b]
            for one, cuts_of_one, rows in zip(cleaned.series, cuts, resting, strict=True)
            for a, b in cuts_of_one.fitted(0, cuts_of_one.stop)
        ]
    )
    empty = np.flatnonzero(~np.isfinite(first).any(axis=0))
    if len(empty):
        raise HistoryError(
            f"sensor {cleaned.sensors[empty[0]]} has no value in the part that the model is fitted on"
            f"{' while the machine runs' if any(rows.any() for rows in resting) else ''}; "
            "leave it out with --ignore-column"
        )
    if not in_folds:
        return first
    return np.concatenate([one.values[~rows] for one, rows in zip(cleaned.series, resting, strict=True)])
