"""Forecast skill and detection quality of a bundle, through the daemon's own detector in one causal pass."""

import csv
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edge_agent.contract.bundle import Manifest
from edge_agent.contract.errors import HistoryError
from edge_agent.contract.types import AlarmEvent, Bool, Float32, Float64, Int64, Outcomes, Samples
from edge_agent.detector import Detector
from edge_agent.history import align_columns
from trainer.calibrate import OnRows, chunks_of
from trainer.cleaning import Cleaned, Series
from trainer.detection_metrics import LABEL_FREE_KEYS, LABEL_KEYS, detection_metrics, forecast_skill


@dataclass(frozen=True)
class Evaluation:
    """What a bundle makes of a history.

    Attributes:
        assets: ids.
        asset: (n,) number of the asset of each sample.
        time: (n,) seconds since the epoch.
        values, forecast: (n, F) engineering units.
        score, statistic: (n,) NaN while warming up.
        alarm: (n,) whether the asset is in alarm.
        labels: (n,) or None.
        events: alarm events in order.
        interval: seconds.
    """

    assets: tuple[str, ...]
    asset: Int64
    time: Float64
    values: Float32
    forecast: Float32
    score: Float64
    statistic: Float64
    alarm: Bool
    labels: np.ndarray[tuple[int, ...], np.dtype[np.int8]] | None
    events: tuple[AlarmEvent, ...]
    interval: float

    def figures(self, manifest: Manifest) -> dict[str, Any]:
        """Return the figures under their keys; what is not defined is None."""
        previous = np.vstack([np.full((1, self.values.shape[1]), np.nan, np.float32), self.values[:-1]])
        previous[np.flatnonzero(np.diff(self.asset, prepend=self.asset[:1]))] = np.nan
        known = np.isfinite(self.values) & np.isfinite(previous) & np.isfinite(self.forecast)
        chosen = manifest.layout.forecast
        skill = forecast_skill(
            self.values[:, chosen], self.forecast[:, chosen], previous[:, chosen], known[:, chosen],
            manifest.scaling.scale[chosen], [manifest.sensor_names[place] for place in chosen],
        )  # fmt: skip
        figures = detection_metrics(
            self.time, self.score, self.alarm, self.labels, self.interval, asset=self.asset
        )
        every = dict.fromkeys((*LABEL_FREE_KEYS, *LABEL_KEYS)) | figures
        return {**skill, **every, "samples": len(self.time), "scored": int(np.isfinite(self.score).sum())}


def evaluate(detector: Detector, cleaned: Cleaned, source: str, on_rows: OnRows | None = None) -> Evaluation:
    """Score a cleaned history.

    Args:
        detector: fresh, from `load_detector`.
        cleaned: on the bundle's sampling interval.
        source: of the history, for messages.
        on_rows: told how many rows were done.

    Raises:
        HistoryError: the history is of another sampling interval or has none of the bundle's sensors.
    """
    manifest = detector.bundle.manifest
    if not np.isclose(cleaned.interval, manifest.sampling_interval_seconds):
        raise HistoryError(
            f"{source}: sampled every {cleaned.interval:g} s, the bundle needs "
            f"{manifest.sampling_interval_seconds:g} s"
        )
    samples = samples_of(cleaned, manifest, source)
    parts: list[Outcomes] = []
    for part in chunks_of(samples):
        parts.append(detector.process(part))
        if on_rows is not None:
            on_rows(len(part))
    return Evaluation(
        tuple(series.asset for series in cleaned.series),
        samples.asset,
        np.asarray(cleaned.phase + samples.tick * cleaned.interval, np.float64),
        samples.values,
        np.concatenate([part.forecast for part in parts]),
        np.concatenate([part.score for part in parts]),
        np.concatenate([part.statistic for part in parts]),
        np.concatenate([part.alarm for part in parts]),
        _labels(cleaned.series),
        tuple(event for part in parts for event in part.events),
        cleaned.interval,
    )


def write_scores(evaluation: Evaluation, path: Path) -> None:
    """Write one row per sample: time (seconds since the epoch), asset, score, alarm (0/1)."""
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("time", "asset", "score", "alarm"))
        for time, asset, score, alarm in zip(
            evaluation.time, evaluation.asset, evaluation.score, evaluation.alarm, strict=True
        ):
            shown = f"{score:.6g}" if np.isfinite(score) else ""
            writer.writerow((f"{time:.3f}", evaluation.assets[asset], shown, int(alarm)))


def samples_of(cleaned: Cleaned, manifest: Manifest, source: str) -> Samples:
    """Return the samples of all assets, asset by asset, with the bundle's sensors in the bundle's order.

    Raises:
        HistoryError: the history has none of the bundle's sensors.
    """
    parts = [
        Samples(
            np.full(len(series.ticks), number),
            series.ticks,
            align_columns(source, cleaned.sensors, series.values, manifest.sensor_names),
        )
        for number, series in enumerate(cleaned.series)
    ]
    return Samples.concatenate(parts, len(manifest.sensors))


def samples_of_asset(cleaned: Cleaned, manifest: Manifest, source: str, number: int) -> Samples:
    """Return the samples of one asset, numbered 0.

    Raises:
        HistoryError: the history has none of the bundle's sensors.
    """
    return samples_of(replace(cleaned, series=(cleaned.series[number],)), manifest, source)


def _labels(series: tuple[Series, ...]) -> np.ndarray[tuple[int, ...], np.dtype[np.int8]] | None:
    known = [one.labels for one in series if one.labels is not None]
    return np.concatenate(known) if len(known) == len(series) else None
