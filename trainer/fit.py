"""From history to a bundle: clean, split in time order, train, export, prove, calibrate, write.

Blocks in time order: the forecaster is fitted on the first, the second decides when training stops, and the last,
which nothing was fitted on, calibrates the threshold.
"""

import hashlib
import importlib.metadata
import platform
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edge_agent.contract.bundle import Bundle, Manifest, SensorSpec, write_bundle
from edge_agent.contract.errors import HistoryError
from edge_agent.contract.scaling import Scaling, fit_scaling
from edge_agent.contract.threshold import Threshold
from edge_agent.contract.types import Float32, Samples
from edge_agent.detector import golden_samples, load_detector, open_detector
from edge_agent.version import VERSION
from trainer.calibrate import Calibrated, CalibrationHistory, calibrate, untouched_scoring
from trainer.cleaning import Cleaned, Series
from trainer.dataset import Segments, SubSequences, build_segments
from trainer.detection_metrics import forecast_skill
from trainer.evaluate import Evaluation
from trainer.fit_options import FitOptions, check_out
from trainer.highway import choose_highway
from trainer.model import ModelSpec
from trainer.progress import Progress

SHORT_HISTORY = 2000
HELD_ROWS = 200_000
"""The newest rows of an asset's calibration block that are used; more would change the tail little."""
LEARNT_ROWS = 50_000
"""The newest rows before the calibration block that the scales of residuals and levels come from."""


@dataclass(frozen=True)
class FitReport:
    """What fitting found, for the table at the end.

    Attributes:
        bundle: as written.
        skill: rmse, mae, persistence_rmse and the sensors' own, on the calibration block.
        best_epoch, epochs: of training.
        held: the calibration block with its forecasts and scores; alarms are not run on it.
    """

    bundle: Bundle
    skill: dict[str, Any]
    best_epoch: int
    epochs: int
    held: Evaluation


@dataclass(frozen=True)
class _Blocks:
    fit: Segments
    stop: Segments
    held: Segments


def fit(cleaned: Cleaned, out: Path, options: FitOptions, progress: Progress | None = None) -> FitReport:
    """Fit a forecaster and write its bundle.

    Args:
        cleaned: the history.
        out: directory of the bundle; replaced only when the new one is complete and proven.
        options: how.
        progress: told how it goes.

    Raises:
        HistoryError: the history cannot carry a model.
        ExportError: an exported graph does not give what the trained model gives.
        UsageError: `out` is a directory of something else.
    """
    progress = progress or Progress()
    check_out(out)
    samples = min(len(series.ticks) for series in cleaned.series)
    window = options.window_length or max(8, min(60, samples // 10))
    cuts = [_cuts(len(series.ticks), window) for series in cleaned.series]
    scaling = fit_scaling(_fit_rows(cleaned, cuts))
    blocks = _blocks(cleaned.series, cuts, scaling, options.max_gap_ticks)
    spec = ModelSpec(len(cleaned.sensors), window, options.units)
    out.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        record, parity = _train_and_export(spec, blocks, options, draft, progress)
        bundle = _uncalibrated(cleaned, spec, scaling, options, draft, parity)
        history = _calibration_history(cleaned.series, cuts)
        progress.stage("calibrating", 2 * len(history.samples))
        found = calibrate(bundle, history, options.alarms_per_week, progress.advance)
        skill = _skill(cleaned, history, found, scaling)
        bundle = _finish(bundle, history, found, skill, record)
        _replace(draft, out)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    bundle = load_detector(out).bundle
    held = _held_out(cleaned, bundle.manifest, history, found)
    return FitReport(bundle, skill, record["best_epoch"], record["epochs"], held)


def _cuts(count: int, window: int) -> tuple[int, int]:
    """Return the first rows of the early-stop and the calibration block.

    A short history gives more of itself to calibration: its threshold is less certain than its forecaster.
    """
    held = int(count * (0.35 if count < SHORT_HISTORY else 0.25))
    stop = max(int(count * 0.15), window + 8)
    first = count - held - stop
    if first < window + 8:
        raise HistoryError(
            f"history too short: {count} samples of an asset, a window of {window} needs at least "
            f"{int((2 * window + 16) / 0.65) + 1}; give more history or a smaller --window"
        )
    return first, first + stop


def _fit_rows(cleaned: Cleaned, cuts: Sequence[tuple[int, int]]) -> Float32:
    rows = np.concatenate([one.values[:first] for one, (first, _) in zip(cleaned.series, cuts, strict=True)])
    empty = np.flatnonzero(~np.isfinite(rows).any(axis=0))
    if len(empty):
        raise HistoryError(
            f"sensor {cleaned.sensors[empty[0]]} has no value in the part that the model is fitted on; "
            "leave it out with --ignore-column"
        )
    return rows


def _blocks(
    series: Sequence[Series], cuts: Sequence[tuple[int, int]], scaling: Scaling, max_gap: int
) -> _Blocks:
    parts: tuple[list[Segments], list[Segments], list[Segments]] = ([], [], [])
    for one, (first, second) in zip(series, cuts, strict=True):
        for part, (start, end) in zip(
            parts, ((0, first), (first, second), (second, len(one.ticks))), strict=True
        ):
            part.append(
                build_segments(
                    one.ticks[start:end], one.values[start:end], scaling.centre, scaling.scale, max_gap
                )
            )
    return _Blocks(*(part[0] if len(part) == 1 else Segments.concatenate(part) for part in parts))


def _train_and_export(
    spec: ModelSpec, blocks: _Blocks, options: FitOptions, draft: Path, progress: Progress
) -> tuple[dict[str, Any], dict[str, float]]:
    """Train, write the graphs, and prove them on real windows."""
    # TensorFlow takes seconds and 600 MB to import: not before the history is known to be usable.
    from trainer.export import export_all
    from trainer.model import build_model, weights_of
    from trainer.training import TrainingOptions, train
    from trainer.verify import prove_parity

    model = build_model(spec, choose_highway(blocks.fit, blocks.stop, spec.horizons), options.seed)
    progress.stage("training", options.epochs)
    record = train(
        model,
        spec,
        blocks.fit,
        blocks.stop,
        TrainingOptions(
            epochs=options.epochs,
            batch_size=options.batch_size,
            learning_rate=options.learning_rate,
            patience=options.patience,
            windows_per_epoch=options.windows_per_epoch,
            seed=options.seed,
        ),
        lambda epoch, loss, later: progress.advance(1, f"loss {loss:.4f}, later block {later:.4f}"),
    )
    progress.stage("exporting and proving", 1)
    export_all(weights_of(model, spec), draft)
    windows = SubSequences(blocks.held, spec.window_length, spec.horizons)
    chosen = np.unique(np.linspace(0, len(windows) - 1, 16).astype(np.int64))
    parity = prove_parity(model, spec, draft, windows.inputs(chosen))
    progress.advance()
    return {
        "best_epoch": record.best_epoch,
        "epochs": record.epochs,
        "losses": list(record.losses),
        "stop_losses": list(record.stop_losses),
    }, parity


def _uncalibrated(
    cleaned: Cleaned,
    spec: ModelSpec,
    scaling: Scaling,
    options: FitOptions,
    draft: Path,
    parity: dict[str, float],
) -> Bundle:
    units = dict(options.units_of_sensors)
    sensors = tuple(
        SensorSpec(
            name,
            units.get(name, ""),
            float(scaling.minimum[i]),
            float(scaling.maximum[i]),
            float(scaling.centre[i]),
            float(scaling.scale[i]),
            bool(scaling.constant[i]),
        )
        for i, name in enumerate(cleaned.sensors)
    )
    manifest = Manifest(
        name=options.name,
        version="1",
        asset_class=options.name,
        sensors=sensors,
        sampling_interval_seconds=cleaned.interval,
        phase_seconds=cleaned.phase,
        window_length=spec.window_length,
        horizons=tuple(range(1, spec.horizons + 1)),
        inputs=tuple(f"{kind}:{name}" for kind in ("sensor", "missing") for name in cleaned.sensors),
        head="point",
        architecture={"kind": "lstm+highway", "units": list(spec.units), "highway_spans": list(spec.spans)},
        state_size=spec.state_size,
        inference=options.inference,
        warmup_ticks=spec.window_length,
        max_gap_ticks=options.max_gap_ticks,
        threshold=Threshold("margin", 1e30, options.alarms_per_week, 0.0),
        parity=parity,
    )
    return Bundle(draft, manifest, untouched_scoring(len(sensors)))


def _calibration_history(series: Sequence[Series], cuts: Sequence[tuple[int, int]]) -> CalibrationHistory:
    parts, held = [], []
    for number, (one, (_, second)) in enumerate(zip(series, cuts, strict=True)):
        last = len(one.ticks)
        rows = np.r_[max(0, second - LEARNT_ROWS) : second, max(second, last - HELD_ROWS) : last]
        parts.append(Samples(np.full(len(rows), number), one.ticks[rows], one.values[rows]))
        held.append(rows >= second)
    return CalibrationHistory(Samples.concatenate(parts, series[0].values.shape[1]), np.concatenate(held))


def _skill(
    cleaned: Cleaned, history: CalibrationHistory, found: Calibrated, scaling: Scaling
) -> dict[str, Any]:
    """Return the forecast's figures on the calibration block, in scaled units."""
    values = history.samples.values
    previous = np.vstack([np.full((1, values.shape[1]), np.nan, np.float32), values[:-1]])
    known = history.held_out & np.isfinite(found.forecast).all(axis=1)
    known[0] = False
    mask = np.isfinite(values[known]) & np.isfinite(previous[known])
    return dict(
        forecast_skill(
            values[known], found.forecast[known], previous[known], mask, scaling.scale, list(cleaned.sensors)
        )
    )


def _held_out(
    cleaned: Cleaned, manifest: Manifest, history: CalibrationHistory, found: Calibrated
) -> Evaluation:
    rows = np.flatnonzero(history.held_out)
    samples = history.samples
    statistic = found.statistic[rows]
    return Evaluation(
        tuple(series.asset for series in cleaned.series),
        samples.asset[rows],
        np.asarray(manifest.axis.time_of(samples.tick[rows]), np.float64),
        samples.values[rows],
        found.forecast[rows],
        found.threshold.score(statistic),
        statistic,
        np.zeros(len(rows), np.bool_),
        None,
        (),
        cleaned.interval,
    )


def _finish(
    bundle: Bundle,
    history: CalibrationHistory,
    found: Calibrated,
    skill: dict[str, Any],
    record: dict[str, Any],
) -> Bundle:
    samples = history.samples
    manifest = replace(
        bundle.manifest,
        threshold=found.threshold,
        metrics={key: skill[key] for key in ("rmse", "mae", "persistence_rmse")},
        trained={
            "first_time": float(bundle.manifest.axis.time_of(samples.tick.min())),
            "last_time": float(bundle.manifest.axis.time_of(samples.tick.max())),
            "samples": len(samples),
            "calibration_samples": found.scored_rows,
            "data_sha256": hashlib.sha256(samples.values.tobytes()).hexdigest(),
            "training": record,
            "versions": _versions(),
        },
    )
    # Graphs are proven in both modes by the golden samples, so the statistics of both are kept.
    complete = Bundle(bundle.directory, manifest, found.scoring)
    golden: dict[str, Any] = {"values": _golden_values(history, manifest)}
    for mode in ("step", "window"):
        outcomes = open_detector(complete, mode).process(golden_samples(golden["values"]))
        golden |= {f"{mode}_forecast": outcomes.forecast, f"{mode}_statistic": outcomes.statistic}
    return write_bundle(complete, golden)


def _golden_values(history: CalibrationHistory, manifest: Manifest) -> Float32:
    """Return rows for a warm-up and some scored samples after it; the last of them loses a cell."""
    rows = np.flatnonzero(history.held_out & (history.samples.asset == 0))
    values = history.samples.values[rows[: manifest.warmup_ticks + 32]].copy()
    values[-1, 0] = np.nan
    return values


def _versions() -> dict[str, str]:
    names = ("keras", "tensorflow", "tf2onnx", "onnx", "onnxruntime", "numpy")
    found = {name: importlib.metadata.version(name) for name in names}
    return found | {"forewarn": VERSION, "python": platform.python_version()}


def _replace(draft: Path, out: Path) -> None:
    """Put the finished draft in place; the old bundle goes only when the new one stands."""
    draft.chmod(0o755)
    old = draft.with_name(f"{draft.name}.old")
    if out.exists():
        out.rename(old)
    draft.rename(out)
    shutil.rmtree(old, ignore_errors=True)
