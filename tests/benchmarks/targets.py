"""The figures to reach, asked for before anything was measured, and where in the stored runs each stands."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.benchmarks.figures import ratio

Runs = dict[str, dict[str, Any]]
"""What each part measured, by the part's name."""


@dataclass(frozen=True)
class Target:
    """One figure with what it must and should be.

    Attributes:
        title: for people.
        part: of the benchmarks.
        place: keys in the part's record; in a list, the `key` or the `assets` of a record.
        must, aim: limits.
        least: whether they are lower limits.
        unit: behind the figure.
        over: place of another figure in the same part, by which it is divided; of those of rounds, round by round.
    """

    title: str
    part: str
    place: tuple[str | int, ...]
    must: float
    aim: float
    least: bool = False
    unit: str = ""
    over: tuple[str | int, ...] = ()

    def value(self, runs: Runs) -> float | None:
        """Return the measured figure, None where it was not measured."""
        run = runs.get(self.part)
        found = None if run is None else _at(run, self.place)
        if found is None:
            return None
        if not self.over:
            return float(found)
        divisor = _at(run, self.over)
        return None if divisor is None else ratio(np.atleast_1d(found), np.atleast_1d(divisor))["median"]

    def reaches(self, value: float, limit: float) -> bool:
        """Return whether a figure keeps a limit."""
        return value >= limit if self.least else value <= limit


def _at(content: Any, place: tuple[str | int, ...]) -> Any:
    for key in place:
        if isinstance(content, list):
            content = next((one for one in content if key in (one.get("key"), one.get("assets"))), None)
        else:
            content = content.get(key)
        if content is None:
            return None
    return content


def _rate(title: str, scenario: str, must: float, aim: float, what: str = "samples") -> Target:
    place = ("throughput", scenario, f"{what}_per_cpu_second", "median")
    return Target(title, "agent", place, must, aim, least=True, unit="/CPU-s")


def _times(title: str, scenario: str, must: float, aim: float) -> Target:
    place, over = ("throughput", "json_100", "rounds"), ("throughput", scenario, "rounds")
    return Target(title, "agent", place, must, aim, least=True, unit="×", over=over)


def _latency(title: str, figure: str, must: float, aim: float) -> Target:
    return Target(title, "latency", ("ways", "default", figure), must, aim, unit="ms")


def _training(title: str, other: str, ours: str, must: float, aim: float) -> Target:
    place, over = ("contenders", other, "rounds"), ("contenders", ours, "rounds")
    return Target(f"training {title}", "training", place, must, aim, least=True, unit="×", over=over)


def _training_memory(title: str, what: str) -> Target:
    place, over = ("contenders", "forewarn", what), ("contenders", "tutorial", what)
    return Target(f"training: {title}", "training", place, 0.1, 0.1, unit="×", over=over)


TARGETS = (
    _rate("samples, 100 assets", "json_100", 120e3, 200e3),
    _rate("samples, 10 000 assets", "json_10000", 120e3, 200e3),
    _rate("readings, a topic per sensor", "sensor_100", 120e3, 300e3, "readings"),
    _rate("samples, packed messages of 100", "packed_100", 250e3, 300e3),
    _rate("samples, one asset alone", "one", 50e3, 100e3),
    _times("against the script on ONNX Runtime", "script_onnx", 40, 80),
    _times("against the script on keras.predict", "script_keras", 4000, 10_000),
    _latency("publish to score at 2 k/s, p50", "publish_to_score_p50_ms", 1, 0.3),
    _latency("publish to score at 2 k/s, p99", "publish_to_score_p99_ms", 10, 3),
    Target("memory, 10 000 assets", "memory", ("assets", 10_000, "resident_megabytes"), 130, 100, unit="MB"),
    Target("memory, one asset", "memory", ("assets", 1, "resident_megabytes"), 90, 75, unit="MB"),
    Target("idle", "agent", ("idle", "core_percent"), 0.5, 0.1, unit="% of a core"),
    Target(
        "100 samples a second", "agent", ("slow", "slow_daemon", "core_percent"), 3, 1, unit="% of a core"
    ),
    Target(
        "100 samples a second, rest_milliseconds = 100", "agent", ("slow", "slow_resting", "core_percent"), 3, 1,
        unit="% of a core",
    ),
    Target(
        "step graph at batch 256, of sgemm", "kernel", ("graph", "step_256", "peak_share", "median"),
        0.75, 0.85, least=True,
    ),
    Target(
        "cost a sample, 100 000 assets over 100", "scaling", ("cases", "assets_100000", "ratio", "median"),
        1.5, 1.1, unit="×",
    ),
    Target(
        "cost a sample, QoS 1 over QoS 0", "agent", ("throughput", "json_100", "rounds"), 2.5, 1.5, unit="×",
        over=("throughput", "qos1_100", "rounds"),
    ),
    _training("as released, against the tutorial", "tutorial", "forewarn", 5, 5),
    _training("the same network, against the tutorial", "tutorial", "forewarn_alone", 5, 5),
    _training("as released, against the library", "library", "forewarn", 1, 1),
    _training("the same network, against the library", "library", "forewarn_alone", 1, 1),
    _training_memory("peak memory, of the tutorial's", "peak_megabytes"),
    _training_memory("peak memory on the long history, of the tutorial's", "long_peak_megabytes"),
)  # fmt: skip


def verdicts(runs: Runs) -> Iterator[tuple[Target, float, str]]:
    """Yield each target that was measured, its figure and what to say of it; a quick run keeps and misses nothing."""
    for target in TARGETS:
        value = target.value(runs)
        if value is None:
            continue
        if runs[target.part]["quick"]:
            yield target, value, "quick"
        elif not target.reaches(value, target.must):
            yield target, value, "**missed**"
        else:
            yield target, value, "aim kept" if target.reaches(value, target.aim) else "kept"
