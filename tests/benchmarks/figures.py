"""What every benchmark shares: a median with its spread, the machine's facts, a line that tells of progress."""

import os
import platform
import re
import shutil
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

LIBRARIES = ("numpy", "onnxruntime", "paho-mqtt", "keras", "tensorflow", "jax", "torch", "river")
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
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "load_average": os.getloadavg()[0],
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{name: _installed(name) for name in LIBRARIES},
        "blas": f"{blas['name']} {blas['version']}",
        "mosquitto": _mosquitto(),
    }


def gpu_name() -> str:
    """Return what the driver calls its GPUs.

    Raises:
        RuntimeError: there is none.
    """
    program = shutil.which("nvidia-smi")
    if program is None:
        raise RuntimeError("no GPU is seen: there is no nvidia-smi")
    command = [program, "--query-gpu=name", "--format=csv,noheader"]
    return ", ".join(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines())


def _mosquitto() -> str:
    """Return the release; a machine that only trains needs none."""
    try:
        command = [find_mosquitto(), "-h"]
    except FileNotFoundError:
        return "not installed"
    found = re.search(
        r"version (\S+)", subprocess.run(command, capture_output=True, text=True, check=False).stdout
    )
    return found.group(1) if found else "unknown"


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
    """One line on standard error, and off a terminal a line for each step; never drawn during a measurement."""

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
        elif note:
            # A run that is cut short has told what it found so far.
            print(f"{self._name}: {self._done} of {self._total} {note}", file=sys.stderr, flush=True)
