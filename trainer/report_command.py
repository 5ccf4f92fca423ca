"""The command `trainer report`."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_agent.contract.errors import HistoryError, UsageError
from trainer.cleaning import Cleaned
from trainer.console import Console

if TYPE_CHECKING:
    from edge_agent.detector import Detector
    from trainer.evaluate import Evaluation


def add_report_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command, beside those of history and bundle, to its parser."""
    parser.add_argument("--out", type=Path, required=True, metavar="HTML", help="the page")
    parser.add_argument(
        "--crossval",
        type=Path,
        metavar="JSON",
        help="what trainer crossval --json printed, to be shown with it",
    )
    parser.add_argument(
        "--explain",
        type=Path,
        action="append",
        default=[],
        metavar="JSON",
        help="what trainer explain --json printed (default: the score of the highest sample, taken apart)",
    )


def check_report_options(options: argparse.Namespace) -> None:
    """Read the records that are to be shown.

    Raises:
        UsageError: one cannot be read or is of another command, or the page cannot be written.
    """
    if options.out.is_dir() or not options.out.resolve().parent.is_dir():
        raise UsageError(f"--out {options.out}: must be a file in a directory that exists")
    options.crossval = _record(options.crossval, "--crossval", "contenders") if options.crossval else None
    options.explain = [_record(path, "--explain", "sources") for path in options.explain]


def _record(path: Path, option: str, key: str) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except OSError as reason:
        raise UsageError(f"{option} {path}: {reason.strerror or reason}") from reason
    except ValueError as reason:
        raise UsageError(f"{option} {path}: is no JSON ({reason})") from reason
    if not isinstance(record, dict) or key not in record:
        raise UsageError(f"{option} {path}: is not what trainer {option[2:]} --json printed")
    return record


def report_command(
    options: argparse.Namespace,
    detector: "Detector",
    cleaned: Cleaned,
    source: str,
    notices: tuple[str, ...],
    console: Console,
) -> dict[str, Any]:
    """Evaluate the history, write the page and return the record.

    Raises:
        HistoryError: the history does not go with the bundle.
    """
    from trainer.evaluate import evaluate
    from trainer.report import Findings, build_report

    console.stage("scoring", cleaned.rows)
    found = evaluate(detector, cleaned, source, console.advance)
    figures = found.figures(detector.bundle.manifest)
    if not figures["scored"]:
        raise HistoryError(f"{source}: no sample has a score, a report would be empty")
    explained = options.explain or [_highest(detector, cleaned, source, found)]
    console.stage("drawing", 1)
    page = build_report(
        Findings(detector.bundle, cleaned, found, figures, source, notices, options.crossval, explained)
    )
    options.out.write_text(page, encoding="utf-8")
    console.advance()
    console.say(f"{options.out}: {len(page) / 1e6:.2f} MB, one file that fetches nothing")
    return {
        "out": str(options.out),
        "bytes": len(page.encode()),
        "samples": figures["samples"],
        "scored": figures["scored"],
        "explained": [{"asset": one["asset"], "time": one["time"]} for one in explained],
    }


def _highest(detector: "Detector", cleaned: Cleaned, source: str, found: "Evaluation") -> dict[str, Any]:
    """Take the highest score apart."""
    from trainer.evaluate import samples_of_asset
    from trainer.explain import moment_of, moment_record

    row = int(np.nan_to_num(found.score, nan=-1.0).argmax())
    number = int(found.asset[row])
    samples = samples_of_asset(cleaned, detector.bundle.manifest, source, number)
    tick = round((found.time[row] - cleaned.phase) / cleaned.interval)
    return moment_record(moment_of(detector.bundle, samples, found.assets[number], tick), [])
