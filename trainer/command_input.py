"""What commands have in common: the history that they read, and where pictures go."""

import argparse
from pathlib import Path

from edge_agent.history import history_format, read_history
from trainer.cleaning import Cleaned, clean
from trainer.console import Console


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


def add_plots(parser: argparse.ArgumentParser) -> None:
    """Add the option of pictures to the parser of a command."""
    parser.add_argument("--plots", type=Path, metavar="DIR", help="draw what was found as PNG files")
