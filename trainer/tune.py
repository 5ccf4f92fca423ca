"""The search for better options of `trainer fit`: what a trial is judged by.

The rows that `fit` would calibrate on are left out, so that nothing that was chosen here has seen them. What
remains is cut in time: a trial is fitted and calibrated on the first part, as `fit` does, and judged on the last,
by the daemon's own detector. A forecaster that is better by RMSE can be a worse detector (it learns to follow the
fault), so the cost is

    cost = 1 - detection + 0.1 * RMSE / RMSE of persistence
    detection = (found - excess) / faults, at least -1
    excess = max(0, false alarms - alarm budget * weeks)

`faults` are those injected into the last part (`trainer.injection`), each run on its own, and the labelled events
in it. One is found if an alarm starts while it lasts, or if the sensor is named as dead, at the trial's calibrated
threshold. False alarms are those that start in the last part as it was, outside labels. So a false alarm beyond the
budget costs a found fault, and the forecast decides between those that detect alike.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edge_agent.contract.errors import HistoryError, UsageError
from edge_agent.contract.tail import WEEK_SECONDS
from edge_agent.contract.types import Bool, Float32, Int64, Outcomes, Samples
from edge_agent.detector import Detector
from trainer.backend import keras
from trainer.blocks import make_plan, resting_rows
from trainer.calibrate import chunks_of
from trainer.cleaning import Cleaned, Series
from trainer.detection_metrics import forecast_skill
from trainer.fit import fit_detector
from trainer.fit_options import FitOptions
from trainer.injection import FAULT_ROWS, WARM_ROWS, Ground, InjectedFault, inject_faults
from trainer.model_options import check_together
from trainer.scored_rows import ranges_of
from trainer.study import Judged, Report
from trainer.tune_space import Space
from trainer.walk_forward import between

JUDGED_SHARE = 0.3
"""Of the rows before the calibration block: the last part, which judges."""
FAULTS_PER_KIND = 4
SKILL_WEIGHT = 0.1


@dataclass(frozen=True)
class Exam:
    """What all trials are fitted on and judged by.

    Attributes:
        past: they are fitted and calibrated on it.
        block: they are judged on it.
        faults: injected into it.
        options: what is not searched.
    """

    past: Cleaned
    block: Cleaned
    faults: tuple[InjectedFault, ...]
    options: FitOptions


def make_exam(cleaned: Cleaned, options: FitOptions, space: Space) -> Exam:
    """Cut the history and draw the faults, the same for all trials.

    Raises:
        HistoryError: the history is too short to be cut.
    """
    plan = make_plan(cleaned, options)
    known: list[Series] = []
    for series, cuts in zip(cleaned.series, plan.cuts, strict=True):
        last = int(series.ticks[(cuts.rows if plan.in_folds else cuts.held) - 1])
        known += between(replace(cleaned, series=(series,)), int(series.ticks[0]), last).series
    before = replace(cleaned, series=tuple(known))
    first, last = (int(edge([one.ticks[place] for one in known])) for edge, place in ((min, 0), (max, -1)))
    middle = last - int(JUDGED_SHARE * (last - first))
    past, block = between(before, first, middle), between(before, middle + 1, last)
    longest = max((plan.spec.window_length, *_windows(space)))
    if not past.series or not block.series:
        raise HistoryError("history too short to be cut into a part to fit on and one to judge by")
    ground = Ground(block, plan.layout.forecast, resting_rows(block, options))
    faults = inject_faults(
        past, ground, FAULTS_PER_KIND, longest + WARM_ROWS, options.max_gap_ticks, options.seed
    )
    return Exam(past, block, tuple(faults), options)


def _windows(space: Space) -> list[int]:
    """Return the longest windows that are tried: each must have its warm-up before a fault."""
    dimension = space.get("window_length")
    return [] if dimension is None else [int(max(dimension.choices or (dimension.high,)))]


def judge_trial(exam: Exam, parameters: dict[str, Any], report: Report) -> Judged:
    """Fit a detector with some parameters and judge it.

    Args:
        exam: what it is fitted on and judged by.
        parameters: fields of `FitOptions`.
        report: told of each epoch's loss on the later block of training.

    Raises:
        HistoryError: the history cannot carry such a model, or the parameters do not go together.
    """
    keras.utils.clear_session()  # a process fits many models
    # Windows take minutes to export: they are for architectures that have no step form.
    options = replace(exam.options, inference="auto", **parameters)
    try:
        check_together(options)
    except UsageError as error:
        raise HistoryError(str(error)) from error
    with tempfile.TemporaryDirectory() as scratch:
        detector = fit_detector(
            exam.past, options, Path(scratch), lambda epoch, _loss, later: report(epoch, later)
        )
    return judge_detector(detector, exam)


def judge_detector(detector: Detector, exam: Exam) -> Judged:
    """Run a detector over the block as it was and over each fault, and return its cost."""
    assets = len(exam.block.series)
    clean = _run(detector, [(one.ticks, one.values) for one in exam.block.series], 0)
    spoilt = _run(detector, [(fault.ticks, fault.values) for fault in exam.faults], assets)
    injected = [
        _found(spoilt, assets + number, fault, exam.block) for number, fault in enumerate(exam.faults)
    ]
    events, false = _against_labels(clean, exam.block)
    found = [*injected, *events]
    weeks = sum(int(np.isfinite(part.score).sum()) for part in clean) * exam.block.interval / WEEK_SECONDS
    excess = max(0.0, false - exam.options.alarms_per_week * weeks)
    detection = max((sum(found) - excess) / max(len(found), 1), -1.0)
    skill = _skill(detector, clean, exam.block)
    by_kind: dict[str, float] = {}
    for kind in dict.fromkeys(fault.kind for fault in exam.faults):
        of_kind = [hit for hit, fault in zip(injected, exam.faults, strict=True) if fault.kind == kind]
        by_kind[kind] = sum(of_kind) / len(of_kind)
    return Judged(
        1.0 - detection + SKILL_WEIGHT * skill,
        {
            "detection": detection,
            "recall": sum(found) / max(len(found), 1),
            "faults": len(found),
            "labelled_events": len(events),
            "false_alarms": false,
            "allowed_false_alarms": exam.options.alarms_per_week * weeks,
            "rmse_over_persistence": skill,
            "recall_by_kind": by_kind,
        },
    )


def _run(detector: Detector, parts: Sequence[tuple[Int64, Float32]], first: int) -> list[Outcomes]:
    """Score some assets, numbered from `first`, and return the outcomes in order."""
    asset = np.concatenate([np.full(len(ticks), first + number) for number, (ticks, _) in enumerate(parts)])
    place = np.concatenate([np.arange(len(ticks)) for ticks, _ in parts])
    order = np.lexsort((asset, place))  # side by side, so that a call scores all of them at once
    ticks, values = (np.concatenate([part[at] for part in parts])[order] for at in (0, 1))
    samples = Samples(asset[order], ticks, values)
    return [detector.process(part) for part in chunks_of(samples)]


def _found(outcomes: Sequence[Outcomes], asset: int, fault: InjectedFault, block: Cleaned) -> bool:
    """Return whether an alarm starts while the fault lasts, or its sensor is named as dead."""
    begin, end = (block.phase + block.interval * int(fault.ticks[row]) for row in (-FAULT_ROWS, -1))
    for part in outcomes:
        for event in part.events:
            if event.asset == asset and event.kind == "start" and begin <= event.time <= end:
                return True
        for dead in part.quality:
            named = any(one.sensor == fault.sensor for one in dead.sensors)
            if dead.asset == asset and dead.phase != "end" and named and begin <= dead.time <= end:
                return True
    return False


def _against_labels(outcomes: Sequence[Outcomes], block: Cleaned) -> tuple[list[bool], int]:
    """Return which labelled events an alarm starts in, and how many alarms start outside of all."""
    starts = [
        (event.asset, event.time) for part in outcomes for event in part.events if event.kind == "start"
    ]
    found: list[bool] = []
    inside = 0
    for number, series in enumerate(block.series):
        labelled: Bool = np.zeros(len(series.ticks), np.bool_) if series.labels is None else series.labels > 0
        times = np.asarray(block.phase + block.interval * series.ticks, np.float64)
        mine = np.array([time for asset, time in starts if asset == number])
        for first, last in ranges_of(labelled, np.empty(0, np.int64)).tolist():
            hits = int(((mine >= times[first]) & (mine <= times[last - 1])).sum())
            found.append(hits > 0)
            inside += hits
    return found, len(starts) - inside


def _skill(detector: Detector, clean: Sequence[Outcomes], block: Cleaned) -> float:
    """Return the RMSE of the forecast over that of persistence, of what is forecast; 1 where it is not defined."""
    chosen = detector.bundle.manifest.layout.forecast
    asset = np.concatenate([part.asset for part in clean])
    order = np.argsort(asset, kind="stable")
    forecast = np.concatenate([part.forecast for part in clean])[order][:, chosen]
    values = np.concatenate([series.values for series in block.series])[:, chosen]
    previous = np.vstack([np.full((1, values.shape[1]), np.nan, np.float32), values[:-1]])
    previous[np.flatnonzero(np.diff(asset[order], prepend=-1))] = np.nan
    mask = np.isfinite(values) & np.isfinite(previous) & np.isfinite(forecast)
    skill = forecast_skill(values, forecast, previous, mask, detector.bundle.manifest.scaling.scale[chosen])
    rmse, persistence = skill["rmse"], skill["persistence_rmse"]
    return rmse / persistence if rmse is not None and persistence else 1.0
