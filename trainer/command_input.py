"""What commands have in common: the history that they read, and where pictures go."""

import argparse
from collections.abc import Collection
from pathlib import Path

from edge_agent.contract.labels import read_labels
from edge_agent.history import history_format, read_history
from trainer.cleaning import Cleaned, clean
from trainer.console import Console
from trainer.counters import without_counters
from trainer.fit_options import FitOptions
from trainer.labels import Labelled, apply_labels


def read_cleaned(
    options: argparse.Namespace, console: Console, interval: float | None, phase: float | None = None
) -> tuple[Cleaned, str]:
    """Read the history that the options name, tell what is to be known of it, and return it with its source.

    Args:
        options: of the command.
        console: is told.
        interval: seconds from tick to tick; None recognises it.
        phase: seconds, of the grid; None recognises it.

    Raises:
        HistoryError: it cannot be read, or is no history.
    """
    history = read_history(options.history, history_format(options))
    cleaned = clean(history, interval, phase)
    for notice in (*history.notices, *(n for n in cleaned.notices if n not in history.notices)):
        console.note(notice)
    return cleaned, history.source


def _read_normal(
    options: argparse.Namespace, console: Console, exogenous: Collection[str]
) -> tuple[Cleaned, str]:
    """Read a history that something is to be fitted on, without its counters, and return it with its source.

    Args:
        options: of the command.
        console: is told.
        exogenous: sensors that are read and not judged; they stay whatever they do.

    Raises:
        HistoryError: it cannot be read, or is no history.
    """
    cleaned, source = read_cleaned(options, console, options.interval)
    found = without_counters(cleaned, exogenous)
    for notice in found.notices[len(cleaned.notices) :]:
        console.note(notice)
    return found, source


def read_marked(options: argparse.Namespace, console: Console, wanted: FitOptions) -> tuple[Labelled, str]:
    """Read a history that something is to be fitted on, with what operators marked, and return it with its source.

    Args:
        options: of the command.
        console: is told.
        wanted: names the labels, if there are any, and what is exogenous.

    Raises:
        HistoryError: the file of labels is wrong, which is told before the history is read, as that may take long; or
            the history cannot be read, is none, or is not that of the labels.
    """
    intervals = read_labels(Path(wanted.labels)) if wanted.labels else ()
    cleaned, source = _read_normal(options, console, wanted.exogenous)
    labelled = apply_labels(cleaned, intervals, wanted.labels or "")
    for notice in labelled.notices:
        console.note(notice)
    return labelled, source


def add_plots(parser: argparse.ArgumentParser) -> None:
    """Add the option of pictures to the parser of a command."""
    parser.add_argument("--plots", type=Path, metavar="DIR", help="draw what was found as PNG files")
