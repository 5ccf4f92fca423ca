"""Training side by side: Forewarn, the script of the tutorials and a forecasting library, to the same RMSE."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.figures import in_turn, spread
from tests.benchmarks.learning_curve import Task, Values
from tests.benchmarks.readme_table import ROOT
from trainer.dataset import Segments
from trainer.highway import RIDGES, fit_highway, square_residual
from trainer.progress import Progress
from trainer.simulate import simulate

LIBRARY = ROOT / ".venv-bench-training" / "bin" / "python"
"""Made by `make bench PARTS=training` from `requirements/bench-training.lock`."""
LIBRARY_VARIABLE = "FOREWARN_BENCH_LIBRARY"
NAMES = {
    "tutorial": "tutorial script, Keras",
    "library": "darts",
    "forewarn_alone": "Forewarn, the same network",
    "forewarn": "Forewarn as released",
}
NOT_INSTALLED = "not installed"
MARGIN = 1.02
"""The RMSE to reach, over the best that every contender reached: chosen before anything was measured."""


@dataclass(frozen=True)
class Length:
    """How much is trained.

    Attributes:
        hours: of simulated history, a sample a minute.
        cpu_seconds: that each contender may take.
        long_rows: of a longer history, of which only the memory is asked.
        units, window: of the network.
    """

    hours: float = 672.0
    cpu_seconds: float = 120.0
    long_rows: int = 500_000
    units: tuple[int, ...] = (128, 64, 32)
    window: int = 60


QUICK = Length(hours=72.0, cpu_seconds=15.0, long_rows=20_000)
_LATER = 0.25
_BATCH = 64
_MINUTE = 60.0


def measure_training(scratch: Path, rounds: int, progress: Progress, length: Length) -> dict[str, Any]:
    """Train every contender in a process of its own, in turn.

    Args:
        scratch: an empty directory.
        rounds: how often; each has a seed of its own.
        progress: told after each training.
        length: how much.

    Returns:
        `contenders`, a record each; the RMSE of `persistence` and of the `ridge` regression, and network and samples
        in numbers.
    """
    fit, later = samples(length)
    task = Task(fit, later, length.window, length.units, _BATCH, length.cpu_seconds, 0)
    names = [name for name in NAMES if name != "library" or library() is not None]
    progress.stage("training", (rounds + 1) * len(names))
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    targets = []
    for number in range(rounds):
        for place in in_turn(len(names), number):
            runs[names[place]].append(_train(names[place], replace(task, seed=number), scratch))
            progress.advance(1, NAMES[names[place]])
        targets.append(target_of([found[number]["points"] for found in runs.values()]))
    longer = replace(task, fit=np.resize(fit, (length.long_rows, fit.shape[1])), cpu_seconds=0.1)
    peaks = {}
    for name in names:
        peaks[name] = _train(name, longer, scratch)["peak_megabytes"]
        progress.advance(1, f"{NAMES[name]}, {length.long_rows} samples")
    return {
        "rounds": rounds, "samples": len(fit), "later_samples": len(later), "sensors": fit.shape[1],
        "window": length.window, "units": list(length.units), "long_samples": length.long_rows,
        "cpu_seconds": length.cpu_seconds, "target_rmse": targets, **_references(task),
        "contenders": [
            _record(name, runs.get(name), runs["tutorial"], targets, peaks.get(name)) for name in NAMES
        ],
    }  # fmt: skip


def library() -> str | None:
    """Return the interpreter that has the library, None where there is none."""
    chosen = os.environ.get(LIBRARY_VARIABLE, str(LIBRARY))
    return chosen if Path(chosen).is_file() else None


def samples(length: Length) -> tuple[Values, Values]:
    """Return (n, F) and (m, F) simulated samples, the later ones second, in deviations of the first."""
    values = simulate(length.hours, 0, _MINUTE).values
    cut = round(len(values) * (1.0 - _LATER))
    first = values[:cut].astype(np.float64)
    scaled = ((values - first.mean(axis=0)) / first.std(axis=0)).astype(np.float32)
    return scaled[:cut], scaled[cut:]


def target_of(curves: list[list[dict[str, float]]]) -> float:
    """Return the RMSE to reach: `MARGIN` times the best one that every contender reached."""
    return MARGIN * max(min(point["rmse"] for point in points) for points in curves)


def reached(points: list[dict[str, float]], target: float) -> dict[str, float]:
    """Return the first point of a curve that is no worse than the target."""
    return next(point for point in points if point["rmse"] <= target)


def _train(name: str, task: Task, scratch: Path) -> dict[str, Any]:
    """Train one contender in a process of its own and return what it found.

    Raises:
        RuntimeError: it failed.
    """
    path = scratch / "task.npz"
    task.save(path)
    if name == "library":
        words = [str(library()), "-m", "tests.benchmarks.training_library", str(path)]
    else:
        words = [sys.executable, "-m", "tests.benchmarks.training_contenders", name, str(path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=environment, cwd=scratch)
    if done.returncode:
        raise RuntimeError(f"{name}: {done.stderr.strip()[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _record(
    name: str,
    runs: list[dict[str, Any]] | None,
    tutorial: list[dict[str, Any]],
    targets: list[float],
    long_peak: float | None,
) -> dict[str, Any]:
    """Return the figures of a contender; ratios are the tutorial's over its own, of the same round."""
    if runs is None:
        return {"key": name, "name": f"{NAMES[name]}, {NOT_INSTALLED}"}
    at = [reached(run["points"], target) for run, target in zip(runs, targets, strict=True)]
    theirs = [reached(run["points"], target) for run, target in zip(tutorial, targets, strict=True)]
    epochs = [epoch for run in runs for epoch in run["epochs"]]
    shown = runs[0].get("library")
    return {
        "key": name,
        "name": NAMES[name] if shown is None else shown,
        "rounds": [point["cpu_seconds"] for point in at],
        **{key: spread(point[key] for point in at) for key in ("wall_seconds", "cpu_seconds", "windows")},
        "best_rmse": spread(min(point["rmse"] for point in run["points"]) for run in runs),
        "speed": spread(b["cpu_seconds"] / a["cpu_seconds"] for a, b in zip(at, theirs, strict=True)),
        "wall_speed": spread(b["wall_seconds"] / a["wall_seconds"] for a, b in zip(at, theirs, strict=True)),
        "epoch": _epoch(epochs),
        "start_megabytes": max(run["start_megabytes"] for run in runs),
        "peak_megabytes": max(run["peak_megabytes"] for run in runs),
        "long_peak_megabytes": long_peak,
        "curves": [run["points"] for run in runs],
    }


def _epoch(epochs: list[dict[str, float]]) -> dict[str, float] | None:
    """Return the medians of the epochs, None where none was finished in the time."""
    if not epochs:
        return None
    return {key: float(np.median([one[key] for one in epochs])) for key in epochs[0]}


def _references(task: Task) -> dict[str, float]:
    """Return the RMSE of forecasts that need no network, on the windows that judge the others."""
    windows, targets = task.judged()
    whole = Segments(task.fit, np.zeros(task.fit.shape, np.bool_), np.zeros(1, np.int64))
    later = Segments(task.later, np.zeros(task.later.shape, np.bool_), np.zeros(1, np.int64))
    fitted = fit_highway(whole, RIDGES[0])
    cells = (len(later) - 1) * later.values.shape[1]
    persistence = float(np.sqrt(np.mean((windows[:, -1].astype(np.float64) - targets) ** 2)))
    return {"persistence": persistence, "ridge": float(np.sqrt(square_residual(fitted, later) / cells))}
