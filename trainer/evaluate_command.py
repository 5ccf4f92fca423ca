"""The command `trainer evaluate`."""

import argparse
from pathlib import Path
from typing import Any

from edge_agent.contract.errors import HistoryError
from edge_agent.history import add_history_options, sensor_notices
from trainer.command_input import add_plots, read_cleaned
from trainer.console import Console


def add_evaluate_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command to its parser."""
    add_history_options(parser)
    parser.add_argument("--bundle", type=Path, required=True, metavar="DIR")
    parser.add_argument("--inference", choices=("step", "window"), help="default: as calibrated")
    parser.add_argument("--scores", type=Path, metavar="PATH", help="write time, asset, score, alarm as CSV")
    add_plots(parser)


def evaluate_command(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Score a history, write what was asked for, show a table and return the figures.

    Raises:
        BundleError: the bundle is damaged.
        HistoryError: the history is not of the bundle's machine, or has no labels where some were named.
    """
    from edge_agent.detector import load_detector
    from trainer.evaluate import evaluate, write_scores

    if options.plots:
        from trainer.plots import plot_evaluation, prepare_directory

        prepare_directory(options.plots)
    detector = load_detector(options.bundle, options.inference)
    manifest = detector.bundle.manifest
    cleaned, source = read_cleaned(
        options, console, manifest.sampling_interval_seconds, manifest.phase_seconds
    )
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
