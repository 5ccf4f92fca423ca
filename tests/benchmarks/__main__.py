"""Measure and print: `python -m tests.benchmarks [PART …|all] [--quick] [--out DIR]`."""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

# One thread for everyone; after the libraries' import it would be too late to say so.
os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")
os.environ.update(TF_NUM_INTRAOP_THREADS="1", TF_NUM_INTEROP_THREADS="1", TF_CPP_MIN_LOG_LEVEL="3")

import numpy as np
from rich.console import Console

from edge_agent.version import VERSION
from tests.benchmarks import agent, kernel, latency, memory, scaling, training
from tests.benchmarks.default_bundle import make_default_bundle, normal_values, random_weights
from tests.benchmarks.figures import ProgressLine, machine_facts
from tests.benchmarks.plain_script import HalfSpaces, Score, keras_predict, onnx_window, xla_function
from tests.benchmarks.site import Subject
from tests.benchmarks.speed_tables import GPU_PART, PARTS
from tests.benchmarks.tables import machine_page, part_pages, targets_page
from trainer.network import build_window_model

ROUNDS = 3
_SECONDS = 0.5
_STREAM_ROWS = 20_000
_WIDTH = 140


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmarks asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks", description="Side-by-side measurements."
    )
    parser.add_argument(
        "what", nargs="*", choices=(*PARTS, GPU_PART, "all"), default="all", help="default all"
    )
    parser.add_argument("--quick", action="store_true", help="few rounds of little, and not the largest")
    parser.add_argument("--rounds", type=int, help=f"default {ROUNDS}, with --quick 1")
    parser.add_argument("--json", type=Path, metavar="PATH", help="also write every figure there")
    parser.add_argument("--out", type=Path, metavar="DIR", help="also write a file for each part there")
    options = parser.parse_args(arguments)
    rounds = options.rounds if options.rounds is not None else 1 if options.quick else ROUNDS
    if rounds < 1:
        parser.error("--rounds: at least 1 is needed")
    runs = measure(PARTS if "all" in options.what else options.what, rounds, options.quick)
    if options.json:
        options.json.write_text(json.dumps(runs, indent=1) + "\n", encoding="utf-8")
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        for part, run in runs.items():
            text = json.dumps(run, indent=1) + "\n"
            (options.out / f"{part}.json").write_text(text, encoding="utf-8")
    console = Console(width=None if sys.stdout.isatty() else _WIDTH)
    console.print(machine_page(machine_facts()).rich())
    for part, run in runs.items():
        for page in part_pages(part, run):
            console.print(page.rich())
    if (targets := targets_page(runs)).rows:
        console.print(targets.rich())
    return 0


def measure(parts: Sequence[str], rounds: int, quick: bool) -> dict[str, dict[str, Any]]:
    """Return the figures of each part, with the default model (LSTM 128→64→32, 8 sensors)."""
    progress = ProgressLine()
    runs: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as directory:
        scratch = Path(directory)
        subject = _Default(scratch / "bundle", progress)
        every: dict[str, Callable[[Path], dict[str, Any]]] = {
            "kernel": lambda _place: kernel.measure_kernel(
                _kernel_subject(subject.made), rounds, _SECONDS, progress
            ),
            "agent": lambda place: agent.measure_agent(
                subject.made, place, rounds, progress, length=agent.QUICK if quick else agent.Length()
            ),
            "latency": lambda place: latency.measure_latency(
                subject.made, place, rounds, progress, latency.QUICK if quick else latency.Steady()
            ),
            "memory": lambda place: memory.measure_memory(
                subject.made, place, progress, memory.QUICK if quick else memory.ASSETS
            ),
            "scaling": lambda place: scaling.measure_scaling(
                place, rounds, _SECONDS, progress, scaling.QUICK if quick else scaling.CASES
            ),
            "training": lambda place: training.measure_training(
                place, rounds, progress, training.QUICK if quick else training.Length()
            ),
            GPU_PART: lambda place: training.measure_training(
                place, rounds, progress, training.QUICK if quick else training.GPU, on_gpu=True
            ),
        }
        for part in parts:
            begun = time.monotonic()
            machine = machine_facts()
            (place := scratch / part).mkdir()
            runs[part] = {
                "machine": machine, "version": VERSION, "quick": quick, "rounds": 1, **every[part](place),
                "seconds": time.monotonic() - begun,
            }  # fmt: skip
    progress.close()
    return runs


class _Default:
    """The default model, exported once it is asked for: training needs none."""

    def __init__(self, directory: Path, progress: ProgressLine) -> None:
        self._directory, self._progress = directory, progress

    @cached_property
    def made(self) -> Subject:
        """Return model and readings."""
        self._progress.stage("export the default model", 1)
        bundle = make_default_bundle(self._directory, window_graph=True)
        return Subject(bundle, random_weights(), normal_values(_STREAM_ROWS))


def _kernel_subject(subject: Subject) -> kernel.Subject:
    """Return the model in Keras as well, once it gives what the bundle's window graph gives."""
    model = build_window_model(subject.weights)
    predictors = {
        ("script_keras", "script on keras.predict"): keras_predict(model),
        ("script_xla", "script on an XLA tf.function"): xla_function(model),
    }
    spec = subject.weights.spec
    window = np.random.default_rng(0).normal(size=(1, spec.window_length, spec.inputs)).astype(np.float32)
    expected = onnx_window(subject.bundle.directory)(window)
    for predict in predictors.values():
        np.testing.assert_allclose(predict(window), expected, atol=1e-4)
    neighbours: dict[tuple[str, str], Score] = {
        ("river", "River HalfSpaceTrees"): HalfSpaces(subject.bundle.manifest).warns
    }
    return kernel.Subject(subject.bundle, predictors, neighbours, subject.values)


if __name__ == "__main__":
    sys.exit(main())
