"""What one sample costs the detector as assets, sensors, window and width of the model grow."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge_agent.bench.load import Load
from edge_agent.detector import open_detector
from tests.benchmarks.default_bundle import DEFAULT, Shape, make_default_bundle, normal_values
from tests.benchmarks.figures import in_turn, ratio, spread
from trainer.progress import Progress

# The daemon's main loop puts no more together.
_AT_ONCE = 4096
_STREAM_ROWS = 4000

_Call = Callable[[], tuple[int, float]]
"""Scores the next samples → how many, and their CPU seconds."""


@dataclass(frozen=True)
class Case:
    """One model and so many assets; `against` is the key of the case that it is compared with."""

    key: str
    name: str
    shape: Shape
    assets: int
    against: str = "assets_100"


CASES = (
    Case("assets_100", "100 assets", DEFAULT, 100),
    Case("assets_1000", "1 000 assets", DEFAULT, 1000),
    Case("assets_10000", "10 000 assets", DEFAULT, 10_000),
    Case("assets_100000", "100 000 assets", DEFAULT, 100_000),
    Case("sensors_43", "1 000 assets, 43 sensors", Shape(sensors=43), 1000, "assets_1000"),
    Case("sensors_128", "1 000 assets, 128 sensors", Shape(sensors=128), 1000, "assets_1000"),
    Case("window_240", "1 000 assets, window of 240", Shape(window=240), 1000, "assets_1000"),
    Case("units_32_16", "1 000 assets, LSTM 32-16", Shape(units=(32, 16)), 1000, "assets_1000"),
)
QUICK = tuple(case for case in CASES if case.assets <= 1000)


def measure_scaling(
    scratch: Path, rounds: int, seconds: float, progress: Progress, cases: tuple[Case, ...] = CASES
) -> dict[str, Any]:
    """Measure every case once a round, in turn, on this process's CPU clock.

    Args:
        scratch: an empty directory.
        rounds: how often.
        seconds: CPU time of one case in one round, at least.
        progress: told after each measurement.
        cases: what is measured; each is compared with one that is among them.

    Returns:
        `cases`, a record each.
    """
    progress.stage("scaling", len(cases) * (1 + rounds))
    calls = []
    for case in cases:
        calls.append(_warm_call(case, scratch / case.key))
        progress.advance(1, f"{case.name}: warm")
    costs: list[list[float]] = [[] for _ in cases]
    for number in range(rounds):
        for at in in_turn(len(cases), number):
            costs[at].append(_cost(calls[at], seconds))
            progress.advance(1, cases[at].name)
    by_key = {case.key: found for case, found in zip(cases, costs, strict=True)}
    return {
        "rounds": rounds,
        "cases": [
            {
                "key": case.key,
                "name": case.name,
                "microseconds_per_sample": spread(1e6 * one for one in found),
                "against": next(one.name for one in cases if one.key == case.against),
                "ratio": ratio(found, by_key[case.against]),
            }
            for case, found in zip(cases, costs, strict=True)
        ],
    }


def _cost(call: _Call, seconds: float) -> float:
    """Return CPU seconds a sample."""
    samples, spent = 0, 0.0
    while spent < seconds:
        count, used = call()
        samples, spent = samples + count, spent + used
    return spent / samples


def _warm_call(case: Case, directory: Path) -> _Call:
    """Return a call that scores the next samples, one of each asset, as many assets as the daemon puts together."""
    bundle = make_default_bundle(directory, shape=case.shape)
    detector = open_detector(bundle)
    values = normal_values(_STREAM_ROWS, 0, case.shape.sensors)
    load = Load(values, bundle.manifest.sensor_names, bundle.manifest.axis)
    blocks = [
        np.arange(first, min(first + _AT_ONCE, case.assets)) for first in range(0, case.assets, _AT_ONCE)
    ]
    done = 0

    def call() -> tuple[int, float]:
        nonlocal done
        row, turn = divmod(done, len(blocks))
        samples = load.samples(blocks[turn], np.full(len(blocks[turn]), row))
        begun = time.process_time()
        detector.process(samples)
        used = time.process_time() - begun
        done += 1
        return len(samples), used

    while done <= bundle.manifest.warmup_ticks * len(blocks):
        call()
    return call
