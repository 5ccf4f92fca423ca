"""The command `trainer crossval`."""

import argparse
from datetime import UTC, datetime
from typing import Any

from edge_agent.contract.errors import HistoryError, UsageError
from trainer.cleaning import Cleaned
from trainer.console import Console
from trainer.crossval_figures import CONTENDERS, CrossValidation, FoldFigures
from trainer.fit_options import FitOptions

_SCHEMES = ("expanding", "rolling")
_MOST_FOLDS = 1000
_SHOWN_SENSORS = 40


def add_crossval_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command, beside those of history and model, to its parser."""
    parser.add_argument("--folds", type=int, default=5, metavar="N", help="default 5")
    parser.add_argument(
        "--scheme",
        choices=_SCHEMES,
        default="expanding",
        help="what a fold is fitted on: all that came before it (default), or its newest part, as long in all folds",
    )
    parser.add_argument(
        "--season",
        type=int,
        metavar="TICKS",
        help="of the seasonal contender; 0 is none (default: a day or a week, where the history is long enough)",
    )
    parser.add_argument("--horizons", type=int, default=1, metavar="N", help="ticks ahead (default 1)")


def check_crossval_options(options: argparse.Namespace) -> None:
    """Refuse what is out of range, before anything is read.

    Raises:
        UsageError: an option is out of range.
    """
    for name, value, least, most in (
        ("--folds", options.folds, 2, _MOST_FOLDS),
        ("--season", 1 if options.season is None else options.season, 0, 2**31 - 1),
        ("--horizons", options.horizons, 1, 1000),
    ):
        if not least <= value <= most:
            raise UsageError(f"{name}: is {value}, must be from {least} to {most}")


def crossval_command(
    options: argparse.Namespace, wanted: FitOptions, cleaned: Cleaned, source: str, console: Console
) -> dict[str, Any]:
    """Cross-validate, show a table and return the record.

    Raises:
        HistoryError: the history is too short for so many folds.
    """
    # Imported late: Keras takes ten seconds that a bad file need not wait.
    from trainer.crossval import CrossvalOptions, cross_validate

    how = CrossvalOptions(options.folds, options.scheme, options.season, options.horizons)
    try:
        found = cross_validate(cleaned, wanted, how, console)
    except HistoryError as error:
        raise HistoryError(f"{source}: {error}") from error
    record = {"history": source, "scheme": options.scheme, "horizons": options.horizons, **found.record()}
    _show(found, record, console)
    if options.plots:
        from trainer.canvas import save_png
        from trainer.report_figures import crossval_figure

        path = options.plots / "crossval_rmse.png"
        save_png(crossval_figure(record), path)
        console.pictures([path])
    return record


def _show(found: CrossValidation, record: dict[str, Any], console: Console) -> None:
    names = [name for name in CONTENDERS if record["contenders"][name]["rmse"] is not None]
    places = [CONTENDERS.index(name) for name in names]
    header = ("RMSE, scaled units", "from", "samples fitted on", "forecasts", "best epoch", *names)
    rows = [
        (
            f"fold {fold.number}", _when(fold), str(fold.trained), str(fold.judged), str(fold.best_epoch),
            *(_cell(fold.rmse(place)) for place in places),
        )
        for fold in found.folds
    ]  # fmt: skip
    for title, key in (("mean ± spread", "rmse"), ("MAE, mean ± spread", "mae")):
        overall = [record["contenders"][name] for name in names]
        cells = (f"{_cell(one[key])} ± {_cell(one[f'{key}_spread'])}" for one in overall)
        rows.append((title, "", "", "", "", *cells))
    console.grid(header, rows)
    console.say("")
    console.grid(("RMSE, sensor's unit", "ticks ahead", *names), _by_sensor(found, places)[:_SHOWN_SENSORS])
    if found.season is None:
        console.say(
            "No season: the history is too short for a daily or weekly one, or its ticks do not make one."
        )
    else:
        console.say(f"Season: {found.season} ticks.")
    console.say(found.verdict())


def _by_sensor(found: CrossValidation, places: list[int]) -> list[tuple[str, ...]]:
    """Return root mean squares over all folds, sensor by sensor."""
    cells = sum(fold.cells for fold in found.folds)
    square = sum(fold.square for fold in found.folds)
    return [
        (
            sensor,
            str(horizon + 1),
            *(
                _cell(float(square[place, horizon, column] / cells[horizon, column]) ** 0.5)  # type: ignore[index]  # sums of arrays
                if cells[horizon, column]  # type: ignore[index]
                else "-"
                for place in places
            ),
        )
        for column, sensor in enumerate(found.sensors)
        for horizon in range(found.folds[0].cells.shape[0])
    ]


def _when(fold: FoldFigures) -> str:
    return datetime.fromtimestamp(fold.first_time, UTC).strftime("%Y-%m-%d %H:%M")


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
