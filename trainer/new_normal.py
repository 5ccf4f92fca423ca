"""New normal history of a bundle's machine, made fit to calibrate on: what may count, and what is refused.

Nothing is calibrated on rows that the forecaster was fitted on, nor on rows that are labelled as not normal. A sensor
that is missing, another sampling interval or another unit would each give a threshold of something else.
"""

from dataclasses import dataclass

import numpy as np

from edge_agent.contract.bundle import Manifest, SensorSpec
from edge_agent.contract.errors import HistoryError
from edge_agent.contract.types import Bool, Float32, Int64, Samples
from edge_agent.contract.unit_jump import conversions_of
from edge_agent.history import align_columns
from trainer.cleaning import Cleaned, Series

CLOSE = 0.05
"""How far beyond the range seen a reading converted back may lie, as a share of that range."""


@dataclass(frozen=True)
class NewNormal:
    """Rows that may calibrate.

    Attributes:
        samples: in order, asset by asset, in the bundle's order of sensors.
        series: the same rows, an entry for each asset.
        left_out: how many rows may not, by reason.
    """

    samples: Samples
    series: tuple[Series, ...]
    left_out: dict[str, int]


def new_normal(cleaned: Cleaned, manifest: Manifest, source: str, other_machine: bool = False) -> NewNormal:
    """Choose the rows of a history that may calibrate.

    Args:
        cleaned: the history, on the bundle's grid.
        manifest: of the bundle.
        source: of the history, for messages.
        other_machine: the forecaster has not seen this machine, so rows of the time of its training count too.

    Raises:
        HistoryError: the history is not one of this bundle's machine, or nothing of it may calibrate.
    """
    _check_sensors(cleaned, manifest, source)
    _check_interval(cleaned, source)
    kept, left_out = [], {"labelled as not normal": 0, "seen in training": 0}
    trained = manifest.trained
    first, last = (trained.get(key) for key in ("first_time", "last_time"))
    for series in cleaned.series:
        normal = np.ones(len(series.ticks), np.bool_) if series.labels is None else series.labels == 0
        unseen = np.ones(len(series.ticks), np.bool_)
        if first is not None and last is not None and not other_machine:
            time = manifest.axis.time_of(series.ticks)
            unseen = (time < first) | (time > last)
        left_out["labelled as not normal"] += int((~normal).sum())
        left_out["seen in training"] += int((normal & ~unseen).sum())
        rows = np.flatnonzero(normal & unseen)
        if len(rows):
            values = align_columns(source, cleaned.sensors, series.values[rows], manifest.sensor_names)
            kept.append(Series(series.asset, series.ticks[rows], values, None))
    if not kept:
        raise HistoryError(
            f"{source}: no row may calibrate: {left_out['seen in training']} lie in the time that the bundle was "
            f"fitted on, {left_out['labelled as not normal']} are labelled as not normal"
        )
    _check_units(kept, manifest, source)
    parts = [Samples(np.full(len(one.ticks), at), one.ticks, one.values) for at, one in enumerate(kept)]
    samples = Samples.concatenate(parts, len(manifest.sensors))
    return NewNormal(samples, tuple(kept), {reason: count for reason, count in left_out.items() if count})


def _check_sensors(cleaned: Cleaned, manifest: Manifest, source: str) -> None:
    missing = [name for name in manifest.sensor_names if name not in cleaned.sensors]
    if missing:
        raise HistoryError(
            f"{source}: sensor {missing[0]} of the bundle is missing; a threshold without it would not hold with it"
        )


def _check_interval(cleaned: Cleaned, source: str) -> None:
    steps: Int64 = np.concatenate([np.diff(series.ticks) for series in cleaned.series])
    usual = float(np.median(steps)) if len(steps) else 1.0
    if usual > 1.0:
        raise HistoryError(
            f"{source}: sampled every {usual * cleaned.interval:g} s, the bundle needs {cleaned.interval:g} s"
        )


def _check_units(series: list[Series], manifest: Manifest, source: str) -> None:
    """Refuse a sensor that lies far outside of its range and, converted from another unit, inside of it."""
    for place, sensor in enumerate(manifest.sensors):
        cells = np.concatenate([one.values[:, place] for one in series])
        cells = cells[np.isfinite(cells)]
        if len(cells) and not sensor.constant:
            _check_unit(sensor, cells, source)


def _check_unit(sensor: SensorSpec, cells: Float32, source: str) -> None:
    low, high = sensor.minimum, sensor.maximum
    span = high - low
    usual = np.quantile(cells, [0.1, 0.5, 0.9])
    if low - span <= usual[1] <= high + span:
        return
    for conversion in conversions_of(sensor.unit, sensor.name):
        back = (usual - conversion.offset) / conversion.factor
        inside: Bool = (back >= low - CLOSE * span) & (back <= high + CLOSE * span)
        if inside.all():
            raise HistoryError(
                f"{source}: sensor {sensor.name} reads {usual[1]:.4g} where the bundle knows {low:.4g} to {high:.4g} "
                f"{sensor.unit}: it seems to be in another unit ({conversion.name})"
            )
