"""The command `trainer fit`, and the options of a fit that `crossval` and `tune` have too."""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from edge_agent.contract.errors import HistoryError, UsageError
from edge_agent.history import add_history_options
from trainer.command_input import add_plots, read_marked
from trainer.confidence import rate_interval
from trainer.console import Console
from trainer.data_options import DATA_FLAGS, add_data_options
from trainer.fit_options import ADAPTATIONS, FitOptions, broken_rule, check_out, read_options
from trainer.inspect_command import say_warnings
from trainer.inspection import inspect
from trainer.model_options import (
    INFERENCE,
    MODEL_FLAGS,
    add_model_options,
    check_together,
    model_notices,
    parse_model_flags,
    split_numbers,
)


def add_fit_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command to its parser."""
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
    add_plots(parser)


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


def chosen_options(options: argparse.Namespace) -> FitOptions:
    """Return what was configured, overridden by what the options say.

    Raises:
        UsageError: an option breaks its rule, or two do not go together.
        ConfigurationError: the file of the configuration does.
    """
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


def fit_command(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Fit, write the bundle, show a table and return its record.

    Raises:
        UsageError: an option is out of range, or the bundle cannot be written there.
        ConfigurationError: the file of options is wrong.
        HistoryError: the file of labels is wrong, or the history cannot carry a model.
    """
    wanted = chosen_options(options)
    check_out(options.out)
    if options.plots:
        from trainer.plots import plot_fit, prepare_directory

        prepare_directory(options.plots)
    labelled, source = read_marked(options, console, wanted)
    cleaned = labelled.cleaned
    for notice in model_notices(wanted):
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


def add_forecast_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `fit` that a forecast depends on; all others come with --config."""
    parser.add_argument("--config", type=Path, metavar="TOML", help="as for fit, under [fit]")
    parser.add_argument("--interval", type=float, metavar="SECONDS", help="sampling interval")
    parser.add_argument("--window", type=int, dest="window_length", metavar="TICKS", help="default 60")
    parser.add_argument("--units", metavar="N,N", help="units of the LSTM layers (default 128,64,32)")
    parser.add_argument("--epochs", type=int, metavar="N", help=f"at most (default {FitOptions().epochs})")
    parser.add_argument("--seed", type=int, metavar="N")
    add_data_options(parser)
