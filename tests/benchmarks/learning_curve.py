"""How the forecast gets better as a contender trains: the judge, the clock that it stops, and the memory at most.

This file needs numpy alone, so that a library in an environment of its own is judged by the very same code.
"""

import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float32]
Predict = Callable[[Values], Values]
"""(n, T, F) scaled windows → (n, F) scaled forecasts of the next sample."""
STRIDE = 2048
"""Windows between two judgements: an epoch of `trainer fit`."""
_AT_ONCE = 100


class EnoughError(Exception):
    """The seconds that every contender may spend are over."""


@dataclass(frozen=True)
class Task:
    """What every contender is given, the same for all.

    Attributes:
        fit: (n, F) scaled samples to learn from.
        later: (m, F) those that follow, which judge and which nobody fits weights on.
        window: samples that a forecast reads.
        units: of the LSTM layers.
        batch: windows in a step.
        seconds: that the training may take.
        seed: of the weights and the draws.
        on_gpu: whether a GPU computes; then the seconds are those of the wall, and else of the processor.
    """

    fit: Values
    later: Values
    window: int
    units: tuple[int, ...]
    batch: int
    seconds: float
    seed: int
    on_gpu: bool = False

    @property
    def clock(self) -> str:
        """Return which time of a point counts."""
        return "wall_seconds" if self.on_gpu else "cpu_seconds"

    def save(self, path: Path) -> None:
        """Write it for another process."""
        facts = {"window": self.window, "units": self.units, "batch": self.batch}
        facts |= {"seconds": self.seconds, "seed": self.seed, "on_gpu": self.on_gpu}
        np.savez(path, fit=self.fit, later=self.later, facts=np.array(json.dumps(facts)))

    @staticmethod
    def load(path: Path) -> "Task":
        """Read what `save` wrote."""
        with np.load(path) as stored:
            facts: dict[str, Any] = json.loads(str(stored["facts"]))
            facts["units"] = tuple(facts["units"])
            return Task(stored["fit"], stored["later"], **facts)

    def judged(self, most: int = 500) -> tuple[Values, Values]:
        """Return (n, T, F) windows of the later samples, evenly spaced, and (n, F) the samples after them."""
        starts = np.linspace(0, len(self.later) - self.window - 1, most).astype(np.int64)
        windows = self.later[starts[:, None] + np.arange(self.window)]
        return windows, self.later[starts + self.window]


class Curve:
    """The RMSE on later samples against the time spent; the clock stands still while the judge works.

    Args:
        task: what is learnt.
    """

    def __init__(self, task: Task) -> None:
        self._windows, self._targets = task.judged()
        self._limit, self._clock = task.seconds, task.clock
        self._begun = (time.perf_counter(), time.process_time())
        self._resident = 0.0
        self._epoch = (0.0, 0.0)
        self.points: list[dict[str, float]] = []
        self.epochs: list[dict[str, float]] = []

    def start(self) -> None:
        """Start the clock: imports are done, and nothing has been made of the samples yet."""
        self._resident = _megabytes("VmRSS")
        self._begun = (time.perf_counter(), time.process_time())

    def note(self, windows: int, predict: Predict) -> None:
        """Judge the present weights, which `windows` windows were shown to.

        Raises:
            EnoughError: the time is over.
        """
        stopped = (time.perf_counter(), time.process_time())
        wall, cpu = (now - begun for now, begun in zip(stopped, self._begun, strict=True))
        parts = [predict(self._windows[at : at + _AT_ONCE]) for at in range(0, len(self._windows), _AT_ONCE)]
        error = np.concatenate(parts).astype(np.float64) - self._targets
        rmse = float(np.sqrt(np.mean(error**2)))
        self.points.append({"windows": windows, "wall_seconds": wall, "cpu_seconds": cpu, "rmse": rmse})
        judged = (time.perf_counter() - stopped[0], time.process_time() - stopped[1])
        self._begun = (self._begun[0] + judged[0], self._begun[1] + judged[1])
        if windows and self.points[-1][self._clock] >= self._limit:
            raise EnoughError

    def begin_epoch(self) -> None:
        """Note when an epoch begins."""
        self._epoch = (time.perf_counter() - self._begun[0], time.process_time() - self._begun[1])

    def end_epoch(self, windows: int) -> None:
        """Note that an epoch of so many windows is over; call it before the weights are judged."""
        wall = time.perf_counter() - self._begun[0] - self._epoch[0]
        cpu = time.process_time() - self._begun[1] - self._epoch[1]
        self.epochs.append({"windows": windows, "wall_seconds": wall, "cpu_seconds": cpu})

    def report(self) -> dict[str, Any]:
        """Return points, epochs, and the memory resident when the clock started and at most, in 10^6 bytes."""
        memory = {"start_megabytes": self._resident, "peak_megabytes": _megabytes("VmHWM")}
        return {"points": self.points, "epochs": self.epochs, **memory}


def _megabytes(field: str) -> float:
    found = re.search(rf"^{field}:\s+(\d+) kB$", Path("/proc/self/status").read_text("utf-8"), re.MULTILINE)
    return int(found.group(1)) * 1024 / 1e6 if found else float("nan")
