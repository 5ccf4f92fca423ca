"""New thresholds for a bundle from new normal history, by the calibration of `fit`, without training.

What is learnt anew follows what the history can carry (R8: nothing is scaled on rows that later judge it):

* normalisers, tail and threshold always, from rows that nothing was fitted on;
* the scales of residuals and levels, their correlations and the centres of the state only where the first third of the
  history holds at least a quarter of the rows that they came from before; the other two thirds then give the
  threshold. A machine that was overhauled stands elsewhere, and with its old scales the levels would only be news for
  ever, divided by a normaliser that blinds them. But scales of an hour would make every other hour of the day news:
  a shorter history keeps the bundle's, and all of it gives the threshold.

Forecaster, scaling of its inputs and the habits of the sensors stay as they are. What was normal once stays inside the
range guard.
"""

import importlib.metadata
import platform
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edge_agent.contract.bundle import GOLDEN, SCORING, Bundle, write_bundle
from edge_agent.contract.errors import HistoryError
from edge_agent.contract.scoring_model import ScoringModel
from edge_agent.contract.threshold import Threshold, calibrate_threshold
from edge_agent.contract.types import Bool, Float64, Samples
from edge_agent.detector import load_detector, open_detector
from edge_agent.version import VERSION
from trainer.alarm_runs import AlarmRun, FusedSeries, run_alarms
from trainer.calibrate import (
    SPAN_SHARE,
    Calibrated,
    CalibrationHistory,
    against_usual,
    calibrate,
    calibrate_with_scales,
    chunks_of,
    measure,
    usual_rows,
)
from trainer.cleaning import Cleaned
from trainer.detection_metrics import forecast_skill
from trainer.new_normal import NewNormal, new_normal
from trainer.progress import Progress
from trainer.release import golden_arrays, golden_values, history_facts, next_version, put_in_place

BUDGETS = (0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0)
"""Of `--what-if`, alarms per week."""
SCALE_PART = 1 / 3
"""Scales settle sooner than tails: the threshold gets the larger part."""
SCALE_ROWS = 50_000
"""As many rows as `fit` takes scales from, at most."""
ENOUGH = 0.25
"""Of the rows that the scales came from before."""
LEAST_SCALE_ROWS = 200
LEAST_ROWS = 100
"""Rows that calibrate; with fewer, a 0.99 quantile is the maximum."""
_COPIED_NOT = (SCORING, GOLDEN, "signature", "report.html")


@dataclass(frozen=True)
class Wishes:
    """What `trainer recalibrate` is told.

    Attributes:
        alarms_per_week: the alarm budget; None keeps the bundle's.
        scales: `auto`, `keep` or `renew`.
        other_machine: see `new_normal`.
    """

    alarms_per_week: float | None = None
    scales: str = "auto"
    other_machine: bool = False


@dataclass(frozen=True)
class Side:
    """A scoring model with its threshold, and what it makes of the rows that calibrated.

    Attributes:
        threshold: of it.
        series: its fused statistic over these rows.
    """

    threshold: Threshold
    series: FusedSeries


@dataclass(frozen=True)
class Recalibration:
    """What was found.

    Attributes:
        source: the bundle as it was.
        bundle: the new one, in memory; its graphs stand with the source.
        new_normal: the rows.
        renewed: whether the scales were learnt anew.
        history: the rows with those that calibrated.
        found: of the calibration.
        old, new: both bundles over the rows that calibrated.
    """

    source: Bundle
    bundle: Bundle
    new_normal: NewNormal
    renewed: bool
    history: CalibrationHistory
    found: Calibrated
    old: Side
    new: Side

    def runs(self, thresholds: Sequence[Threshold], new: bool, progress: Progress) -> list[AlarmRun]:
        """Run the alarm engine over the rows that calibrated, at each threshold of the old or the new bundle."""
        side = self.new if new else self.old
        manifest = self.source.manifest
        relative = usual_rows(manifest) > 0
        return run_alarms(side.series, thresholds, manifest.alarm_rules, progress.advance, relative)

    def anew(self, alarms_per_week: float) -> Threshold:
        """Return the threshold that recalibrating for a budget would give."""
        series = self.new.series
        known = series.scored().statistic
        rules = self.bundle.manifest.alarm_rules
        return calibrate_threshold(
            known,
            series.interval,
            alarms_per_week,
            max(self.bundle.scoring.spans),
            usual_rows(self.bundle.manifest),
            (rules.open_count, rules.open_window),
            rules.clear_samples,
        )

    def as_it_is(self, alarms_per_week: float) -> Threshold | None:
        """Return the threshold that a budget gives in the bundle as it was.

        None where that is a margin, or where the bundle's own history did not support the budget.
        """
        threshold = self.old.threshold
        if threshold.tail is None or not threshold.supports(alarms_per_week):
            return None
        value = threshold.tail.value_at(alarms_per_week)
        return replace(threshold, value=value, alarms_per_week=alarms_per_week)


def recalibrate(
    directory: Path, cleaned: Cleaned, source: str, wishes: Wishes, progress: Progress | None = None
) -> Recalibration:
    """Find new thresholds; nothing is written.

    Args:
        directory: the bundle.
        cleaned: new normal history, on the bundle's grid.
        source: of the history, for messages.
        wishes: what was asked for.
        progress: told how it goes.

    Raises:
        BundleError: the bundle is damaged.
        HistoryError: the history cannot calibrate this bundle.
    """
    progress = progress or Progress()
    bundle = load_detector(directory).bundle
    rows = new_normal(cleaned, bundle.manifest, source, wishes.other_machine)
    renewed = _renews(bundle, rows.samples, wishes.scales, source)
    history = CalibrationHistory(rows.samples, _calibrating(rows.samples, renewed))
    budget = wishes.alarms_per_week or bundle.manifest.threshold.alarms_per_week
    progress.stage("calibrating", (2 if renewed else 1) * len(rows.samples))
    try:
        if renewed:
            found = calibrate(bundle, history, budget, progress.advance)
        else:
            found = calibrate_with_scales(bundle, rows.samples, budget, progress.advance)
    except HistoryError as error:
        raise HistoryError(f"{source}: {error}") from error
    scoring = _widened(found.scoring, bundle.scoring)
    manifest = replace(
        bundle.manifest,
        version=next_version(bundle.manifest.version),
        threshold=found.threshold,
        drift=found.drift,
    )
    old = _old_side(bundle, history, progress)
    new = FusedSeries(old.series.asset, old.series.tick, found.statistic[history.held_out],
                      np.zeros(int(history.held_out.sum())), cleaned.interval)  # fmt: skip
    return Recalibration(
        bundle, replace(bundle, manifest=manifest, scoring=scoring), rows, renewed, history, found,
        old, Side(found.threshold, new),
    )  # fmt: skip


def write_recalibrated(found: Recalibration, cleaned: Cleaned, out: Path) -> Bundle:
    """Write the new bundle whole: graphs copied, golden samples made anew, what it comes from recorded.

    Args:
        found: from `recalibrate`.
        cleaned: the history that it was found on.
        out: directory of the bundle; replaced only when the new one is complete and proven.

    Raises:
        HistoryError: the rows that calibrated are too few to make golden samples of.
    """
    manifest = found.bundle.manifest
    values = golden_values(
        found.history.samples, found.found.statistic, found.history.held_out, manifest.warmup_ticks
    )
    if len(values) <= manifest.warmup_ticks + 1:
        raise HistoryError(
            f"history too short: {len(values)} rows of the first asset, no score to prove the bundle by"
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        for name in found.source.manifest.files:
            if name not in _COPIED_NOT:
                shutil.copyfile(found.source.directory / name, draft / name)
        complete = replace(
            found.bundle,
            directory=draft,
            manifest=replace(manifest, trained=_trained(found, cleaned), metrics=_metrics(found)),
        )
        write_bundle(complete, golden_arrays(complete, values))
        written = replace(load_detector(draft).bundle, directory=out)
        put_in_place(draft, out)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return written


def _renews(bundle: Bundle, samples: Samples, scales: str, source: str) -> bool:
    """Return whether the scales are learnt anew.

    Raises:
        HistoryError: the history is too short for what was asked.
    """
    shortest = int(np.unique(samples.asset, return_counts=True)[1].min())
    trained = bundle.manifest.trained
    seen = int(trained.get("samples", 0)) - int(trained.get("calibration_samples", 0))
    before = min(max(seen, 0), SCALE_ROWS)
    needed = max(LEAST_SCALE_ROWS, int(ENOUGH * before))
    carries = int(SCALE_PART * len(samples)) >= needed and shortest >= LEAST_SCALE_ROWS
    least = max(LEAST_ROWS, SPAN_SHARE * max(bundle.scoring.spans))
    if len(samples) < least:
        raise HistoryError(
            f"{source}: history too short: {len(samples)} samples to calibrate on, at least {least} are needed"
        )
    if scales == "renew" and int(SCALE_PART * len(samples)) < LEAST_SCALE_ROWS:
        raise HistoryError(
            f"{source}: history too short: new scales need at least {int(LEAST_SCALE_ROWS / SCALE_PART) + 1} samples, "
            f"it has {len(samples)}"
        )
    return carries if scales == "auto" else scales == "renew"


def _calibrating(samples: Samples, renewed: bool) -> Bool:
    """Return (n,) which rows give the threshold: of each asset all, or all after the part that gives its scales."""
    held = np.ones(len(samples), np.bool_)
    for asset in np.unique(samples.asset) if renewed else []:
        rows = np.flatnonzero(samples.asset == asset)
        held[rows[: min(int(SCALE_PART * len(rows)), SCALE_ROWS)]] = False
    return held


def _widened(new: ScoringModel, old: ScoringModel) -> ScoringModel:
    """Return the new model with a range guard that holds all that was ever seen in normal operation."""
    return replace(new, low=np.minimum(new.low, old.low), high=np.maximum(new.high, old.high))


def _old_side(bundle: Bundle, history: CalibrationHistory, progress: Progress) -> Side:
    """Run the bundle as it was over the history.

    The range guard shows in the detector's statistic where it is larger than the fused one; with the threshold high,
    wherever it could matter at any lower one.
    """
    manifest, held = bundle.manifest, history.held_out
    progress.stage("the bundle as it was", 2 * len(history.samples))
    _, statistics = measure(open_detector(bundle), history.samples, progress.advance)
    fused, _ = against_usual(bundle.scoring, statistics, history.samples.asset, usual_rows(manifest))
    high = replace(manifest.threshold, value=1e6 * manifest.threshold.value)
    detector = open_detector(replace(bundle, manifest=replace(manifest, threshold=high)))
    judged: list[Float64] = []
    for part in chunks_of(history.samples):
        judged.append(detector.process(part).statistic)
        progress.advance(len(part))
    guard = np.where(np.concatenate(judged) > 2.0 * fused, np.concatenate(judged) / high.value, 0.0)
    samples = history.samples
    series = FusedSeries(
        samples.asset[held], samples.tick[held], fused[held], np.nan_to_num(guard[held]),
        manifest.sampling_interval_seconds,
    )  # fmt: skip
    return Side(manifest.threshold, series)


def _trained(found: Recalibration, cleaned: Cleaned) -> dict[str, Any]:
    """Return what the bundle was trained on, and what it was recalibrated from and on."""
    parent = found.source
    kept = replace(cleaned, series=found.new_normal.series)
    return parent.manifest.trained | {
        "recalibrated": {
            "parent_sha256": parent.sha256,
            "parent_version": parent.manifest.version,
            **history_facts(kept),
            "calibration_samples": found.found.scored_rows,
            "scales": "renewed" if found.renewed else "kept",
            "left_out": found.new_normal.left_out,
            "versions": {
                "forewarn": VERSION,
                "numpy": importlib.metadata.version("numpy"),
                "onnxruntime": importlib.metadata.version("onnxruntime"),
                "python": platform.python_version(),
            },
        }
    }


def _metrics(found: Recalibration) -> dict[str, Any]:
    """Return the forecast's figures on the rows that calibrated, in scaled units."""
    samples, manifest = found.history.samples, found.source.manifest
    chosen = manifest.layout.forecast
    values, forecast = samples.values[:, chosen], found.found.forecast[:, chosen]
    previous = np.vstack([np.full((1, values.shape[1]), np.nan, np.float32), values[:-1]])
    previous[np.flatnonzero(np.diff(samples.asset, prepend=samples.asset[:1]))] = np.nan
    known = found.history.held_out & np.isfinite(forecast).all(axis=1)
    mask = np.isfinite(values[known]) & np.isfinite(previous[known])
    skill = forecast_skill(
        values[known], forecast[known], previous[known], mask, manifest.scaling.scale[chosen],
        [manifest.sensor_names[place] for place in chosen],
    )  # fmt: skip
    return {"rmse": skill["rmse"], "mae": skill["mae"], "persistence_rmse": skill["persistence_rmse"]}
