"""What operators marked, applied to a history: true faults are left out, false alarms are shown to calibration."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from edge_agent.contract.errors import HistoryError
from edge_agent.contract.grid import Axis
from edge_agent.contract.labels import LabelledInterval
from edge_agent.contract.types import Bool, Float64
from edge_agent.history import ONLY_ASSET
from trainer.cleaning import Cleaned, Series


@dataclass(frozen=True)
class Labelled:
    """A history with labels applied.

    Attributes:
        cleaned: without the rows of true faults; its series know the rows of false alarms.
        true_fault_rows, false_alarm_rows: how many.
        notices: what the user should know, a sentence each.
    """

    cleaned: Cleaned
    true_fault_rows: int
    false_alarm_rows: int
    notices: tuple[str, ...]


def apply_labels(cleaned: Cleaned, intervals: Sequence[LabelledInterval], source: str) -> Labelled:
    """Leave the rows of true faults out, and note those of false alarms; a row in both is a fault.

    Args:
        cleaned: the history.
        intervals: of any assets and times; those that meet no row are said.
        source: the labels' file, for messages.

    Raises:
        HistoryError: the history does not tell assets apart and the labels do, or nothing is left.
    """
    mine = _of_assets(cleaned, intervals, source)
    axis = Axis(cleaned.interval, cleaned.phase)
    kept: list[Series] = []
    rows: Counter[str] = Counter()
    met = 0
    for series in cleaned.series:
        time = np.asarray(axis.time_of(series.ticks), np.float64)
        chosen = mine.get(series.asset, [])
        met += sum(bool(_inside(time, [one], cleaned.interval).any()) for one in chosen)
        fault = _inside(time, [one for one in chosen if one.label == "true_fault"], cleaned.interval)
        false = (
            _inside(time, [one for one in chosen if one.label == "false_alarm"], cleaned.interval) & ~fault
        )
        rows.update(true_fault=int(fault.sum()), false_alarm=int(false.sum()))
        if not fault.all():
            kept.append(_without(series, fault, false))
    if not kept:
        raise HistoryError(f"{source}: marks every row of the history as a true fault")
    missed = len(intervals) - met
    notices = (
        (f"{source}: {missed} of {len(intervals)} labels are of no row of the history",) if missed else ()
    )
    return Labelled(replace(cleaned, series=tuple(kept)), rows["true_fault"], rows["false_alarm"], notices)


def _of_assets(
    cleaned: Cleaned, intervals: Sequence[LabelledInterval], source: str
) -> dict[str, list[LabelledInterval]]:
    """Return the intervals of each asset of the history."""
    if [series.asset for series in cleaned.series] == [ONLY_ASSET]:
        # A file without a column of assets is of one asset, whatever that is called elsewhere.
        named = sorted({one.asset for one in intervals})
        if len(named) > 1:
            raise HistoryError(
                f"{source}: asset: names {', '.join(named[:3])}, but the history does not tell assets apart"
            )
        return {ONLY_ASSET: list(intervals)}
    mine: dict[str, list[LabelledInterval]] = {}
    for one in intervals:
        mine.setdefault(one.asset, []).append(one)
    return mine


def _inside(time: Float64, intervals: Sequence[LabelledInterval], interval: float) -> Bool:
    """Return (n,) which rows are in any of the intervals; half a tick before and after belongs to them."""
    inside = np.zeros(len(time), np.bool_)
    for one in intervals:
        first, last = np.searchsorted(time, (one.start - interval / 2, one.end + interval / 2))
        inside[first:last] = True
    return inside


def _without(series: Series, fault: Bool, false: Bool) -> Series:
    kept = ~fault
    return replace(
        series,
        ticks=series.ticks[kept],
        values=series.values[kept],
        labels=None if series.labels is None else series.labels[kept],
        false_alarms=false[kept] if false.any() else None,
    )
