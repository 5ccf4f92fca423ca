"""The command line of the trainer."""

import argparse
import json
import os
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from edge_agent.contract.errors import ConfigurationError, ForewarnError, HistoryError, UsageError
from edge_agent.history import add_history_options, history_format, read_history
from edge_agent.version import VERSION
from trainer.cleaning import Cleaned, clean
from trainer.console import Console
from trainer.fit_options import FitOptions

_EPILOG = """examples:
  trainer simulate --out history.csv --hours 8
  trainer fit --history history.csv --out bundle --ignore-column fault
  trainer evaluate --bundle bundle --history later.csv --label-column label --json
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0, 1 (failed), 2 (usage) or 78 (configuration)."""
    options = _parser().parse_args(arguments)
    console = Console(as_json=getattr(options, "json", False))
    try:
        with console:
            result: dict[str, Any] = options.command(options, console)
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
    if options.json:
        print(json.dumps(result, allow_nan=False))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="trainer",
        description="Sensor history in, bundle out.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"forewarn {VERSION}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_fit(commands)
    _add_evaluate(commands)
    _add_simulate(commands)
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


def _read(options: argparse.Namespace, console: Console, interval: float | None) -> tuple[Cleaned, str]:
    history = read_history(options.history, history_format(options))
    cleaned = clean(history, interval)
    for notice in (*history.notices, *(n for n in cleaned.notices if n not in history.notices)):
        console.note(notice)
    return cleaned, history.source


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
    parser.add_argument("--inference", choices=("step", "window"), help="mode it is calibrated for")


_FIT_KEYS = ("name", "window_length", "units", "epochs", "seed", "alarms_per_week", "inference")


def _fit_options(options: argparse.Namespace) -> FitOptions:
    given = _configured(options.config) if options.config else {}
    given |= {key: getattr(options, key) for key in _FIT_KEYS if getattr(options, key) is not None}
    if isinstance(given.get("units"), str):
        given["units"] = given["units"].split(",")
    try:
        if "units" in given:
            given["units"] = tuple(int(unit) for unit in given["units"])
        result = replace(FitOptions(), **given)
    except (TypeError, ValueError) as reason:
        raise UsageError(f"--units: whole numbers separated by commas ({reason})") from reason
    for key, least in (("epochs", 0), ("alarms_per_week", 1e-6), ("window_length", 2), ("patience", 1)):
        value = getattr(result, key)
        if value is not None and not value >= least:
            raise UsageError(f"--{key.replace('_', '-')}: is {value}, at least {least:g} is needed")
    if not result.units or min(result.units) < 1:
        raise UsageError("--units: every layer needs at least one unit")
    return result


def _configured(path: Path) -> dict[str, Any]:
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as reason:
        raise ConfigurationError(f"{path}: not readable as TOML ({reason})") from reason
    section: dict[str, Any] = content.get("fit", {})
    known = {field.name: type(field.default) for field in fields(FitOptions)}
    for key, value in section.items():
        if key not in known:
            raise ConfigurationError(f"{path}: fit.{key}: unknown key; known are {', '.join(sorted(known))}")
        if known[key] in (int, float) and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise ConfigurationError(f"{path}: fit.{key}: must be a number")
    return section


def _fit(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    from trainer.fit import fit

    wanted = _fit_options(options)
    cleaned, _ = _read(options, console, options.interval)
    report = fit(cleaned, options.out, wanted, console)
    console.fit_table(cleaned, report, options.out)
    manifest = report.bundle.manifest
    return {
        "bundle": str(options.out),
        "sha256": report.bundle.sha256,
        "rows": cleaned.rows,
        "repairs": cleaned.repairs,
        **report.skill,
        "epochs": report.epochs,
        "best_epoch": report.best_epoch,
        "parity": manifest.parity,
        "threshold": manifest.threshold.value,
        "score_basis": manifest.threshold.basis,
        "alarms_per_week": manifest.threshold.alarms_per_week,
        "supported_alarms_per_week": manifest.threshold.supported_alarms_per_week,
    }


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


def _evaluate(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    from edge_agent.detector import load_detector
    from trainer.evaluate import evaluate, write_scores

    detector = load_detector(options.bundle, options.inference)
    manifest = detector.bundle.manifest
    cleaned, source = _read(options, console, manifest.sampling_interval_seconds)
    console.stage("scoring", sum(len(series.ticks) for series in cleaned.series))
    found = evaluate(detector, cleaned, source, console.advance)
    if options.label_column and found.labels is None:
        raise HistoryError(f"{source}: --label-column {options.label_column}: no labels were read")
    if options.scores:
        write_scores(found, options.scores)
    figures = found.figures(manifest)
    console.figures_table(figures)
    return figures


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


if __name__ == "__main__":
    sys.exit(main())
