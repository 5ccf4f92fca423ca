"""The command `trainer benchmark`."""

import argparse
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_agent.contract.errors import UsageError
from trainer.benchmark.slim import slim
from trainer.console import Console

if TYPE_CHECKING:
    # Keras and scikit-learn take seconds to import: not before the options are known to be usable.
    from trainer.benchmark.cases import Contender, Plan, Suite
    from trainer.benchmark.forewarn import ForewarnOptions
    from trainer.benchmark.stress import Stress

SETS = ("skab", "smap", "nab", "plant", "line")
SIMULATED = ("plant", "line")
QUICK_EPOCHS = 2
FORECASTER_SEEDS = 5
LEAST_WEEKS = 1.0
MOST = {"contaminated": 0.5, "missing": 0.9}


def add_benchmark_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command to its parser."""
    parser.add_argument("set", choices=SETS, help="which cases, under their own protocol")
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="holds skab, smap_msl and nab; plant and line need none"
    )
    parser.add_argument("--seeds", type=int, metavar="N", help="default 3, for plant 12")
    parser.add_argument("--jobs", type=int, metavar="N", help="processes (default: one a core)")
    parser.add_argument(
        "--forecaster", choices=("lstm", "ridge"), default="lstm", help="ridge is fast: no LSTM beside it"
    )
    parser.add_argument("--epochs", type=int, default=30, metavar="N", help="at most (default 30)")
    parser.add_argument("--quick", action="store_true", help="a few small cases, one seed, few epochs")
    parser.add_argument(
        "--contaminated",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="of the history's rows are faulty, unlabelled",
    )
    parser.add_argument(
        "--missing", type=float, default=0.0, metavar="SHARE", help="of the test part's cells hold no reading"
    )
    parser.add_argument(
        "--dead",
        type=int,
        default=0,
        metavar="N",
        help="sensors fall silent or freeze early in the test part",
    )
    parser.add_argument(
        "--ablate", action="store_true", help="what each part of the detector is worth, instead of the floors"
    )
    parser.add_argument(
        "--compare-forecasters",
        action="store_true",
        help="the detector on persistence, the ridge, the LSTM alone and both, instead of the floors; plant only",
    )
    parser.add_argument(
        "--weeks", type=float, metavar="N", help="plant: of history, and of test part (default 8, and 10)"
    )
    parser.add_argument(
        "--out", type=Path, metavar="PATH", help="also write the figures, without the cases, as JSON"
    )


def benchmark(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Run a benchmark, show its tables, and return its record.

    Raises:
        UsageError: an option is out of range or missing.
        HistoryError: the data is not there or not what it should be.
    """
    _check(options)
    from trainer.benchmark.forewarn import CONFIGURATIONS, ForewarnOptions
    from trainer.benchmark.line import Line
    from trainer.benchmark.nab import Nab
    from trainer.benchmark.plant import QUICK, Plant, PlantSize
    from trainer.benchmark.skab import Skab
    from trainer.benchmark.smap import Smap
    from trainer.benchmark.stress import Stress

    size = PlantSize(options.weeks, options.weeks) if options.weeks else QUICK if options.quick else None
    suites: dict[str, Suite] = {
        "skab": Skab(),
        "smap": Smap(),
        "nab": Nab(),
        "plant": Plant(size),
        "line": Line(),
    }
    suite = suites[options.set]
    epochs = min(options.epochs, QUICK_EPOCHS) if options.quick else options.epochs
    begun = time.monotonic()
    run = _Run(
        suite,
        suite.plans(options.data, options.quick),
        ForewarnOptions(options.forecaster, epochs, **CONFIGURATIONS.get(suite.name, {})),
        options.seeds
        or (1 if options.quick else FORECASTER_SEEDS if options.compare_forecasters else suite.seeds),
        options.jobs or os.cpu_count() or 1,
        console,
    )
    stress = Stress(options.contaminated, options.missing, options.dead)
    if options.compare_forecasters:
        record = run.compared()
    else:
        record = run.ablated() if options.ablate else run.stressed(stress) if stress else run.judged()
    record |= {
        "forecaster": options.forecaster,
        "epochs": epochs,
        "quick": options.quick,
        "seconds": time.monotonic() - begun,
    }
    for remark in suite.remarks:
        console.say(remark)
    console.say(f"{record['seconds'] / 60.0:.1f} minutes with {run.jobs} processes")
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(slim(record), indent=1) + "\n", encoding="utf-8")
    return record


@dataclass(frozen=True)
class _Run:
    """One run of the command, in one of its four ways; each shows its tables and returns its record."""

    suite: "Suite"
    plans: "list[Plan]"
    settings: "ForewarnOptions"
    seeds: int
    jobs: int
    console: Console

    def judged(self) -> dict[str, Any]:
        """Ours beside the floors."""
        record = self._record(self.plans)
        self._show(record)
        return record

    def stressed(self, stress: "Stress") -> dict[str, Any]:
        """Ours beside the floors, with a stress and without it."""
        from trainer.benchmark.losses import loss_table, with_losses

        clean = self._record(self.plans)
        stressed = self._record([stress.plan(plan) for plan in self.plans])
        record = with_losses(self.suite, stress, stressed, clean)
        self.console.grid(*loss_table(self.suite, record, self._name))
        self._show(record)
        return record

    def ablated(self) -> dict[str, Any]:
        """Ours beside ours without a part."""
        from trainer.benchmark.ablation import ablation_report, ablation_table, variants
        from trainer.benchmark.runner import run_suite

        contenders = variants(self.settings)
        results = run_suite(self.suite, self.plans, contenders, self.seeds, self.jobs, self.console)
        record = ablation_report(self.suite, results, self.seeds)
        self.console.grid(*ablation_table(self.suite, record))
        return record

    def compared(self) -> dict[str, Any]:
        """Ours on each forecaster."""
        from trainer.benchmark.forecasters import contenders, forecasters_report, forecasters_table
        from trainer.benchmark.plant import VARIANTS, Plant
        from trainer.benchmark.runner import run_suite

        assert isinstance(self.suite, Plant)
        # Drift asks how the detector adapts, not how well a plant is forecast.
        plans = [plan for plan in self.plans if plan.name == VARIANTS[0]]
        found = run_suite(self.suite, plans, contenders(self.settings), self.seeds, self.jobs, self.console)
        record = forecasters_report(self.suite, found, self.seeds)
        self.console.grid(*forecasters_table(record))
        return record

    def _record(self, plans: "list[Plan]") -> dict[str, Any]:
        from trainer.benchmark.floors import all_floors
        from trainer.benchmark.forewarn import Forewarn
        from trainer.benchmark.report import report
        from trainer.benchmark.runner import run_suite

        contenders: list[Contender] = [Forewarn(self.settings), *all_floors()]
        results = run_suite(self.suite, plans, contenders, self.seeds, self.jobs, self.console)
        return report(self.suite, results, self.seeds)

    def _show(self, record: dict[str, Any]) -> None:
        from trainer.benchmark.report import tables

        for header, rows in tables(self.suite, record, self._name):
            self.console.grid(header, rows)

    @property
    def _name(self) -> str:
        return f"forewarn ({self.settings.forecaster})"


def _check(options: argparse.Namespace) -> None:
    for name in ("seeds", "jobs"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise UsageError(f"--{name}: is {value}, at least 1 is needed")
    for name in ("epochs", "dead"):
        if getattr(options, name) < 0:
            raise UsageError(f"--{name}: is {getattr(options, name)}, at least 0 is needed")
    for name, most in MOST.items():
        if not 0.0 <= getattr(options, name) <= most:
            raise UsageError(f"--{name}: is {getattr(options, name):g}, must be a share from 0 to {most:g}")
    _check_forecasters(options)
    if options.ablate and (options.contaminated or options.missing or options.dead):
        raise UsageError("--ablate: goes with no --contaminated, --missing or --dead")
    if options.data is None and options.set not in SIMULATED:
        raise UsageError(f"benchmark {options.set}: --data is missing, the folder with the public data")


def _check_forecasters(options: argparse.Namespace) -> None:
    if options.weeks is not None and not (options.weeks >= LEAST_WEEKS and options.set == "plant"):
        raise UsageError(f"--weeks: is for plant, and at least {LEAST_WEEKS:g}")
    if not options.compare_forecasters:
        return
    if options.set != "plant":
        raise UsageError("--compare-forecasters: is for plant")
    if (
        options.ablate
        or options.contaminated
        or options.missing
        or options.dead
        or options.forecaster != "lstm"
    ):
        raise UsageError(
            "--compare-forecasters: goes with no --ablate, --contaminated, --missing, --dead or --forecaster"
        )
