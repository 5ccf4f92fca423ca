"""Samples that a CPU-second scores: what others would write, Forewarn's detector, the step graph alone."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from edge_agent.contract.bundle import Bundle
from edge_agent.contract.types import Float32, Samples
from edge_agent.detector import open_detector
from edge_agent.forecaster import Forecaster
from tests.benchmarks.figures import in_turn, ratio, spread
from tests.benchmarks.plain_script import PlainScript, Predict, Score, onnx_window
from trainer.export import STEP_GRAPH
from trainer.progress import Progress

BATCHES = (1, 64, 256)
CHUNK = 256
_ROWS_A_CALL = 16
_APART = 37
_MATRIX = 1024


@dataclass(frozen=True)
class Subject:
    """What is measured.

    Attributes:
        bundle: with both graphs.
        predictors: the same model otherwise, (1, T, I) → forecast, by key and name.
        neighbours: other detectors, by key and name.
        values: (n, F) readings of normal life.
    """

    bundle: Bundle
    predictors: dict[tuple[str, str], Predict]
    neighbours: dict[tuple[str, str], Score]
    values: Float32


@dataclass(frozen=True)
class Contender:
    """One way to work; `call` works through `samples` samples."""

    key: str
    name: str
    samples: int
    call: Callable[[], object]


def measure_kernel(subject: Subject, rounds: int, seconds: float, progress: Progress) -> dict[str, Any]:
    """Measure every contender once a round, in turn, on this process's CPU clock.

    Args:
        subject: model and readings.
        rounds: how often.
        seconds: CPU time of one contender in one round.
        progress: told after each measurement.

    Returns:
        `scoring` and `graph`, a record a contender, and `sgemm_gflops` of a core.
    """
    scoring, graph = _scoring(subject), _graph(subject.bundle)
    every = [*scoring, *graph, _sgemm()]
    progress.stage("kernel", rounds * len(every))
    measured: dict[str, list[float]] = {contender.key: [] for contender in every}
    for contender in every:
        contender.call()
    for number in range(rounds):
        for at in in_turn(len(every), number):
            measured[every[at].key].append(_rate(every[at], seconds))
            progress.advance(1, every[at].name)
    first, peak = measured[scoring[0].key], measured["sgemm"]
    work = _operations(subject.bundle.directory / STEP_GRAPH)
    return {
        "rounds": rounds,
        "scoring": [
            _record(one, measured[one.key]) | {"ratio": ratio(measured[one.key], first)} for one in scoring
        ],
        "graph": [
            _record(one, measured[one.key]) | {"peak_share": _scaled(ratio(measured[one.key], peak), work)}
            for one in graph
        ],
        "sgemm_gflops": _scaled(spread(peak), 1e-9),
    }


def _scaled(values: dict[str, float], factor: float) -> dict[str, float]:
    return {name: factor * value for name, value in values.items()}


def _record(contender: Contender, rates: list[float]) -> dict[str, Any]:
    return {"key": contender.key, "name": contender.name, "samples_per_cpu_second": spread(rates)}


def _rate(contender: Contender, seconds: float) -> float:
    calls, spent = 0, 0.0
    begun = time.process_time()
    # At least one: on a machine that is taken away for a moment the time may be over before it.
    while not calls or spent < seconds:
        contender.call()
        calls += 1
        spent = time.process_time() - begun
    return calls * contender.samples / spent


def _scoring(subject: Subject) -> list[Contender]:
    manifest = subject.bundle.manifest
    predictors = {("script_onnx", "script on ONNX Runtime"): onnx_window(subject.bundle.directory)}
    predictors |= subject.predictors
    scripts = {name: PlainScript(manifest, predict).warns for name, predict in predictors.items()}
    return [
        *(Contender(*name, 1, _one_by_one(subject, score)) for name, score in scripts.items()),
        *(Contender(*name, 1, _one_by_one(subject, score)) for name, score in subject.neighbours.items()),
        Contender("forewarn_rows", "Forewarn, 1 asset, row by row", _ROWS_A_CALL, _row_by_row(subject)),
        Contender(
            "forewarn_chunk", f"Forewarn, 1 asset, chunks of {CHUNK}", CHUNK, _detector(subject, 1, CHUNK)
        ),
        Contender("forewarn_100", "Forewarn, 100 assets a round", 100, _detector(subject, 100, 1)),
        Contender("forewarn_1000", "Forewarn, 1000 assets a round", 1000, _detector(subject, 1000, 1)),
    ]


def _one_by_one(subject: Subject, score: Score) -> Callable[[], object]:
    """Return a call that lets a script score the next sample of one asset, its window full."""
    row = 0

    def call() -> None:
        nonlocal row
        score("pump", subject.values[row % len(subject.values)])
        row += 1

    for _ in range(subject.bundle.manifest.window_length):
        call()
    return call


def _detector(subject: Subject, assets: int, rows: int) -> Callable[[], object]:
    """Return a call that scores the next `rows` samples of each of `assets` assets at once, all of them warm."""
    detector = open_detector(subject.bundle, "step")
    values = subject.values
    asset = np.tile(np.arange(assets), rows)
    place = asset * _APART + np.repeat(np.arange(rows), assets)
    tick = np.repeat(np.arange(rows), assets)
    done = 0

    def call() -> None:
        nonlocal done
        detector.process(Samples(asset, tick + done, values[(place + done) % len(values)]))
        done += rows

    while done <= subject.bundle.manifest.warmup_ticks:
        call()
    return call


def _row_by_row(subject: Subject) -> Callable[[], object]:
    one = _detector(subject, 1, 1)

    def call() -> None:
        for _ in range(_ROWS_A_CALL):
            one()

    return call


def _graph(bundle: Bundle) -> list[Contender]:
    manifest = bundle.manifest
    forecaster = Forecaster(bundle.directory, "step", manifest.state_size)
    rng = np.random.default_rng(0)

    def contender(batch: int) -> Contender:
        inputs = rng.normal(size=(batch, 1, len(manifest.inputs))).astype(np.float32)
        state = np.zeros((batch, manifest.state_size), np.float32)
        turns = max(1, _ROWS_A_CALL // batch)

        def call() -> None:
            for _ in range(turns):
                forecaster.advance(inputs, state)

        return Contender(f"step_{batch}", f"step graph, batch of {batch}", batch * turns, call)

    return [contender(batch) for batch in BATCHES]


def _operations(graph: Path) -> float:
    """Return the floating-point operations of one step: a product and a sum for each cell of each weight matrix."""
    weights = onnx.load(graph).graph.initializer
    return 2.0 * sum(float(np.prod(matrix.dims)) for matrix in weights if len(matrix.dims) == 2)


def _sgemm() -> Contender:
    """Return the yardstick: a product of square float32 matrices, counted in operations."""
    rng = np.random.default_rng(0)
    left, right = (rng.normal(size=(_MATRIX, _MATRIX)).astype(np.float32) for _ in range(2))
    product = np.empty_like(left)
    return Contender("sgemm", "float32 sgemm", 2 * _MATRIX**3, lambda: np.matmul(left, right, out=product))
