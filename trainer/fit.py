"""From history to a bundle: clean, split in time order, train, export, prove, calibrate, write.

Blocks in time order: the forecaster is fitted on the first, the second decides when training stops, and the last,
which nothing was fitted on, calibrates the threshold. A short history is cut into folds instead (`trainer.blocks`).
"""

import importlib.metadata
import math
import platform
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edge_agent.contract.bundle import Bundle, Manifest, SensorSpec, write_bundle
from edge_agent.contract.fusion import SLOW_SOURCES, Fusion
from edge_agent.contract.grid import Axis
from edge_agent.contract.threshold import Threshold
from edge_agent.contract.trailing import block_rows
from edge_agent.detector import Detector, load_detector, open_detector
from edge_agent.version import VERSION
from trainer.blocks import FOLDS, SHORT_HISTORY, Plan, make_plan
from trainer.calibrate import (
    Calibrated,
    CalibrationHistory,
    Fold,
    calibrate,
    calibrate_in_folds,
    untouched_scoring,
)
from trainer.cleaning import Cleaned
from trainer.dataset import SubSequences
from trainer.detection_metrics import forecast_skill
from trainer.devices import on_all_devices, training_device
from trainer.evaluate import Evaluation
from trainer.export import Job, can_export, deployed_graphs, export_all, export_graphs
from trainer.fit_options import FitOptions, check_out
from trainer.habits import UNKNOWN, sensor_habits
from trainer.learning import (
    UNWATCHED,
    FoldedHistory,
    Learnt,
    OnEpoch,
    Supervision,
    learn,
    learn_in_folds,
)
from trainer.progress import Progress
from trainer.release import WEIGHTS, golden_arrays, golden_values, history_facts, put_in_place
from trainer.screening import without_faults
from trainer.verify import Proof, prove_parity
from trainer.watch import Utilisation, Watch
from trainer.workplace import fit_key, workplace

DAY_SECONDS = 86_400.0
_NO_EXPORT = (
    "TensorFlow is not installed: this machine can train but not export; what is learnt is kept, and the same command "
    "where TensorFlow is and this directory was copied to makes the bundle"
)


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


def fit(
    cleaned: Cleaned,
    out: Path,
    options: FitOptions,
    progress: Progress | None = None,
    logs: Path | None = None,
) -> FitReport:
    """Fit a forecaster and write its bundle.

    Args:
        cleaned: the history.
        out: directory of the bundle; replaced only when the new one is complete and proven.
        options: how.
        progress: told how it goes.
        logs: directory of TensorBoard's event files; None writes none.

    Raises:
        HistoryError: the history cannot carry a model.
        ExportError: an exported graph does not give what the trained model gives.
        UsageError: `out` is a directory of something else.
    """
    progress = progress or Progress()
    check_out(out)
    _check_sensors(cleaned, options)
    plan, screened = _plan(cleaned, options)
    watch = Watch(progress.note, logs)
    with workplace(out, fit_key(cleaned, options)) as place:
        if place.resumed:
            progress.note(f"an interrupted training of these data and options was found: it goes on ({out})")
        if not can_export():
            progress.note(f"{_NO_EXPORT} ({place.directory})")
        learnt = _learn_supervised(plan, progress, Supervision(watch, place))
        bundle = _uncalibrated(plan, place.draft, _export_and_prove(plan, learnt, place.draft, progress))
        history = plan.calibration_history()
        if told := plan.starts_notice():
            progress.note(told)
        found = _calibrate(plan, bundle, learnt, history, progress)
        skill = _skill(plan, history, found)
        _finish(bundle, history, found, skill, _trained(cleaned, found, learnt.record, screened))
        bundle = replace(load_detector(place.draft).bundle, directory=out)
        put_in_place(place.draft, out)
    held = _held_out(cleaned, bundle.manifest, history, found)
    return FitReport(bundle, skill, learnt.record["best_epoch"], learnt.record["epochs"], held)


def fit_detector(
    cleaned: Cleaned, options: FitOptions, directory: Path, on_epoch: OnEpoch | None = None
) -> Detector:
    """Fit and calibrate as `fit` does, without the graphs and proofs of a bundle that is released.

    Args:
        cleaned: the history.
        options: how. Without `units`, the ridge regression forecasts alone.
        directory: where its graphs go; it may be deleted afterwards.
        on_epoch: told of every epoch.

    Returns:
        a fresh detector.

    Raises:
        HistoryError: the history cannot carry a model.
    """
    _check_sensors(cleaned, options)
    plan, _ = _plan(cleaned, options)
    learnt = _learn(plan, Progress(), on_epoch)
    export_graphs([Job(learnt.weights, directory, _deployed_graphs(plan))])
    bundle = _uncalibrated(plan, directory, Proof({}, {}))
    found = _calibrate(plan, bundle, learnt, plan.calibration_history(), Progress())
    manifest = replace(bundle.manifest, threshold=found.threshold, drift=found.drift)
    return open_detector(replace(bundle, scoring=found.scoring, manifest=manifest))


def _check_sensors(cleaned: Cleaned, options: FitOptions) -> None:
    """Refuse options that name a sensor which the history does not have, before anything is learnt."""
    options.off_condition(cleaned.sensors)
    options.layout(cleaned.sensors, Axis(cleaned.interval, cleaned.phase))
    options.alarm_rules(cleaned.sensors)


def _plan(cleaned: Cleaned, options: FitOptions) -> tuple[Plan, int]:
    """Return the plan of the history, and how many of its rows it leaves out as faults that nobody labelled."""
    plan = make_plan(cleaned, options)
    return without_faults(plan) if options.parts.trimming else (plan, 0)


def _learn_supervised(plan: Plan, progress: Progress, supervision: Supervision) -> Learnt:
    """Learn, and tell what with; Ctrl-C ends it with the best weights so far."""
    assert supervision.watch is not None
    if not plan.spec.units or not plan.options.epochs:
        return _learn(plan, progress)
    progress.note(training_device(recurrent_dropout=plan.options.recurrent_dropout > 0.0))
    busy = Utilisation()
    with supervision.watch.interruptible(), busy.measured(), on_all_devices():
        learnt = _learn(plan, progress, supervision=supervision)
    if busy.percent is not None:
        progress.note(f"the graphics processor was busy for {busy.percent:.0f} % of the training")
    return learnt


def _learn(
    plan: Plan, progress: Progress, told: OnEpoch | None = None, supervision: Supervision = UNWATCHED
) -> Learnt:
    def on_epoch(epoch: int, loss: float, later: float) -> None:
        progress.advance(1, f"loss {loss:.4f}, later block {later:.4f}")
        if told is not None:
            told(epoch, loss, later)

    progress.stage("training", plan.options.epochs if plan.spec.units else 1)
    fit_block = plan.segments(lambda cuts: cuts.fitted(0, cuts.stop))
    later = plan.segments(lambda cuts: cuts.fitted(cuts.stop, cuts.held))
    if not plan.in_folds:
        return learn(plan.spec, fit_block, later, plan.options, on_epoch, supervision)
    folded = FoldedHistory(
        fit_block,
        later,
        tuple(plan.without_fold(number) for number in range(FOLDS)),
        tuple(plan.fold(number) for number in range(FOLDS)),
        plan.segments(lambda cuts: [(0, cuts.rows)]),
    )
    return learn_in_folds(plan.spec, folded, plan.options, on_epoch, progress.advance, supervision)


def _deployed_graphs(plan: Plan) -> tuple[str, ...]:
    """Return the names of the graphs that calibrate, which are those that run."""
    options = plan.options
    return deployed_graphs(options.mode, options.runtime, options.precision)


def _export_and_prove(plan: Plan, learnt: Learnt, draft: Path, progress: Progress) -> Proof:
    """Write the graphs and return how far each is from the trained model on real windows."""
    progress.stage("exporting and proving", 1)
    export_all(learnt.weights, draft, plan.options.precision)
    learnt.weights.save(draft / WEIGHTS)
    newest = plan.segments(lambda cuts: [(0 if plan.in_folds else cuts.held, cuts.rows)])
    windows = SubSequences(newest, plan.spec.window_length, plan.spec.horizons)
    chosen = np.unique(np.linspace(0, len(windows) - 1, 16).astype(np.int64))
    proof = prove_parity(learnt.weights, draft, windows.inputs(chosen), plan.options.precision)
    progress.advance()
    return proof


def _calibrate(
    plan: Plan, bundle: Bundle, learnt: Learnt, history: CalibrationHistory, progress: Progress
) -> Calibrated:
    budget, trimming = plan.options.alarms_per_week, plan.options.parts.trimming
    if not plan.in_folds:
        progress.stage("calibrating", 2 * len(history.samples))
        return calibrate(bundle, history, budget, progress.advance, trimming)
    progress.stage("calibrating", 2 * FOLDS * len(history.samples))
    with tempfile.TemporaryDirectory() as scratch:
        names = _deployed_graphs(plan)
        jobs = [Job(one, Path(scratch) / str(number), names) for number, one in enumerate(learnt.folds)]
        for job in jobs:
            job.directory.mkdir()
        export_graphs(jobs)
        folds = [
            Fold(replace(bundle, directory=job.directory), plan.rows_of_fold(number))
            for number, job in enumerate(jobs)
        ]
        return calibrate_in_folds(bundle, folds, history, budget, progress.advance, trimming)


def _uncalibrated(plan: Plan, draft: Path, proof: Proof) -> Bundle:
    cleaned, options, spec, scaling = plan.cleaned, plan.options, plan.spec, plan.scaling
    units = dict(options.units_of_sensors)
    habits = sensor_habits([series.values for series in cleaned.series])
    # A command moves when somebody wants it to: how it behaved says nothing of how it may.
    habits = [UNKNOWN if told else own for own, told in zip(habits, plan.layout.is_exogenous, strict=True)]
    sensors = tuple(
        SensorSpec(
            name,
            units.get(name, ""),
            float(scaling.minimum[i]),
            float(scaling.maximum[i]),
            float(scaling.centre[i]),
            float(scaling.scale[i]),
            bool(scaling.constant[i]),
            **asdict(habits[i]),
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
        inputs=plan.layout.names,
        time_zone=options.time_zone,
        head=spec.head.kind,
        architecture=_architecture(plan),
        state_size=spec.state_size,
        inference=options.mode,
        runtime=options.runtime,
        precision=options.precision,
        warmup_ticks=spec.window_length,
        max_gap_ticks=options.max_gap_ticks,
        adaptation=_adaptation(cleaned, options),
        block_rows=block_rows(options.usual_days, cleaned.interval),
        threshold=Threshold("margin", 1e30, options.alarms_per_week, 0.0),
        alarm_rules=options.alarm_rules(cleaned.sensors),
        off_condition=options.off_condition(cleaned.sensors),
        unused=cleaned.unused,
        parity=proof.deviations,
        sizes=proof.sizes,
    )
    return Bundle(draft, manifest, untouched_scoring(len(sensors), _fusion(plan, manifest.adaptation)))


def _architecture(plan: Plan) -> dict[str, Any]:
    """Return the architecture for the manifest; the values of an operating state in the sensor's own unit."""
    head, options = plan.spec.head, plan.options
    record = plan.spec.record() | {"scaling": options.scaling, "missing": options.missing}
    if head.kind == "softmax":
        place, scaling = plan.layout.forecast[head.state_sensor], plan.scaling
        values = np.asarray(head.state_values) * scaling.scale[place] + scaling.centre[place]
        # The values were scaled in float32, of whose digits the last are not those of a reading.
        digits = 6 - math.ceil(math.log10(scaling.scale[place]))
        states = [round(float(value), digits) for value in values]
        record["state"] = {"sensor": plan.cleaned.sensors[place], "values": states}
    return record


def _fusion(plan: Plan, adaptation: str) -> Fusion:
    """Return how statistics are fused: a short history trusts no variance, and its levels less, unless they adapt."""
    fusion = plan.options.parts.fusion
    shortest = min(len(series.ticks) for series in plan.cleaned.series)
    known = any(weight for name, weight in fusion.weights.items() if name not in SLOW_SOURCES)
    if shortest >= SHORT_HISTORY or not known:
        return fusion
    return fusion.trusting_levels(shortest / SHORT_HISTORY if adaptation == "frozen" else 1.0)


def _adaptation(cleaned: Cleaned, options: FitOptions) -> str:
    if options.adaptation != "auto":
        return options.adaptation
    longest = max(int(series.ticks[-1] - series.ticks[0]) for series in cleaned.series) * cleaned.interval
    return "trailing" if longest >= options.usual_days * DAY_SECONDS else "frozen"


def _skill(plan: Plan, history: CalibrationHistory, found: Calibrated) -> dict[str, Any]:
    """Return the forecast's figures on the calibration block, in scaled units, of the sensors that are forecast."""
    chosen = plan.layout.forecast
    values = history.samples.values[:, chosen]
    previous = np.vstack([np.full((1, len(chosen)), np.nan, np.float32), values[:-1]])
    known = history.held_out & np.isfinite(found.forecast).all(axis=1)
    known[0] = False
    mask = np.isfinite(values[known]) & np.isfinite(previous[known])
    return dict(
        forecast_skill(
            values[known], found.forecast[known][:, chosen], previous[known], mask, plan.scaling.scale[chosen],
            [plan.cleaned.sensors[place] for place in chosen],
        )
    )  # fmt: skip


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


def _trained(cleaned: Cleaned, found: Calibrated, record: dict[str, Any], screened: int) -> dict[str, Any]:
    """Return the facts of the whole history, every block of it, and of what it was made into."""
    return {
        **history_facts(cleaned),
        "calibration_samples": found.scored_rows,
        "trimmed_samples": found.trimmed_rows + screened,
        "training": record,
        "versions": _versions(),
    }


def _finish(
    bundle: Bundle,
    history: CalibrationHistory,
    found: Calibrated,
    skill: dict[str, Any],
    trained: dict[str, Any],
) -> None:
    manifest = replace(
        bundle.manifest,
        threshold=found.threshold,
        drift=found.drift,
        metrics={key: skill[key] for key in ("rmse", "mae", "persistence_rmse")},
        trained=trained,
    )
    # Graphs are proven in both modes by the golden samples, so the statistics of both are kept.
    complete = Bundle(bundle.directory, manifest, found.scoring)
    values = golden_values(history.samples, found.statistic, history.held_out, manifest.warmup_ticks)
    write_bundle(complete, golden_arrays(complete, values))


def _versions() -> dict[str, str]:
    names = ("keras", "tensorflow", "tf2onnx", "onnx", "onnxruntime", "numpy")
    found = {name: importlib.metadata.version(name) for name in names}
    return found | {"forewarn": VERSION, "python": platform.python_version()}
