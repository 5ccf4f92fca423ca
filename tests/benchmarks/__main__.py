"""Measure and print: `python -m tests.benchmarks [kernel|agent|all] [--rounds N] [--json PATH]`."""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# One thread for everyone; after the libraries' import it would be too late to say so.
os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")
os.environ.update(TF_NUM_INTRAOP_THREADS="1", TF_NUM_INTEROP_THREADS="1")

import numpy as np
from rich.console import Console

from tests.benchmarks import agent, kernel
from tests.benchmarks.default_bundle import make_default_bundle, normal_values, random_weights
from tests.benchmarks.figures import ProgressLine, machine_facts
from tests.benchmarks.plain_script import Predict, onnx_window
from tests.benchmarks.tables import tables
from trainer.model import build_window_model

ROUNDS = 3
_SECONDS = 0.5
_STREAM_ROWS = 20_000


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmarks asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks", description="Side-by-side measurements."
    )
    parser.add_argument("what", nargs="?", choices=("kernel", "agent", "all"), default="all")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"default {ROUNDS}")
    parser.add_argument("--json", type=Path, metavar="PATH", help="also write every figure there")
    options = parser.parse_args(arguments)
    if options.rounds < 1:
        parser.error("--rounds: at least 1 is needed")
    figures = measure(options.what, options.rounds)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    console = Console()
    for table in tables(figures):
        console.print(table)
    return 0


def measure(what: str, rounds: int) -> dict[str, Any]:
    """Return the figures of `kernel`, `agent` or `all`, with the default model (LSTM 128→64→32, 8 sensors)."""
    progress = ProgressLine()
    figures: dict[str, Any] = {"machine": machine_facts()}
    with tempfile.TemporaryDirectory() as directory:
        scratch = Path(directory)
        progress.stage("export the default model", 1)
        bundle = make_default_bundle(scratch / "bundle", window_graph=True)
        values = normal_values(_STREAM_ROWS)
        if what != "agent":
            subject = kernel.Subject(bundle, _proven_keras(bundle.directory), values)
            figures["kernel"] = kernel.measure_kernel(subject, rounds, _SECONDS, progress)
        if what != "kernel":
            figures["agent"] = agent.measure_agent(agent.Subject(bundle, values), scratch, rounds, progress)
    progress.close()
    return figures


def _proven_keras(bundle: Path) -> Predict:
    """Return the model in Keras, once it has given what the bundle's window graph gives."""
    weights = random_weights()
    predict = kernel.keras_predict(build_window_model(weights))
    shape = (1, weights.spec.window_length, weights.spec.inputs)
    window = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    np.testing.assert_allclose(predict(window), onnx_window(bundle)(window), atol=1e-4)
    return predict


if __name__ == "__main__":
    sys.exit(main())
