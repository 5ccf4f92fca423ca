"""Training side by side: Forewarn, the script of the tutorials and a forecasting library, to the same RMSE."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.figures import gpu_name, in_turn, spread
from tests.benchmarks.learning_curve import Task, Values
from tests.benchmarks.readme_table import ROOT
from trainer.dataset import Segments
from trainer.highway import RIDGES, fit_highway, square_residual
from trainer.progress import Progress
from trainer.simulate import simulate
from trainer.watch import Utilisation

LIBRARY = ROOT / ".venv-bench-training" / "bin" / "python"
"""Made by `make bench PARTS=training` from `requirements/bench-training.lock`."""
LIBRARY_VARIABLE = "FOREWARN_BENCH_LIBRARY"
NAMES = {
    "tutorial": "tutorial script, Keras",
    "library": "darts",
    "forewarn_alone": "Forewarn, the same network",
    "forewarn": "Forewarn as released",
}
BACKENDS = ("jax", "torch")
"""Of Keras, with which a GPU is used that TensorFlow's CUDA 12 does not go with."""
NOT_INSTALLED = "not installed"
MARGIN = 1.02
"""The RMSE to reach, over the best that every contender reached: chosen before anything was measured."""


@dataclass(frozen=True)
class Length:
    """How much is trained.

    Attributes:
        hours: of simulated history, a sample a minute.
        seconds: that each contender may take, of the processor, or on a GPU of the wall.
        long_rows: of a longer history, of which only the memory is asked; 0 is none.
        units, window: of the network.
    """

    hours: float = 672.0
    seconds: float = 120.0
    long_rows: int = 500_000
    units: tuple[int, ...] = (128, 64, 32)
    window: int = 60


GPU = Length(seconds=15.0, long_rows=0)
QUICK = Length(hours=72.0, seconds=15.0, long_rows=20_000)
_LATER = 0.25
_BATCH = 64
_MINUTE = 60.0


@dataclass(frozen=True)
class Contender:
    """Who trains.

    Attributes:
        key, name: for programs and people.
        base: key of the tutorial's script that it is held against.
        words: of its command, before the path of the task.
        environment: beside this process's own.
    """

    key: str
    name: str
    base: str
    words: tuple[str, ...]
    environment: dict[str, str]


def contenders(on_gpu: bool) -> list[Contender]:
    """Return who takes part: on a GPU each with both backends of Keras that such a machine has."""
    paths = filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))
    settings = {"PYTHONPATH": os.pathsep.join(paths)}
    if not on_gpu:
        settings["CUDA_VISIBLE_DEVICES"] = ""
    found = []
    for backend in BACKENDS if on_gpu else ("",):
        # JAX would take three quarters of the GPU's memory at once, whatever it needs.
        chosen = {"KERAS_BACKEND": backend, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"} if backend else {}
        ending = f"_{backend}" if backend else ""
        for name in ("tutorial", "forewarn_alone", "forewarn"):
            words = (sys.executable, "-m", "tests.benchmarks.training_contenders", name)
            key, base = f"{name}{ending}", f"tutorial{ending}"
            title = f"{NAMES[name]}, {backend}" if backend else NAMES[name]
            found.append(Contender(key, title, base, words, settings | chosen))
    if library() is not None:
        command = (str(library()), "-m", "tests.benchmarks.training_library")
        # PyTorch is what the library is made of, and the last of the backends.
        found.insert(1, Contender("library", NAMES["library"], found[-1].base, command, settings))
    return found


def measure_training(
    scratch: Path, rounds: int, progress: Progress, length: Length, on_gpu: bool = False
) -> dict[str, Any]:
    """Train every contender in a process of its own, in turn.

    Args:
        scratch: an empty directory.
        rounds: how often; each has a seed of its own.
        progress: told after each training.
        length: how much.
        on_gpu: whether a GPU computes; then the time is that of the wall, and how busy the GPU was is told.

    Raises:
        RuntimeError: a contender failed, or no GPU is seen where one is to compute.

    Returns:
        `contenders`, a record each; the RMSE of `persistence` and of the `ridge` regression, and network and samples
        in numbers.
    """
    gpu = {"gpu": gpu_name()} if on_gpu else {}
    fit, later = samples(length)
    task = Task(fit, later, length.window, length.units, _BATCH, length.seconds, 0, on_gpu)
    taking_part = contenders(on_gpu)
    progress.stage("training", (rounds + (length.long_rows > 0)) * len(taking_part))
    runs: dict[str, list[dict[str, Any]]] = {one.key: [] for one in taking_part}
    targets = []
    for number in range(rounds):
        for place in in_turn(len(taking_part), number):
            one = taking_part[place]
            runs[one.key].append(_train(one, replace(task, seed=number), scratch))
            progress.advance(1, f"{one.name}: {_best(runs[one.key][-1]['points'])}")
        targets.append(target_of([found[number]["points"] for found in runs.values()]))
    records = [_record(one, runs[one.key], runs[one.base], targets, task.clock) for one in taking_part]
    if length.long_rows:
        longer = replace(task, fit=np.resize(fit, (length.long_rows, fit.shape[1])), seconds=0.1)
        for one, record in zip(taking_part, records, strict=True):
            record["long_peak_megabytes"] = _train(one, longer, scratch)["peak_megabytes"]
            progress.advance(1, f"{one.name}, {length.long_rows} samples")
    if "library" not in runs:
        records.insert(1, {"key": "library", "name": f"{NAMES['library']}, {NOT_INSTALLED}"})
    return {
        "rounds": rounds, "samples": len(fit), "later_samples": len(later), "sensors": fit.shape[1],
        "window": length.window, "units": list(length.units), "long_samples": length.long_rows,
        **gpu, "seconds_each": length.seconds, "clock": task.clock, "target_rmse": targets, **_references(task),
        "contenders": records,
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


def _best(points: list[dict[str, float]]) -> str:
    """Return, for a person, the best point of a curve."""
    best = min(points, key=lambda point: point["rmse"])
    told = f"{best['cpu_seconds']:.1f} CPU-s, {best['wall_seconds']:.1f} s"
    return f"RMSE {best['rmse']:.3f} after {best['windows']:.0f} windows, {told}"


def _train(contender: Contender, task: Task, scratch: Path) -> dict[str, Any]:
    """Train one contender in a process of its own and return what it found.

    Raises:
        RuntimeError: it failed.
    """
    path = scratch / "task.npz"
    task.save(path)
    words, environment = [*contender.words, str(path)], {**os.environ, **contender.environment}
    busy = Utilisation()
    with busy.measured():
        done = subprocess.run(
            words, capture_output=True, text=True, check=False, env=environment, cwd=scratch
        )
    if done.returncode:
        raise RuntimeError(f"{contender.key}: {done.stderr.strip()[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found | {"gpu_percent": busy.percent}


def _record(
    contender: Contender,
    runs: list[dict[str, Any]],
    tutorial: list[dict[str, Any]],
    targets: list[float],
    clock: str,
) -> dict[str, Any]:
    """Return the figures of a contender; ratios are the tutorial's over its own, of the same round."""
    at = [reached(run["points"], target) for run, target in zip(runs, targets, strict=True)]
    theirs = [reached(run["points"], target) for run, target in zip(tutorial, targets, strict=True)]
    epochs = [epoch for run in runs for epoch in run["epochs"]]
    shown = runs[0].get("library")
    return {
        "key": contender.key,
        "name": contender.name if shown is None else shown,
        "rounds": [point[clock] for point in at],
        **{key: spread(point[key] for point in at) for key in ("wall_seconds", "cpu_seconds", "windows")},
        "best_rmse": spread(min(point["rmse"] for point in run["points"]) for run in runs),
        "speed": spread(b["cpu_seconds"] / a["cpu_seconds"] for a, b in zip(at, theirs, strict=True)),
        "wall_speed": spread(b["wall_seconds"] / a["wall_seconds"] for a, b in zip(at, theirs, strict=True)),
        "epoch": _epoch(epochs),
        "gpu_percent": runs[0]["gpu_percent"],
        "start_megabytes": max(run["start_megabytes"] for run in runs),
        "peak_megabytes": max(run["peak_megabytes"] for run in runs),
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
