"""How good a forecast and its alarms are, in figures that have a meaning at the machine.

Every row is judged for itself: there is no point adjustment, which would count a whole labelled segment as
found after one lucky row. A figure that is not defined on the rows at hand is `None`, never NaN. The metrics of
sequences (ranges, affiliation, corrected events, volumes) are in files of their own, which say what they count.
"""

import math
from collections.abc import Sequence
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

from edge_agent.contract.errors import HistoryError
from edge_agent.contract.types import Bool, Float32, Float64, Int64
from trainer.affiliation import affiliation_figures
from trainer.corrected_events import corrected_event_f_score
from trainer.range_metrics import range_figures
from trainer.scored_rows import asset_breaks, ranges_of, scored_rows
from trainer.volume_metrics import volume_figures

SECONDS_PER_WEEK = 7 * 86400.0

LABEL_FREE_KEYS = ("alarms_per_week", "time_in_alarm_ratio")
LABEL_KEYS = (
    "precision",
    "recall",
    "f1",
    "far",
    "mar",
    "average_precision",
    "roc_auc",
    "vus_pr",
    "vus_roc",
    "event_recall",
    "event_precision",
    "corrected_event_f05",
    "range_precision",
    "range_recall",
    "range_f1",
    "affiliation_precision",
    "affiliation_recall",
    "affiliation_f1",
    "false_alarms_per_week",
    "median_delay_seconds",
    "all_positive_f1",
)

Figures = dict[str, float | None]


class SensorSkill(TypedDict):
    """Forecast skill of one sensor, in the units of the values passed in."""

    name: str
    samples: int
    rmse: float | None
    mae: float | None
    persistence_rmse: float | None


class ForecastSkill(TypedDict):
    """Forecast skill over all sensors, in units of each sensor's scale, with the table per sensor."""

    rmse: float | None
    mae: float | None
    persistence_rmse: float | None
    sensors: list[SensorSkill]


def detection_metrics(
    time: Float64,
    score: Float64,
    alarm: Bool,
    label: NDArray[np.int8] | None,
    interval: float,
    asset: Int64 | None = None,
) -> Figures:
    """Measure alarms and scores, against labels where there are any.

    Events are runs of consecutive rows with the alarm, or the label, set. Rates are per week and asset, over
    rows that were judged (scored, or in alarm), so that unscored time never makes a detector look quieter; a
    labelled row that was not scored is a miss all the same. Only the ranking figures and the metrics of sequences leave
    rows without a score out altogether.

    Args:
        time: (n,) seconds since the epoch, ascending inside one asset.
        score: (n,) calibrated scores; NaN where a row was not scored.
        alarm: (n,) whether the asset was in alarm after the row.
        label: (n,) above 0 where the machine was not normal, or `None` without labels.
        interval: seconds that one row stands for.
        asset: (n,) row index of the asset, the rows of one asset together; `None` for one asset.

    Returns:
        One figure per key of `LABEL_FREE_KEYS` and `LABEL_KEYS`.

    Raises:
        HistoryError: the columns are not of one length, or the interval is not a positive number.
    """
    _check_columns(time, score, alarm, label, interval, asset)
    breaks = asset_breaks(asset, len(time))
    judged = np.isfinite(score) | alarm | np.isinf(score)
    alarms = ranges_of(alarm, breaks)
    figures: Figures = dict.fromkeys((*LABEL_FREE_KEYS, *LABEL_KEYS))
    figures["alarms_per_week"] = _ratio(len(alarms), int(judged.sum()) * interval / SECONDS_PER_WEEK)
    figures["time_in_alarm_ratio"] = _ratio(int(alarm.sum()), int(judged.sum()))
    if label is not None:
        faulty = label > 0
        figures |= _row_figures(alarm, faulty, judged)
        figures |= _ranking_figures(score, faulty)
        figures |= _event_figures(time, alarm, faulty, alarms, ranges_of(faulty, breaks))
        figures |= _sequence_figures(score, alarm, faulty, breaks)
        false_alarms = sum(not faulty[first:last].any() for first, last in alarms)
        normal_weeks = int((judged & ~faulty).sum()) * interval / SECONDS_PER_WEEK
        figures["false_alarms_per_week"] = _ratio(false_alarms, normal_weeks)
    return figures


def forecast_skill(
    actual: Float32,
    forecast: Float32,
    previous: Float32,
    mask: Bool,
    scale: Float64 | None = None,
    names: Sequence[str] | None = None,
) -> ForecastSkill:
    """Compare a forecast with what came, and with the forecast that says "as before" (persistence).

    Both are judged on the very same cells: those that the mask keeps and in which all three are finite.

    Args:
        actual: (n, F) what the sensors read.
        forecast: (n, F) what the model expected of them.
        previous: (n, F) what they read as many ticks before as the model looked ahead.
        mask: (n, F) true where the cell was really read.
        scale: (F,) the units of the overall figures, one per sensor; `None` where values are scaled already.
        names: (F,) names for the table; `None` numbers the sensors.

    Returns:
        `rmse`, `mae` and `persistence_rmse` over all cells in units of `scale`; `sensors` in the values' units.

    Raises:
        HistoryError: the arrays are not of one shape, or a scale is not positive.
    """
    sensor_count = actual.shape[1]
    units = np.ones(sensor_count) if scale is None else np.asarray(scale, np.float64)
    shapes = {array.shape for array in (actual, forecast, previous, mask)}
    if len(shapes) != 1 or units.shape != (sensor_count,) or not bool((units > 0).all()):
        raise HistoryError(
            "forecast skill: actual, forecast, previous and mask need one shape and scales above 0"
        )
    labels = [str(index) for index in range(sensor_count)] if names is None else list(names)
    sums = np.zeros((sensor_count, 4))
    for column in range(sensor_count):  # one column at a time: a long history is never copied as float64
        sums[column] = _error_sums(
            actual[:, column], forecast[:, column], previous[:, column], mask[:, column]
        )
    table = [_sensor_skill(name, row) for name, row in zip(labels, sums, strict=True)]
    scaled = sums / np.stack([np.ones(sensor_count), units**2, units, units**2], axis=1)
    overall = _sensor_skill("", scaled.sum(axis=0))
    return {
        "rmse": overall["rmse"],
        "mae": overall["mae"],
        "persistence_rmse": overall["persistence_rmse"],
        "sensors": table,
    }


def _check_columns(
    time: Float64,
    score: Float64,
    alarm: Bool,
    label: NDArray[np.int8] | None,
    interval: float,
    asset: Int64 | None,
) -> None:
    lengths = {len(column) for column in (time, score, alarm, label, asset) if column is not None}
    if len(lengths) > 1:
        raise HistoryError(
            f"detection metrics: columns of different lengths {sorted(lengths)}, need one row each"
        )
    if not (math.isfinite(interval) and interval > 0):
        raise HistoryError(f"detection metrics: interval {interval} must be a positive number of seconds")


def _row_figures(alarm: Bool, faulty: Bool, judged: Bool) -> Figures:
    hits = int((alarm & faulty).sum())
    false = int((alarm & ~faulty).sum())
    missed = int((~alarm & faulty).sum())
    positives = hits + missed
    return {
        "precision": _ratio(hits, hits + false),
        "recall": _ratio(hits, positives),
        "f1": _ratio(2 * hits, 2 * hits + false + missed),
        "far": _ratio(false, int((judged & ~faulty).sum())),
        "mar": _ratio(missed, positives),
        # What the alarm that never stops would earn: an F1 below this says nothing.
        "all_positive_f1": _ratio(2 * positives, len(faulty) + positives) if positives else None,
    }


def _ranking_figures(score: Float64, faulty: Bool) -> Figures:
    scored = ~np.isnan(score)
    truth = faulty[scored]
    ranks = np.nan_to_num(
        score[scored]
    )  # an infinite score stays the largest; scikit-learn refuses infinities
    positives = int(truth.sum())
    both = 0 < positives < len(truth)
    return {
        "average_precision": float(average_precision_score(truth, ranks)) if positives else None,
        "roc_auc": float(roc_auc_score(truth, ranks)) if both else None,
    }


def _sequence_figures(score: Float64, alarm: Bool, faulty: Bool, breaks: Int64) -> Figures:
    rows = scored_rows(score, alarm, faulty, breaks)
    return {
        **range_figures(rows),
        **affiliation_figures(rows),
        **volume_figures(rows),
        "corrected_event_f05": corrected_event_f_score(rows),
    }


def _event_figures(time: Float64, alarm: Bool, faulty: Bool, alarms: Int64, faults: Int64) -> Figures:
    """Return the figures that count runs; an alarm that stood before its fault began has a delay of 0."""
    delays = []
    for first, last in faults:
        if alarm[first:last].any():
            delays.append(float(time[first + int(np.argmax(alarm[first:last]))] - time[first]))
    true_alarms = sum(bool(faulty[first:last].any()) for first, last in alarms)
    return {
        "event_recall": _ratio(len(delays), len(faults)),
        "event_precision": _ratio(true_alarms, len(alarms)),
        "median_delay_seconds": float(np.median(delays)) if delays else None,
    }


def _error_sums(actual: Float32, forecast: Float32, previous: Float32, mask: Bool) -> Float64:
    """Return cells, sum of squared errors, sum of absolute errors, sum of squared persistence errors."""
    usable = mask & np.isfinite(actual) & np.isfinite(forecast) & np.isfinite(previous)
    truth = actual[usable].astype(np.float64)
    error, naive = truth - forecast[usable], truth - previous[usable]
    return np.array([len(truth), np.sum(error**2), np.sum(np.abs(error)), np.sum(naive**2)])


def _sensor_skill(name: str, sums: Float64) -> SensorSkill:
    cells = float(sums[0])
    mean_square, mean_absolute, naive_square = (_ratio(float(total), cells) for total in sums[1:])
    return {
        "name": name,
        "samples": int(cells),
        "rmse": None if mean_square is None else math.sqrt(mean_square),
        "mae": mean_absolute,
        "persistence_rmse": None if naive_square is None else math.sqrt(naive_square),
    }


def _ratio(part: float, whole: float) -> float | None:
    """Return the quotient, or `None` where there is nothing to divide by."""
    return part / whole if whole > 0 else None
