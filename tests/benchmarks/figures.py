"""What every benchmark shares: a median with its spread, the machine's facts, a line that tells of progress."""

import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from tests.broker import find_mosquitto
from trainer.progress import Progress

LIBRARIES = ("numpy", "onnxruntime", "paho-mqtt", "keras", "tensorflow", "river")
_CLEAR_LINE = "\r\x1b[K"


def spread(values: Iterable[float]) -> dict[str, float]:
    """Return median, least and most of measurements that mean the same."""
    measured = np.array(list(values), np.float64)
    return {
        "median": float(np.median(measured)),
        "least": float(measured.min()),
        "most": float(measured.max()),
    }


def ratio(values: ArrayLike, first: ArrayLike) -> dict[str, float]:
    """Return the spread over the rounds of value over first of the same round, which shared the machine's mood."""
    return spread(np.asarray(values) / np.asarray(first))


def in_turn(count: int, number: int) -> list[int]:
    """Return the order of `count` contenders in a round: every other round backwards, so that none is always first."""
    order = list(range(count))
    return order[::-1] if number % 2 else order


def machine_facts() -> dict[str, Any]:
    """Return what the figures depend on beside the code."""
    greeting = subprocess.run([find_mosquitto(), "-h"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"version (\S+)", greeting)
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "load_average": os.getloadavg()[0],
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{name: _installed(name) for name in LIBRARIES},
        "blas": f"{blas['name']} {blas['version']}",
        "mosquitto": found.group(1) if found else "unknown",
    }


def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    facts = dict(re.findall(r"^([\w ]+?)\s*: (.*)$", lines, re.MULTILINE))
    # A hypervisor may hide the model's name; family and number still tell the generation.
    return (
        f"{facts.get('model name', platform.machine())} "
        f"(family {facts.get('cpu family', '?')}, model {facts.get('model', '?')})"
    )


class ProgressLine(Progress):
    """One line on standard error, on a terminal only; it is drawn between measurements and never during one."""

    def __init__(self) -> None:
        self._shown = sys.stderr.isatty()
        self._name, self._total, self._done = "", 0, 0

    def stage(self, name: str, total: int) -> None:
        """Begin a stage of `total` steps."""
        self._name, self._total, self._done = name, total, 0
        self._draw("")

    def advance(self, steps: int = 1, note: str = "") -> None:
        """Note that steps of the stage are done."""
        self._done += steps
        self._draw(note)

    def close(self) -> None:
        """Take the line away."""
        if self._shown:
            print(_CLEAR_LINE, end="", file=sys.stderr, flush=True)

    def _draw(self, note: str) -> None:
        if self._shown:
            text = f"{_CLEAR_LINE}{self._name}: {self._done} of {self._total} {note}"
            print(text, end="", file=sys.stderr, flush=True)
