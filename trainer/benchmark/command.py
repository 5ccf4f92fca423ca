"""The command `trainer benchmark`."""

import argparse
import os
import time
from pathlib import Path
from typing import Any

from edge_agent.contract.errors import UsageError
from trainer.console import Console

SETS = ("skab", "smap", "nab", "plant")
QUICK_EPOCHS = 2


def add_benchmark_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command to its parser."""
    parser.add_argument("set", choices=SETS, help="which cases, under their own protocol")
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="holds skab, smap_msl and nab; plant needs none"
    )
    parser.add_argument("--seeds", type=int, metavar="N", help="default 3, for plant 12")
    parser.add_argument("--jobs", type=int, metavar="N", help="processes (default: one a core)")
    parser.add_argument(
        "--forecaster", choices=("lstm", "ridge"), default="lstm", help="ridge is fast: no LSTM beside it"
    )
    parser.add_argument("--epochs", type=int, default=30, metavar="N", help="at most (default 30)")
    parser.add_argument("--quick", action="store_true", help="a few small cases, one seed, few epochs")


def benchmark(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Run a benchmark, show its table, and return its record.

    Raises:
        UsageError: an option is out of range or missing.
        HistoryError: the data is not there or not what it should be.
    """
    _check(options)
    # Keras and scikit-learn take seconds to import: not before the options are known to be usable.
    from trainer.benchmark.cases import Contender, Suite
    from trainer.benchmark.floors import all_floors
    from trainer.benchmark.forewarn import CONFIGURATIONS, Forewarn, ForewarnOptions
    from trainer.benchmark.nab import Nab
    from trainer.benchmark.plant import Plant
    from trainer.benchmark.report import report, tables
    from trainer.benchmark.runner import run_suite
    from trainer.benchmark.skab import Skab
    from trainer.benchmark.smap import Smap

    suites: dict[str, Suite] = {"skab": Skab(), "smap": Smap(), "nab": Nab(), "plant": Plant()}
    suite = suites[options.set]
    plans = suite.plans(options.data, options.quick)
    epochs = min(options.epochs, QUICK_EPOCHS) if options.quick else options.epochs
    settings = ForewarnOptions(options.forecaster, epochs, **CONFIGURATIONS.get(suite.name, {}))
    contenders: list[Contender] = [Forewarn(settings), *all_floors()]
    seeds = options.seeds or (1 if options.quick else suite.seeds)
    begun = time.monotonic()
    results = run_suite(suite, plans, contenders, seeds, options.jobs or os.cpu_count() or 1, console)
    record = report(suite, results, seeds)
    record |= {
        "forecaster": options.forecaster,
        "epochs": epochs,
        "quick": options.quick,
        "seconds": time.monotonic() - begun,
    }
    for header, rows in tables(suite, record, f"{contenders[0].name} ({options.forecaster})"):
        console.grid(header, rows)
    for remark in suite.remarks:
        console.say(remark)
    return record


def _check(options: argparse.Namespace) -> None:
    for name in ("seeds", "jobs"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise UsageError(f"--{name}: is {value}, at least 1 is needed")
    if options.epochs < 0:
        raise UsageError(f"--epochs: is {options.epochs}, at least 0 is needed")
    if options.data is None and options.set != "plant":
        raise UsageError(f"benchmark {options.set}: --data is missing, the folder with the public data")
