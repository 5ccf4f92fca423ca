"""Calibration: the daemon's own detector runs over the history, and what it measures becomes scales and a threshold.

With a long history the scales of residuals and levels come from the blocks that the forecaster was fitted on, the
normalisers and the threshold from a later block that nothing was fitted on. A short one has no block to spare: each
of its folds is measured with a forecaster and with scales of the other folds (Stone 1974, Cross-Validatory Choice and
Assessment of Statistical Predictions), and all of it calibrates.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise

import numpy as np

from edge_agent.contract.bundle import Bundle, Manifest
from edge_agent.contract.contradiction import ContradictionModel
from edge_agent.contract.drift import DriftModel, fit_drift
from edge_agent.contract.errors import HistoryError
from edge_agent.contract.fusion import Fusion
from edge_agent.contract.scoring import Scorer
from edge_agent.contract.scoring_model import NOTHING_USUAL, SPANS, ScoringModel, fit_scoring
from edge_agent.contract.threshold import Threshold, calibrate_threshold
from edge_agent.contract.trailing import BLOCKS, normalisers_of
from edge_agent.contract.types import Bool, Float32, Float64, Int64, Samples
from edge_agent.contract.variance import VarianceModel
from edge_agent.detector import Detector, open_detector
from trainer.starts import Turns, turns_of
from trainer.trimming import ordinary_rows

CHUNK = 4096
STREAM_ROWS = 50_000
"""Up to here a history is run row after row, as the daemon does; a longer one in lanes."""
LANE_ROWS = 8192
LANE_WARM_UP = 3072
"""Ten times the memory of the slowest state, the bias, which looks back ten times the longest span."""
LEAST_ROWS = 30
"""Fewer scored rows than this cannot even show an ordinary day."""
SPAN_SHARE = 6
"""No span is longer than this part of the calibration block: it would have seen too few independent values."""

EVERYWHERE = 1e30
"""Scaled units; beyond any reading, and finite as a bundle's arrays have to be."""
TRIMS = 2
"""A large fault hides a small one: after the first trimming the second stands out."""

CONTRADICTION_MARGIN = 1.25
"""Over the contradiction that a calibration block shows once: a fault of one sensor stands so far out that the limit
hides hardly any, and the alarm budget is left to the fused statistic (docs/decisions/0025)."""
CONTRADICTION_ROWS = 500
"""The block of the shortest history that has one of its own; fewer rows do not know the largest of many
(docs/decisions/0035)."""

OnRows = Callable[[int], None]


@dataclass(frozen=True)
class CalibrationHistory:
    """Samples of all assets with the block that each belongs to.

    Attributes:
        samples: in order, asset by asset.
        held_out: (n,) True in the calibration block.
        marked: (n,) True where an operator said that it is normal, which no trimming takes back; None nowhere.
    """

    samples: Samples
    held_out: Bool
    marked: Bool | None = None


@dataclass(frozen=True)
class Calibrated:
    """What calibration found, and the forecasts behind it.

    Attributes:
        scoring, threshold: for the bundle.
        forecast: (n, F) engineering units, NaN while warming up.
        statistic: (n,) fused, NaN while warming up and outside the calibration block.
        scored_rows: rows of the calibration block that had a score.
        drift: batches of it; None where they are too few.
        trimmed_rows: rows of the history that were left out, as they stand apart (`trainer.trimming`).
    """

    scoring: ScoringModel
    threshold: Threshold
    forecast: Float32
    statistic: Float64
    scored_rows: int
    drift: DriftModel | None = None
    trimmed_rows: int = 0


def untouched_scoring(width: int, fusion: Fusion | None = None) -> ScoringModel:
    """Return a scoring model that has learnt nothing, with which the forecast chain can run.

    Args:
        width: sensors.
        fusion: of the scoring model that is going to be learnt.
    """
    zeros, ones, eye = np.zeros(width), np.ones(width), np.eye(width)
    return ScoringModel(
        (1,), zeros, ones, eye, zeros, ones, eye, np.zeros((1, 2 * width)), zeros - EVERYWHERE, zeros + EVERYWHERE,
        np.ones(width, np.bool_), VarianceModel.unknown(width), np.ones(7), fusion=fusion or Fusion(),
    )  # fmt: skip


def calibrate(
    bundle: Bundle,
    history: CalibrationHistory,
    alarms_per_week: float,
    on_rows: OnRows | None = None,
    trimming: bool = True,
) -> Calibrated:
    """Learn scales, normalisers and the threshold with the detector of a bundle whose graphs stand in its directory.

    Args:
        bundle: with any scoring model; its mode of inference is the one that is calibrated.
        history: normal samples.
        alarms_per_week: the alarm budget of one asset.
        on_rows: told how many rows were done.
        trimming: leave out what stands apart, and learn once more without it.

    Raises:
        HistoryError: the calibration block is too short.
    """
    samples, held_out = history.samples, history.held_out
    # The statistics of an untouched model are of no use, and as large as the history.
    forecast = measure(open_detector(bundle), samples, on_rows)[0]
    learning = _Learning(bundle, samples, forecast, int(held_out.sum()))

    def measured(keep: Bool, on_rows: OnRows | None) -> tuple[ScoringModel, Float64]:
        scoring = learning.scoring(~held_out & keep, keep)
        return scoring, measure(open_detector(replace(bundle, scoring=scoring)), samples, on_rows)[1]

    scoring, statistics, keep = _trimmed(measured, history, learning.turns, trimming, on_rows)
    statistics[~held_out | ~keep] = np.nan
    return _judged(bundle, scoring, samples, forecast, statistics, alarms_per_week, int((~keep).sum()))


def calibrate_with_scales(
    bundle: Bundle, samples: Samples, alarms_per_week: float, on_rows: OnRows | None = None
) -> Calibrated:
    """Learn normalisers and the threshold alone; the scales stay those of the bundle's scoring model.

    Args:
        bundle: released before; its mode of inference is the one that is calibrated.
        samples: normal, in order, asset by asset, and not seen by what the bundle was fitted on.
        alarms_per_week: the alarm budget of one asset.
        on_rows: told how many rows were done.

    Raises:
        HistoryError: the history is too short.
    """
    forecast, statistics = measure(open_detector(bundle), samples, on_rows)
    return _judged(bundle, bundle.scoring, samples, forecast, statistics, alarms_per_week)


@dataclass(frozen=True)
class Fold:
    """A part of a short history, and a forecaster that has not seen it.

    Attributes:
        bundle: with any scoring model; its graphs stand in its directory.
        rows: (n,) True in the fold.
    """

    bundle: Bundle
    rows: Bool


def calibrate_in_folds(
    bundle: Bundle,
    folds: Sequence[Fold],
    history: CalibrationHistory,
    alarms_per_week: float,
    on_rows: OnRows | None = None,
    trimming: bool = True,
) -> Calibrated:
    """Learn scales, normalisers and the threshold from rows that neither forecaster nor scales had seen.

    Args:
        bundle: the one that is released, whose forecaster was fitted on all rows.
        folds: of all rows, each row in one.
        history: normal samples, all of which calibrate.
        alarms_per_week: the alarm budget of one asset.
        on_rows: told how many rows were done.
        trimming: leave out what stands apart, and learn once more without it.

    Raises:
        HistoryError: the history is too short.
    """
    samples = history.samples
    forecast = np.full(samples.values.shape, np.nan, np.float32)
    for fold in folds:
        found, _ = measure(open_detector(fold.bundle), samples, on_rows)
        forecast[fold.rows] = found[fold.rows]
    learning = _Learning(bundle, samples, forecast, len(samples))

    def measured(keep: Bool, on_rows: OnRows | None) -> tuple[ScoringModel, Float64]:
        scoring = learning.scoring(keep, keep)
        statistics = np.full((len(samples), len(scoring.normalisers)), np.nan)
        for fold in folds:
            others = replace(fold.bundle, scoring=learning.scoring(~fold.rows & keep, keep))
            _, found = measure(open_detector(others), samples, on_rows)
            statistics[fold.rows] = found[fold.rows]
        return scoring, statistics

    scoring, statistics, keep = _trimmed(measured, history, learning.turns, trimming, on_rows)
    statistics[~keep] = np.nan
    return _judged(bundle, scoring, samples, forecast, statistics, alarms_per_week, int((~keep).sum()))


def _trimmed(
    measured: Callable[[Bool, OnRows | None], tuple[ScoringModel, Float64]],
    history: CalibrationHistory,
    turns: Turns | None,
    trimming: bool,
    on_rows: OnRows | None,
) -> tuple[ScoringModel, Float64, Bool]:
    """Measure all rows, leave out those that stand apart, and measure again with what the others teach.

    Args:
        measured: gives the scoring model learnt from rows (n,), and the statistics (n, 2S + 5) of all.
        history: of n rows.
        turns: see `ordinary_rows`.
        trimming: False keeps all.
        on_rows: told how many rows were done, the first time; whether there is a second is not known before.

    Returns:
        Scoring model, statistics, and the rows (n,) that were kept.
    """
    keep = np.ones(len(history.samples), np.bool_)
    marked = ~keep if history.marked is None else history.marked
    for _ in range(TRIMS if trimming else 0):
        scoring, statistics = measured(keep, on_rows)
        on_rows = None
        statistics[~keep] = np.nan
        found = ordinary_rows(statistics[:, :-1], scoring.fusion, scoring.sources[:-1], turns)
        ordinary = keep & (found | marked)
        if (ordinary == keep).all():
            return scoring, statistics, keep
        keep = ordinary
    return (*measured(keep, on_rows), keep)


class _Learning:
    """Scoring models from residuals and levels of chosen rows; the spans are those of all."""

    def __init__(self, bundle: Bundle, samples: Samples, forecast: Float32, calibrating: int) -> None:
        scaling = bundle.manifest.scaling
        self._exogenous = bundle.manifest.layout.is_exogenous
        self._judged = ~scaling.constant & ~self._exogenous
        self._fusion = bundle.scoring.fusion
        self._adapts = bundle.manifest.adaptation != "frozen"
        self._known = np.isfinite(forecast).all(axis=1)
        self._run = _runs(samples, bundle.manifest.max_gap_ticks)
        self._level = np.asarray(scaling.apply(gated(open_detector(bundle), samples)), np.float64)
        self._residual = self._level - scaling.apply(forecast)
        self.turns: Turns | None = None
        """Near one is as long as averages look back."""
        if bundle.manifest.off_condition is not None:
            resting = np.asarray(np.isnan(self._level).all(axis=1))
            number = turns_of(resting, samples.asset, max(SPANS))
            self.turns = Turns(number, bundle.manifest.alarm_rules.open_count)
        self._spans = tuple(span for span in SPANS if span * SPAN_SHARE <= calibrating) or (1,)
        if calibrating < LEAST_ROWS:
            raise HistoryError(
                f"history too short: {calibrating} rows to calibrate on, at least {LEAST_ROWS} are needed"
            )

    def scoring(self, rows: Bool, seen: Bool) -> ScoringModel:
        """Learn from the rows (n,) that have a forecast; the range is that of the rows `seen` (n,)."""
        rows = rows & self._known
        if rows.sum() < LEAST_ROWS:
            raise HistoryError(
                f"history too short: {int(rows.sum())} rows to learn residuals from, at least {LEAST_ROWS} are needed"
            )
        low, high = np.nanmin(self._level[seen], axis=0), np.nanmax(self._level[seen], axis=0)
        # A command has no range that it would be strange to leave.
        low[self._exogenous], high[self._exogenous] = -EVERYWHERE, EVERYWHERE
        chosen = np.flatnonzero(rows)
        run = self._run[chosen] + np.cumsum(np.r_[0, np.diff(chosen) != 1])
        return fit_scoring(
            self._residual[chosen],
            self._level[chosen],
            self._judged,
            low,
            high,
            self._spans,
            self._fusion,
            run,
            self._adapts,
        )


def _runs(samples: Samples, max_gap_ticks: int) -> Int64:
    """Return (n,) a number for each stretch of samples of one asset without a gap that starts over."""
    broken = (np.diff(samples.asset) != 0) | (np.diff(samples.tick) - 1 > max_gap_ticks)
    return np.asarray(np.r_[0, np.cumsum(broken)])


def _judged(
    bundle: Bundle,
    scoring: ScoringModel,
    samples: Samples,
    forecast: Float32,
    statistics: Float64,
    alarms_per_week: float,
    trimmed: int = 0,
) -> Calibrated:
    """Turn the statistics (n, 2S + 5) of rows that count, NaN elsewhere, into normalisers and a threshold."""
    usable = np.isfinite(statistics[:, :-1]).all(axis=1)
    if usable.sum() < LEAST_ROWS:
        raise HistoryError(
            f"history too short: {int(usable.sum())} rows have a score, at least {LEAST_ROWS} are needed"
        )
    used = statistics[usable]
    scoring = scoring.normalised(_normalisers(used))
    manifest = bundle.manifest
    length = usual_rows(manifest)
    fused, contradiction, recent = _apart(scoring, used, samples.asset[usable], length)
    count = len(used)
    # Of a long history it is as large as all that follows.
    del used
    limit = partial(
        calibrate_threshold,
        interval=manifest.sampling_interval_seconds,
        alarms_per_week=alarms_per_week,
        separation=max(scoring.spans),
        block_rows=length,
        opening=(manifest.alarm_rules.open_count, manifest.alarm_rules.open_window),
        closing=manifest.alarm_rules.clear_samples,
    )
    threshold = limit(fused)
    scoring = _balanced(replace(scoring, recent=recent), threshold, contradiction, limit)
    statistic, _ = against_usual(scoring, statistics, samples.asset, length)
    if threshold.tail is not None:
        threshold = limit(statistic[usable])
    drift = _drift(bundle, scoring, samples, forecast, np.asarray(usable))
    return Calibrated(scoring, threshold, forecast, statistic, count, drift, trimmed)


def _drift(
    bundle: Bundle, scoring: ScoringModel, samples: Samples, forecast: Float32, rows: Bool
) -> DriftModel | None:
    """Learn what batches of the rows (n,) that calibrate are like."""
    scaling = bundle.manifest.scaling
    level = scaling.apply(gated(open_detector(bundle), samples)[rows])
    residual = level - scaling.apply(forecast[rows])
    interval = bundle.manifest.sampling_interval_seconds
    return fit_drift(scoring, level, residual, samples.asset[rows], samples.tick[rows], interval)


def _normalisers(statistics: Float64) -> Float64:
    """Return (2S + 5,) the 0.99 quantile of each statistic; 1 for a shape that is never judged."""
    found = np.quantile(statistics[:, :-1], 0.99, axis=0)
    shape = statistics[np.isfinite(statistics[:, -1]), -1]
    # A shape is scaled by its own model already, and must not be lifted to a quantile below what is worth an alarm.
    return np.asarray(
        np.maximum(np.r_[found, max(np.quantile(shape, 0.99), 1.0) if len(shape) else 1.0], 1e-6)
    )


def usual_rows(manifest: Manifest) -> int:
    """Return the rows of a block of what is usual of late; 0 where nothing adapts."""
    return 0 if manifest.adaptation == "frozen" else manifest.block_rows


def _balanced(
    scoring: ScoringModel,
    threshold: Threshold,
    contradiction: Float64,
    limit: Callable[[Float64], Threshold],
) -> ScoringModel:
    """Weigh the contradiction so that at the fused statistic's own threshold it stands by a margin beyond the usual.

    What is usual of the largest of so many is what its tail shows once in the block; where there is no tail to go by,
    the most that was seen. No contradiction is judged in a block of a few hundred rows, or where there never was any.

    Args:
        scoring: with its normalisers.
        threshold: of the fused statistic alone.
        contradiction: (n,) of rows in order, over what was usual of it.
        limit: the threshold of a statistic (n,).
    """
    if not scoring.contradiction:
        return scoring
    if len(contradiction) < CONTRADICTION_ROWS or contradiction.max() <= 0.0:
        return replace(scoring, contradiction=ContradictionModel.none())
    alone = limit(contradiction)
    if threshold.tail is None or alone.tail is None:
        once = float(contradiction.max())
    else:
        once = alone.tail.value_at(alone.supported_alarms_per_week)
    return replace(
        scoring,
        contradiction=scoring.contradiction.balanced(threshold.value / (CONTRADICTION_MARGIN * once)),
    )


def _apart(
    scoring: ScoringModel, statistics: Float64, asset: Int64, length: int
) -> tuple[Float64, Float64, Float32]:
    """Return fused statistic and contradiction (n,) over what was usual of them, and the block maxima at the end."""
    aspects, normaliser, recent = _over_usual(scoring, statistics, asset, length)
    return Scorer(scoring).fuse(aspects, normaliser), aspects[:, 3] / normaliser[..., 3], recent


def against_usual(
    scoring: ScoringModel, statistics: Float64, asset: Int64, length: int
) -> tuple[Float64, Float32]:
    """Return the judged statistic over what was usual at each row, as the detector does, as if there was no alarm.

    Args:
        scoring: with its normalisers.
        statistics: (n, 2S + 5) in order, asset by asset; NaN in rows that have none.
        asset: (n,).
        length: of a block, from `usual_rows`.

    Returns:
        The judged statistic (n,), NaN in rows that have none, and the block maxima (R, 4) at the end.
    """
    usable = np.isfinite(statistics[:, :-1]).all(axis=1)
    found = np.full(len(statistics), np.nan)
    aspects, normaliser, recent = _over_usual(scoring, statistics[usable], asset[usable], length)
    found[usable] = Scorer(scoring).judged(aspects, normaliser)
    return found, recent


def _over_usual(
    scoring: ScoringModel, statistics: Float64, asset: Int64, length: int
) -> tuple[Float64, Float64, Float32]:
    """Return aspects (n, 4) of statistics (n, 2S + 5), what was usual of them, and the block maxima at the end."""
    aspects = Scorer(scoring).aspects(statistics, np.zeros(len(statistics)))
    if not length:
        return aspects, NOTHING_USUAL, NOTHING_USUAL[None].astype(np.float32)
    normaliser, recent = np.empty(aspects.shape), []
    assets = np.unique(asset)
    for one in assets:
        rows = asset == one
        normaliser[rows], maxima = normalisers_of(
            np.nan_to_num(aspects[rows], nan=0.0), length, scoring.least
        )
        recent.append(maxima[-max(1, BLOCKS // len(assets)) :])
    return aspects, normaliser, np.concatenate(recent)[-BLOCKS:]


def measure(detector: Detector, samples: Samples, on_rows: OnRows | None = None) -> tuple[Float32, Float64]:
    """Return the detector's forecasts and statistics, fed in chunks so that memory stays that of the result.

    A long history is cut into lanes that run side by side, as assets do, many times faster than one row after the
    other. Each lane begins early enough that nothing of its zero start is left in the rows that count.

    Args:
        detector: fresh; its state is used up.
        samples: in order, asset by asset.
        on_rows: told how many rows were done.

    Returns:
        Forecasts (n, F) in engineering units and statistics (n, 2S + 5), see `Detector.measure`.
    """
    forecast = np.empty(samples.values.shape, np.float32)
    statistics = np.empty((len(samples), len(detector.bundle.scoring.normalisers)))
    for rows, lane, counted in _batches(samples):
        found, measured = detector.measure(Samples(lane, samples.tick[rows], samples.values[rows]))
        forecast[rows[counted]], statistics[rows[counted]] = found[counted], measured[counted]
        if on_rows is not None:
            on_rows(int(counted.sum()))
    return forecast, statistics


def gated(detector: Detector, samples: Samples) -> Float32:
    """Return the values (n, F) that the detector's gate lets through; the detector is fresh, its state is used up."""
    values = np.empty_like(samples.values)
    for rows, lane, counted in _batches(samples):
        passed = detector.gated(Samples(lane, samples.tick[rows], samples.values[rows]))
        values[rows[counted]] = passed.values[counted]
    return values


def _batches(samples: Samples) -> Iterator[tuple[Int64, Int64, Bool]]:
    """Yield rows (m,), the lane of each, and whether it counts or only warms its lane up."""
    if len(samples) <= STREAM_ROWS:
        for at in range(0, len(samples), CHUNK):
            rows = np.arange(at, min(at + CHUNK, len(samples)))
            yield rows, samples.asset[rows], np.ones(len(rows), np.bool_)
        return
    first, start, end = _lanes(samples)
    width = max(1, CHUNK // len(start))
    for offset in range(0, int((end - first).max()), width):
        table = first[:, None] + np.arange(offset, offset + width)
        inside = table < end[:, None]
        lane = np.broadcast_to(np.arange(len(start))[:, None], table.shape)[inside]
        yield table[inside], lane, (table >= start[:, None])[inside]


def _lanes(samples: Samples) -> tuple[Int64, Int64, Int64]:
    """Return of each lane the row it begins with, the first that counts, and the one after its last."""
    bounds = np.r_[0, np.flatnonzero(np.diff(samples.asset)) + 1, len(samples)]
    begin, start, end = [], [], []
    for first, last in pairwise(bounds):
        for at in range(int(first), int(last), LANE_ROWS):
            begin.append(max(int(first), at - LANE_WARM_UP))
            start.append(at)
            end.append(min(at + LANE_ROWS, int(last)))
    return np.array(begin), np.array(start), np.array(end)


def chunks_of(samples: Samples) -> Iterator[Samples]:
    """Yield samples in chunks, in order."""
    for at in range(0, len(samples), CHUNK):
        part = slice(at, at + CHUNK)
        yield Samples(samples.asset[part], samples.tick[part], samples.values[part])
