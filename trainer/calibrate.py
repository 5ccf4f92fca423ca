"""Calibration: the daemon's own detector runs over the history, and what it measures becomes scales and a threshold.

The scales of residuals and levels come from the blocks that the forecaster was fitted on; the normalisers and the
threshold come from a later block that nothing was fitted on.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from edge_agent.contract.bundle import Bundle
from edge_agent.contract.errors import HistoryError
from edge_agent.contract.scoring import SPANS, ScoringModel, fit_scoring
from edge_agent.contract.threshold import Threshold, calibrate_threshold
from edge_agent.contract.types import Bool, Float32, Float64, Samples
from edge_agent.detector import Detector, open_detector

CHUNK = 4096
LEAST_ROWS = 30
"""Fewer scored rows than this cannot even show an ordinary day."""
SPAN_SHARE = 8
"""No span is longer than this part of the calibration block: it would have seen too few independent values."""

OnRows = Callable[[int], None]


@dataclass(frozen=True)
class CalibrationHistory:
    """Samples of all assets with the block that each belongs to.

    Attributes:
        samples: in order, asset by asset.
        held_out: (n,) True in the calibration block.
    """

    samples: Samples
    held_out: Bool


@dataclass(frozen=True)
class Calibrated:
    """What calibration found, and the forecasts behind it.

    Attributes:
        scoring, threshold: for the bundle.
        forecast: (n, F) engineering units, NaN while warming up.
        scored_rows: rows of the calibration block that had a score.
    """

    scoring: ScoringModel
    threshold: Threshold
    forecast: Float32
    scored_rows: int


def untouched_scoring(width: int) -> ScoringModel:
    """Return a scoring model that has learnt nothing, with which the forecast chain can run."""
    zeros, ones, eye = np.zeros(width), np.ones(width), np.eye(width)
    return ScoringModel(
        (1,), zeros, ones, eye, zeros, ones, eye, np.zeros((1, 2 * width)), zeros - 1e30, zeros + 1e30,
        np.ones(width, np.bool_), np.ones(3),
    )  # fmt: skip


def calibrate(
    bundle: Bundle, history: CalibrationHistory, alarms_per_week: float, on_rows: OnRows | None = None
) -> Calibrated:
    """Learn scales, normalisers and the threshold with the detector of a bundle whose graphs stand in its directory.

    Args:
        bundle: with any scoring model; its mode of inference is the one that is calibrated.
        history: normal samples.
        alarms_per_week: the alarm budget of one asset.
        on_rows: told how many rows were done.

    Raises:
        HistoryError: the calibration block is too short.
    """
    samples, held_out = history.samples, history.held_out
    scaling = bundle.manifest.scaling
    spans = tuple(span for span in SPANS if span * SPAN_SHARE <= held_out.sum()) or (1,)
    forecast, _ = measure(open_detector(bundle), samples, on_rows)
    level = np.asarray(scaling.apply(samples.values), np.float64)
    residual = level - scaling.apply(forecast)
    learnt = ~held_out & np.isfinite(forecast).all(axis=1)
    if learnt.sum() < LEAST_ROWS or held_out.sum() < LEAST_ROWS:
        raise HistoryError(
            f"history too short: {int(learnt.sum())} rows to learn residuals from and {int(held_out.sum())} "
            f"to calibrate on, at least {LEAST_ROWS} of each are needed"
        )
    low, high = np.nanmin(level, axis=0), np.nanmax(level, axis=0)
    scoring = fit_scoring(residual[learnt], level[learnt], ~scaling.constant, low, high, spans)
    detector = open_detector(replace(bundle, scoring=scoring))
    _, statistics = measure(detector, samples, on_rows)
    used = statistics[held_out & np.isfinite(statistics).all(axis=1)]
    scoring = scoring.normalised(np.maximum(np.quantile(used, 0.99, axis=0), 1e-6))
    fused = open_detector(replace(bundle, scoring=scoring)).scorer.fuse(used)
    threshold = calibrate_threshold(
        fused, bundle.manifest.sampling_interval_seconds, alarms_per_week, separation=max(spans)
    )
    return Calibrated(scoring, threshold, forecast, len(used))


def measure(detector: Detector, samples: Samples, on_rows: OnRows | None = None) -> tuple[Float32, Float64]:
    """Return the detector's forecasts and statistics, fed in chunks so that memory stays that of the result."""
    forecasts, statistics = [], []
    for part in chunks_of(samples):
        forecast, measured = detector.measure(part)
        forecasts.append(forecast)
        statistics.append(measured)
        if on_rows is not None:
            on_rows(len(part))
    return np.concatenate(forecasts), np.concatenate(statistics)


def chunks_of(samples: Samples) -> Iterator[Samples]:
    """Yield samples in chunks, in order."""
    for at in range(0, len(samples), CHUNK):
        part = slice(at, at + CHUNK)
        yield Samples(samples.asset[part], samples.tick[part], samples.values[part])
