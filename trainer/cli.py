"""The command line of the trainer."""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from edge_agent.contract.errors import ForewarnError
from edge_agent.history import add_history_options, sensor_notices
from edge_agent.version import VERSION
from trainer.benchmark.command import add_benchmark_options, benchmark
from trainer.command_input import add_plots, read_cleaned, read_marked
from trainer.console import Console
from trainer.crossval_command import add_crossval_options, check_crossval_options, crossval_command
from trainer.evaluate_command import add_evaluate_options, evaluate_command
from trainer.explain_command import add_explain_options, check_explain_options, explain_command
from trainer.fit_command import add_fit_options, add_forecast_options, chosen_options, fit_command
from trainer.inspect_command import add_inspect_options, inspect_command
from trainer.recalibrate_command import add_recalibrate_options, recalibrate_command
from trainer.report_command import add_report_options, check_report_options, report_command
from trainer.simulate_command import add_simulate_options, simulate_command
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


def _add_fit(commands: Any) -> None:
    parser = _command(
        commands,
        "fit",
        "Fit a forecaster on normal history and write its bundle.",
        "trainer fit --history history.csv --out bundle --epochs 20",
        fit_command,
    )
    add_fit_options(parser)


def _add_crossval(commands: Any) -> None:
    parser = _command(
        commands,
        "crossval",
        "Walk-forward cross-validation of the forecast, against persistence, a season ago and the ridge regression.",
        "trainer crossval --history history.csv --folds 5 --epochs 10",
        _crossval,
    )
    add_history_options(parser)
    add_forecast_options(parser)
    add_crossval_options(parser)
    add_plots(parser)


def _crossval(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    check_crossval_options(options)
    wanted = chosen_options(options)
    if options.plots:
        from trainer.plots import prepare_directory

        prepare_directory(options.plots)
    labelled, source = read_marked(options, console, wanted)
    return crossval_command(options, wanted, labelled.cleaned, source, console)


def _add_tune(commands: Any) -> None:
    parser = _command(
        commands,
        "tune",
        "Search for better options of fit, judged by detection of injected faults and by the forecast.",
        "trainer tune --history history.csv --trials 30 --out best.toml",
        _tune,
    )
    add_history_options(parser)
    add_forecast_options(parser)
    add_tune_options(parser)


def _tune(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    wanted = chosen_options(options)
    space = check_tune_options(options)
    labelled, source = read_marked(options, console, wanted)
    return tune_command(options, wanted, space, labelled.cleaned, source, console)


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
        evaluate_command,
    )
    add_evaluate_options(parser)


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
    add_plots(parser)


def _explain(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    from edge_agent.detector import load_detector

    check_explain_options(options)
    if options.plots:
        from trainer.plots import prepare_directory

        prepare_directory(options.plots)
    detector = load_detector(options.bundle)
    manifest = detector.bundle.manifest
    cleaned, source = read_cleaned(
        options, console, manifest.sampling_interval_seconds, manifest.phase_seconds
    )
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
    cleaned, source = read_cleaned(
        options, console, manifest.sampling_interval_seconds, manifest.phase_seconds
    )
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
        simulate_command,
    )
    add_simulate_options(parser)


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
