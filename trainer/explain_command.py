"""The command `trainer explain`."""

import argparse
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_agent.contract.errors import HistoryError, UsageError
from trainer.cleaning import Cleaned
from trainer.console import Console

if TYPE_CHECKING:
    from edge_agent.detector import Detector
    from trainer.evaluate import Evaluation
    from trainer.explain import Moment

_MOST_CELLS = 12


def add_explain_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command, beside those of history and bundle, to its parser."""
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--at", metavar="TIME", help="RFC 3339, or seconds since 1970 (default: where the score is highest)"
    )
    which.add_argument(
        "--alarm",
        type=int,
        metavar="N",
        help="where the N-th alarm opened, counted as edge-agent replay lists them",
    )
    parser.add_argument("--asset", metavar="ID", help="which one, where the history has several")
    parser.add_argument(
        "--sensor",
        action="append",
        metavar="NAME",
        help="whose forecast (default: the three with the largest shares)",
    )
    parser.add_argument(
        "--no-shap", action="store_true", help="leave out the SHAP library, which is slow to load"
    )


def check_explain_options(options: argparse.Namespace) -> None:
    """Read the time.

    Raises:
        UsageError: it is none.
    """
    if options.at is not None:
        options.at = _time(options.at)


def _time(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        pass
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"--at: is {text!r}, must be RFC 3339 or seconds since 1970") from None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


def explain_command(
    options: argparse.Namespace, detector: "Detector", cleaned: Cleaned, source: str, console: Console
) -> dict[str, Any]:
    """Explain one sample, show tables and return the record.

    Raises:
        HistoryError: there is no such sample, asset, alarm or sensor, or the sample has no score.
        UsageError: SHAP is not installed.
    """
    from trainer.evaluate import evaluate, samples_of_asset
    from trainer.explain import attribute, moment_of, moment_record

    bundle = detector.bundle
    console.stage("scoring", cleaned.rows)
    found = evaluate(detector, cleaned, source, console.advance)
    number, tick = _chosen(options, found, cleaned, source)
    alone = samples_of_asset(cleaned, bundle.manifest, source, number)
    console.stage("explaining", 2)
    try:
        moment = moment_of(bundle, alone, found.assets[number], tick)
    except HistoryError as error:
        raise HistoryError(f"{source}: {error}") from error
    console.advance()
    sensors = _sensors(options.sensor, moment, source)
    attributions = attribute(moment, sensors, with_shap=not options.no_shap)
    console.advance()
    record = moment_record(moment, attributions)
    if attributions[0].gradients is None:
        console.note(
            f"{options.bundle}: holds no weights.npz (fit it anew), so there are no integrated gradients"
        )
    _show(record, console)
    if options.plots:
        _draw(record, options, console)
    return record


def _chosen(
    options: argparse.Namespace, found: "Evaluation", cleaned: Cleaned, source: str
) -> tuple[int, int]:
    """Return number of the asset and tick of the sample that is asked for."""
    from trainer.explain import chosen_alarm

    if options.asset is not None and options.asset not in found.assets:
        raise HistoryError(f"{source}: no asset {options.asset}; there are {', '.join(found.assets)}")
    if options.alarm is not None:
        event = chosen_alarm(found.events, options.alarm)
        return event.asset, round((event.start_time - cleaned.phase) / cleaned.interval)
    if options.asset is None and options.at is not None and len(found.assets) > 1:
        raise HistoryError(f"{source}: has several assets, name one with --asset: {', '.join(found.assets)}")
    rows = np.arange(len(found.time))
    if options.asset is not None:
        rows = np.flatnonzero(found.asset == found.assets.index(options.asset))
    if options.at is None:
        score = np.nan_to_num(found.score[rows], nan=-1.0)
        row = int(rows[int(score.argmax())])
    else:
        # The newest sample at that time: what stands in the file between two ticks belongs to the one before.
        row = int(rows[max(int(np.searchsorted(found.time[rows], options.at + 1e-6, side="right")) - 1, 0)])
        if abs(found.time[row] - options.at) > cleaned.interval:
            nearest = _shown(float(found.time[row]))
            raise HistoryError(f"{source}: no sample at {_shown(options.at)}; the nearest is at {nearest}")
    return int(found.asset[row]), round((found.time[row] - cleaned.phase) / cleaned.interval)


def _sensors(names: list[str] | None, moment: "Moment", source: str) -> list[int]:
    known = moment.bundle.manifest.sensor_names
    if not names:
        return moment.strongest[:3]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise HistoryError(f"{source}: --sensor {unknown[0]}: the bundle knows {', '.join(known)}")
    return [known.index(name) for name in names]


def _show(record: dict[str, Any], console: Console) -> None:
    console.say(
        f"{record['asset']} at {_shown(record['time'])}: score {record['score']:.4g} (1 is the threshold), "
        f"statistic {record['statistic']:.4g}, threshold {record['threshold']:.4g}"
    )
    console.say(
        f"The logarithm of the statistic, {record['log_statistic']:+.4f} (the threshold's is "
        f"{record['log_threshold']:+.4f}), is the sum of:"
    )
    console.grid(
        ("source", "span", "weight", "over its 0.99 quantile", "adds"),
        [
            (one["source"], "" if one["span"] is None else str(one["span"]), f"{one['weight']:.3f}",
             f"{one['ratio']:.3f}", f"{one['contribution']:+.4f}")
            for one in record["sources"]
        ],
    )  # fmt: skip
    console.say("")
    console.grid(
        ("sensor", "share", "adds", "actual", "expected", "unit"),
        [
            (one["name"], f"{one['share']:.0%}", f"{one['contribution']:+.4f}", _number(one["actual"]),
             _number(one["expected"]), one["unit"])
            for one in record["sensors"]
        ],
    )  # fmt: skip
    for forecast in record["forecasts"]:
        _show_forecast(forecast, console)


def _show_forecast(forecast: dict[str, Any], console: Console) -> None:
    unit = f" {forecast['unit']}" if forecast["unit"] else ""
    console.say("")
    console.say(
        f"{forecast['sensor']}: forecast {_number(forecast['forecast'])}{unit} "
        f"({_number(forecast['from_window'])} from its window alone, {_number(forecast['from_baseline'])} "
        f"if all stood at its centre), read {_number(forecast['actual'])}{unit}. What made the difference:"
    )
    strength = [
        max(abs(cell["integrated_gradients"] or 0.0), abs(cell["shap"] or 0.0)) for cell in forecast["cells"]
    ]
    order = np.argsort([-one for one in strength], kind="stable")[:_MOST_CELLS]
    console.grid(
        ("input", "samples before", "integrated gradients", "SHAP"),
        [
            (
                cell["input"],
                _lags(cell),
                _signed(cell["integrated_gradients"]),
                _signed(cell["shap"]),
            )
            for cell in (forecast["cells"][place] for place in order)
        ],
    )


def _draw(record: dict[str, Any], options: argparse.Namespace, console: Console) -> None:
    from trainer.canvas import save_png
    from trainer.report_figures import attribution_figure, sensors_figure, sources_figure

    figures = [("sources", sources_figure(record)), ("sensors", sensors_figure(record))]
    figures += [
        (f"{method}_{number}", attribution_figure(forecast, method))
        for number, forecast in enumerate(record["forecasts"], 1)
        for method in ("integrated_gradients", "shap")
        if forecast["cells"][0][method] is not None
    ]
    paths = [options.plots / f"explain_{name}.png" for name, _ in figures]
    for path, (_, figure) in zip(paths, figures, strict=True):
        save_png(figure, path)
    console.pictures(paths)


def _lags(cell: dict[str, Any]) -> str:
    first, last = cell["first_lag"], cell["last_lag"]
    return str(first) if first == last else f"{first} to {last}"


def _shown(time: float) -> str:
    return datetime.fromtimestamp(time, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+.4g}"
