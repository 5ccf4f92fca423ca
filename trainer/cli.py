"""The command line of the trainer."""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from edge_agent.contract.errors import ForewarnError, HistoryError, UsageError
from edge_agent.contract.labels import read_labels
from edge_agent.history import add_history_options, history_format, read_history, sensor_notices
from edge_agent.version import VERSION
from trainer.benchmark.command import add_benchmark_options, benchmark
from trainer.cleaning import Cleaned, clean
from trainer.confidence import rate_interval
from trainer.console import Console
from trainer.crossval_command import add_crossval_options, check_crossval_options, crossval_command
from trainer.data_options import DATA_FLAGS, add_data_options
from trainer.explain_command import add_explain_options, check_explain_options, explain_command
from trainer.fit_options import ADAPTATIONS, FitOptions, broken_rule, check_out, read_options
from trainer.inspect_command import add_inspect_options, inspect_command, say_warnings
from trainer.inspection import inspect
from trainer.labels import apply_labels
from trainer.model_options import (
    INFERENCE,
    MODEL_FLAGS,
    add_model_options,
    check_together,
    model_notices,
    parse_model_flags,
    split_numbers,
)
from trainer.recalibrate_command import add_recalibrate_options, recalibrate_command
from trainer.report_command import add_report_options, check_report_options, report_command
from trainer.tune_command import add_tune_options, check_tune_options, tune_command

_EPILOG = """examples:
  trainer simulate --out history.csv --hours 8
  trainer inspect --history history.csv
  trainer fit --history history.csv --out bundle --ignore-column fault
  trainer evaluate --bundle bundle --history later.csv --label-column label --json
  trainer recalibrate --bundle bundle --history later.csv --what-if
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0, 1 (failed), 2 (usage) or 78 (configuration)."""
    options = _parser().parse_args(arguments)
    console = Console(as_json=getattr(options, "json", False))
    try:
        with console:
            result: dict[str, Any] = options.command(options, console)
        if options.json:
            print(json.dumps(result, allow_nan=False), flush=True)
    except ForewarnError as error:
        print(f"trainer: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("trainer: interrupted; nothing was written", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # The reader of our output went away, as `head` does; that is no failure of ours.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        print(f"trainer: {error.filename or 'system'}: {error.strerror or error}", file=sys.stderr)
        return 1
    return 0


class OneLineParser(argparse.ArgumentParser):
    """Says a usage error in one line; the usage itself is what `--help` is for."""

    def error(self, message: str) -> NoReturn:
        """Print the line and exit with 2."""
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def _parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog="trainer",
        description="Sensor history in, bundle out.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"forewarn {VERSION}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_inspect(commands)
    _add_fit(commands)
    _add_crossval(commands)
    _add_tune(commands)
    _add_evaluate(commands)
    _add_explain(commands)
    _add_report(commands)
    _add_recalibrate(commands)
    _add_simulate(commands)
    _add_benchmark(commands)
    return parser


def _command(commands: Any, name: str, about: str, example: str, run: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=about,
        description=about,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.set_defaults(command=run)
    return parser


def _read(
    options: argparse.Namespace, console: Console, interval: float | None, phase: float | None = None
) -> tuple[Cleaned, str]:
    history = read_history(options.history, history_format(options))
    cleaned = clean(history, interval, phase)
    for notice in (*history.notices, *(n for n in cleaned.notices if n not in history.notices)):
        console.note(notice)
    return cleaned, history.source


def _add_plots(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--plots", type=Path, metavar="DIR", help="draw what was found as PNG files")


def _add_fit(commands: Any) -> None:
    parser = _command(
        commands,
        "fit",
        "Fit a forecaster on normal history and write its bundle.",
        "trainer fit --history history.csv --out bundle --epochs 20",
        _fit,
    )
    add_history_options(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the bundle")
    parser.add_argument("--config", type=Path, metavar="TOML", help="keys as the options below, under [fit]")
    defaults = FitOptions()
    parser.add_argument("--name", help=f"of the bundle (default {defaults.name})")
    parser.add_argument("--interval", type=float, metavar="SECONDS", help="sampling interval")
    parser.add_argument("--window", type=int, dest="window_length", metavar="TICKS", help="default 60")
    parser.add_argument("--units", metavar="N,N", help="units of the LSTM layers (default 128,64,32)")
    parser.add_argument("--epochs", type=int, metavar="N", help=f"at most (default {defaults.epochs})")
    parser.add_argument("--seed", type=int, metavar="N")
    parser.add_argument(
        "--alarms-per-week",
        type=float,
        metavar="X",
        help=f"alarm budget (default {defaults.alarms_per_week:g})",
    )
    parser.add_argument(
        "--inference", choices=INFERENCE, help="mode it is calibrated for (default auto: step)"
    )
    parser.add_argument(
        "--adaptation",
        choices=ADAPTATIONS,
        help="what is usual of late: the history's, that of recent rows, or also of those in an alarm",
    )
    parser.add_argument("--usual-days", type=float, metavar="DAYS", help="how far back that is (default 14)")
    parser.add_argument(
        "--off-when", metavar="CONDITION", help='the machine is off, and has no score: "speed_rpm<100"'
    )
    parser.add_argument(
        "--settle-ticks", type=int, metavar="N", help="samples without a score after a start (default 0)"
    )
    parser.add_argument("--labels", metavar="CSV", help="what operators marked: edge-agent feedback export")
    add_data_options(parser)
    add_model_options(parser.add_argument_group("network"))
    parser.add_argument(
        "--tensorboard",
        type=Path,
        metavar="DIR",
        help="also write logs of the training that TensorBoard reads",
    )
    _add_plots(parser)


_FIT_FLAGS = {
    **MODEL_FLAGS,
    "name": "--name",
    "window_length": "--window",
    "units": "--units",
    "epochs": "--epochs",
    "seed": "--seed",
    "alarms_per_week": "--alarms-per-week",
    "inference": "--inference",
    "adaptation": "--adaptation",
    "usual_days": "--usual-days",
    "off_when": "--off-when",
    "settle_ticks": "--settle-ticks",
    "labels": "--labels",
    **DATA_FLAGS,
}


def _fit_options(options: argparse.Namespace) -> FitOptions:
    """Return what was configured, overridden by what the options say."""
    configured = read_options(options.config) if options.config else {}
    flags = {key: getattr(options, key, None) for key in _FIT_FLAGS}
    given = {key: value for key, value in flags.items() if value is not None}
    if "units" in given:
        given["units"] = split_numbers("--units", given["units"], int, "whole numbers")
    parse_model_flags(given)
    given |= {key: tuple(value) for key, value in given.items() if isinstance(value, list)}
    for key, value in given.items():
        rule = broken_rule(key, value)
        if rule:
            raise UsageError(f"{_FIT_FLAGS[key]}: {rule}")
    wanted = replace(FitOptions(), **configured | given)
    check_together(wanted)
    return wanted


def _fit(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    wanted = _fit_options(options)
    check_out(options.out)
    if options.plots:
        from trainer.plots import plot_fit, prepare_directory

        prepare_directory(options.plots)
    # A bad file of labels is told before the history is read, which may take long.
    intervals = read_labels(Path(wanted.labels)) if wanted.labels else ()
    cleaned, source = _read(options, console, options.interval)
    labelled = apply_labels(cleaned, intervals, wanted.labels or "")
    cleaned = labelled.cleaned
    for notice in (*labelled.notices, *model_notices(wanted)):
        console.note(notice)
    data = inspect(cleaned)
    say_warnings(data, console)
    # Imported late: TensorFlow takes ten seconds that a bad file need not wait.
    from trainer.fit import fit

    try:
        report = fit(cleaned, options.out, wanted, console, options.tensorboard)
    except HistoryError as error:
        raise HistoryError(f"{source}: {error}") from error
    console.fit_table(cleaned, report, options.out)
    if wanted.labels:
        left_out, shown = labelled.true_fault_rows, labelled.false_alarm_rows
        console.say(
            f"{wanted.labels}: {left_out} rows of true faults left out, {shown} of false alarms are normal"
        )
    manifest = report.bundle.manifest
    if options.plots:
        console.pictures(plot_fit(options.plots, report.held, manifest))
    return {
        "bundle": str(options.out),
        "sha256": report.bundle.sha256,
        "rows": cleaned.rows,
        "repairs": cleaned.repairs,
        "warnings": data.all_warnings,
        "true_fault_rows": labelled.true_fault_rows,
        "false_alarm_rows": labelled.false_alarm_rows,
        **report.skill,
        "epochs": report.epochs,
        "best_epoch": report.best_epoch,
        "parity": manifest.parity,
        "sizes": manifest.sizes,
        "threshold": manifest.threshold.value,
        "score_basis": manifest.threshold.basis,
        "alarms_per_week": manifest.threshold.alarms_per_week,
        "supported_alarms_per_week": manifest.threshold.supported_alarms_per_week,
        **rate_interval(manifest.threshold).record(),
        "trimmed_rows": manifest.trained["trimmed_samples"],
    }


def _add_model_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `fit` that a forecast depends on; all others come with --config."""
    parser.add_argument("--config", type=Path, metavar="TOML", help="as for fit, under [fit]")
    parser.add_argument("--interval", type=float, metavar="SECONDS", help="sampling interval")
    parser.add_argument("--window", type=int, dest="window_length", metavar="TICKS", help="default 60")
    parser.add_argument("--units", metavar="N,N", help="units of the LSTM layers (default 128,64,32)")
    parser.add_argument("--epochs", type=int, metavar="N", help=f"at most (default {FitOptions().epochs})")
    parser.add_argument("--seed", type=int, metavar="N")
    add_data_options(parser)


def _add_crossval(commands: Any) -> None:
    parser = _command(
        commands,
        "crossval",
        "Walk-forward cross-validation of the forecast, against persistence, a season ago and the ridge regression.",
        "trainer crossval --history history.csv --folds 5 --epochs 10",
        _crossval,
    )
    add_history_options(parser)
    _add_model_options(parser)
    add_crossval_options(parser)
    _add_plots(parser)


def _crossval(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    check_crossval_options(options)
    wanted = _fit_options(options)
    if options.plots:
        from trainer.plots import prepare_directory

        prepare_directory(options.plots)
    cleaned, source = _read(options, console, options.interval)
    return crossval_command(options, wanted, cleaned, source, console)


def _add_tune(commands: Any) -> None:
    parser = _command(
        commands,
        "tune",
        "Search for better options of fit, judged by detection of injected faults and by the forecast.",
        "trainer tune --history history.csv --trials 30 --out best.toml",
        _tune,
    )
    add_history_options(parser)
    _add_model_options(parser)
    add_tune_options(parser)


def _tune(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    wanted = _fit_options(options)
    space = check_tune_options(options)
    cleaned, source = _read(options, console, options.interval)
    return tune_command(options, wanted, space, cleaned, source, console)


def _add_inspect(commands: Any) -> None:
    parser = _command(
        commands,
        "inspect",
        "What a history is like: gaps, frozen stretches, ranges, correlations, warnings.",
        "trainer inspect --history history.csv",
        inspect_command,
    )
    add_inspect_options(parser)


def _add_evaluate(commands: Any) -> None:
    parser = _command(
        commands,
        "evaluate",
        "Forecast skill on a history; with labels, detection quality.",
        "trainer evaluate --bundle bundle --history later.csv --label-column label --scores scores.csv",
        _evaluate,
    )
    add_history_options(parser)
    parser.add_argument("--bundle", type=Path, required=True, metavar="DIR")
    parser.add_argument("--inference", choices=("step", "window"), help="default: as calibrated")
    parser.add_argument("--scores", type=Path, metavar="PATH", help="write time, asset, score, alarm as CSV")
    _add_plots(parser)


def _evaluate(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    from edge_agent.detector import load_detector
    from trainer.evaluate import evaluate, write_scores

    if options.plots:
        from trainer.plots import plot_evaluation, prepare_directory

        prepare_directory(options.plots)
    detector = load_detector(options.bundle, options.inference)
    manifest = detector.bundle.manifest
    cleaned, source = _read(options, console, manifest.sampling_interval_seconds, manifest.phase_seconds)
    console.stage("scoring", sum(len(series.ticks) for series in cleaned.series))
    for notice in sensor_notices(source, cleaned.sensors, manifest.sensor_names):
        console.note(notice)
    found = evaluate(detector, cleaned, source, console.advance)
    if options.label_column and found.labels is None:
        raise HistoryError(f"{source}: --label-column {options.label_column}: no labels were read")
    if options.scores:
        write_scores(found, options.scores)
    if options.plots:
        console.pictures(plot_evaluation(options.plots, found, manifest))
    figures = found.figures(manifest)
    if not figures["scored"]:
        console.note(
            f"{source}: no sample was scored, a score needs {manifest.warmup_ticks} samples before it"
        )
    console.figures_table(figures)
    if cleaned.repairs:
        counted = ", ".join(f"{count} × {kind}" for kind, count in cleaned.repairs.items())
        console.note(f"{source}: repaired: {counted}")
    return {**figures, "repairs": cleaned.repairs}


def _add_explain(commands: Any) -> None:
    parser = _command(
        commands,
        "explain",
        "Which sensors and which lags made a score and a forecast what they are.",
        "trainer explain --bundle bundle --history later.csv --at 2026-01-01T02:10:00Z",
        _explain,
    )
    add_history_options(parser)
    parser.add_argument("--bundle", type=Path, required=True, metavar="DIR")
    add_explain_options(parser)
    _add_plots(parser)


def _explain(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    from edge_agent.detector import load_detector

    check_explain_options(options)
    if options.plots:
        from trainer.plots import prepare_directory

        prepare_directory(options.plots)
    detector = load_detector(options.bundle)
    manifest = detector.bundle.manifest
    cleaned, source = _read(options, console, manifest.sampling_interval_seconds, manifest.phase_seconds)
    return explain_command(options, detector, cleaned, source, console)


def _add_report(commands: Any) -> None:
    parser = _command(
        commands,
        "report",
        "One page of HTML on a bundle and a history: forecast, scores, alarms, attribution, data quality.",
        "trainer report --bundle bundle --history later.csv --label-column label --out report.html",
        _report,
    )
    add_history_options(parser)
    parser.add_argument("--bundle", type=Path, required=True, metavar="DIR")
    add_report_options(parser)


def _report(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    from edge_agent.detector import load_detector

    check_report_options(options)
    detector = load_detector(options.bundle)
    manifest = detector.bundle.manifest
    cleaned, source = _read(options, console, manifest.sampling_interval_seconds, manifest.phase_seconds)
    notices = (*cleaned.notices, *sensor_notices(source, cleaned.sensors, manifest.sensor_names))
    return report_command(options, detector, cleaned, source, notices, console)


def _add_recalibrate(commands: Any) -> None:
    parser = _command(
        commands,
        "recalibrate",
        "New thresholds for a bundle from new normal history, without training.",
        "trainer recalibrate --bundle bundle --history later.csv --out bundle-2 --alarms-per-week 0.5",
        recalibrate_command,
    )
    add_recalibrate_options(parser)


def _add_simulate(commands: Any) -> None:
    parser = _command(
        commands,
        "simulate",
        "Simulate a pump loop, with labelled faults if asked for.",
        "trainer simulate --out faulty.csv --hours 4 --faults bearing_wear@7200+1800,spikes@12000+600",
        _simulate,
    )
    parser.add_argument("--out", type=Path, required=True, metavar="PATH", help="CSV")
    parser.add_argument("--hours", type=float, default=8.0, help="default 8")
    parser.add_argument("--interval", type=float, default=1.0, metavar="SECONDS", help="default 1")
    parser.add_argument("--seed", type=int, default=0, help="default 0")
    parser.add_argument("--start", type=float, metavar="EPOCH", help="seconds since 1970")
    parser.add_argument("--asset", metavar="ID", help="adds a column of assets")
    parser.add_argument("--faults", default="", help="KIND[/SENSOR]@START+DURATION[:SEVERITY],… in seconds")


def _simulate(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    from trainer.simulate import DEFAULT_START, parse_faults, simulate, write_simulation

    faults = parse_faults(options.faults) if options.faults else []
    start = DEFAULT_START if options.start is None else options.start
    simulation = simulate(options.hours, options.seed, options.interval, faults, start)
    write_simulation(simulation, options.out, options.asset)
    rows = len(simulation.time)
    console.say(f"{options.out}: {rows} rows of {len(simulation.sensors)} sensors, {len(faults)} faults")
    return {
        "out": str(options.out),
        "rows": rows,
        "sensors": list(simulation.sensors),
        "faults": len(faults),
        "labelled_rows": int(simulation.label.sum()),
    }


def _add_benchmark(commands: Any) -> None:
    parser = _command(
        commands,
        "benchmark",
        "The detector on public data or on simulated plants, beside published results and simple contenders.",
        "trainer benchmark skab --data DIR --forecaster ridge",
        benchmark,
    )
    add_benchmark_options(parser)


if __name__ == "__main__":
    sys.exit(main())
