"""`trainer inspect`: what a history is like, as tables or JSON; and what `fit` says of it before it trains."""

import argparse
from typing import Any

from edge_agent.history import add_history_options, history_format, read_history
from trainer.cleaning import clean
from trainer.console import Console
from trainer.inspection import CONSTANT, DataReport, SensorReport, inspect

_HEADER = ("sensor", "missing", "min", "0.1 %", "mean", "99.9 %", "max", "longest hold", "warnings")


def add_inspect_options(parser: argparse.ArgumentParser) -> None:
    """Add what `trainer inspect` can be told."""
    add_history_options(parser)
    parser.add_argument("--interval", type=float, metavar="SECONDS", help="sampling interval")


def inspect_command(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Read a history and show what it is like."""
    history = read_history(options.history, history_format(options))
    cleaned = clean(history, options.interval)
    report = inspect(cleaned)
    _show(report, console)
    for notice in dict.fromkeys((*history.notices, *cleaned.notices)):
        console.note(notice)
    return report.record() | {"warnings": report.all_warnings, "notices": list(cleaned.notices)}


def say_warnings(report: DataReport, console: Console) -> None:
    """Say what a person should look at before a forecaster is fitted; cleaning has told of constant sensors."""
    warnings = [text for text in report.all_warnings if not text.endswith(f": {CONSTANT}")]
    for warning in warnings:
        console.note(warning)
    if warnings:
        console.note("trainer inspect shows more of this history")


def _show(report: DataReport, console: Console) -> None:
    console.say(f"{report.rows} rows, one every {report.interval:g} s")
    for kind, count in report.repairs.items():
        console.say(f"repaired: {count} × {kind}")
    console.grid(
        ("asset", "samples", "first", "hours", "gaps", "longest gap, s", "labelled"),
        [
            (
                one.name,
                str(one.samples),
                one.begin,
                f"{(one.last - one.first) / 3600:.1f}",
                str(one.gaps),
                f"{one.longest_gap_seconds:g}",
                "-" if one.labelled is None else f"{one.labelled:.1%}",
            )
            for one in report.assets
        ],
    )
    console.grid(_HEADER, [_row(one) for one in report.sensors])
    for first, second, r in report.correlations:
        console.say(f"correlation {r:+.3f}: {first}, {second}")
    for warning in report.all_warnings:
        console.say(f"warning: {warning}")


def _row(one: SensorReport) -> tuple[str, ...]:
    numbers = (one.minimum, one.low, one.mean, one.high, one.maximum)
    return (
        one.name,
        f"{one.missing:.1%}",
        *(f"{number:.4g}" for number in numbers),
        str(one.longest_hold),
        str(len(one.warnings) or ""),
    )
