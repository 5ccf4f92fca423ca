"""Pictures of a fit and of an evaluation as PNG files, and the panels that they are made of."""

import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edge_agent.contract.bundle import Manifest
from edge_agent.contract.errors import UsageError
from edge_agent.contract.types import Float64, Int64
from trainer.canvas import (
    ACTUAL,
    ALARM,
    DAY,
    FORECAST,
    LABEL,
    LIMIT,
    RESIDUAL,
    few_numbers,
    fitted,
    line_key,
    new_figure,
    patch_key,
    save_png,
    score_axis,
    time_axis,
    title,
    whole_numbers,
)
from trainer.evaluate import Evaluation
from trainer.plot_data import liveliest_row, spans, stretch_around, thinned, with_gaps, worst_sensors

MOST_ASSETS = 12
_SENSORS_PER_PAGE = 4
_ASSETS_PER_PAGE = 6
_BINS = 60
_INCHES_WIDE = 13.0


def prepare_directory(directory: Path) -> None:
    """Make the directory of the pictures, before anything long begins.

    Raises:
        UsageError: it cannot be made or written to.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as reason:
        raise UsageError(
            f"--plots {directory}: is no directory and cannot be made one ({reason.strerror})"
        ) from reason
    if not os.access(directory, os.W_OK | os.X_OK):
        raise UsageError(f"--plots {directory}: the directory cannot be written to")


def plot_fit(directory: Path, held: Evaluation, manifest: Manifest) -> tuple[Path, ...]:
    """Draw how the fit went and what the bundle makes of its calibration block.

    Args:
        directory: of the pictures; those of an earlier fit are replaced.
        held: the calibration block.
        manifest: of the bundle; its `trained["training"]` holds the losses.

    Returns:
        the files, in order of reading.
    """
    figures = [("learning", _learning(manifest.trained["training"]))]
    figures += _pictures(
        held, manifest, liveliest_row(held, manifest), "the liveliest stretch of the calibration block"
    )
    return _save(directory, "fit", figures)


def plot_evaluation(directory: Path, evaluation: Evaluation, manifest: Manifest) -> tuple[Path, ...]:
    """Draw what a bundle makes of a history: score with alarms and labels, forecasts and residuals.

    Args:
        directory: of the pictures; those of an earlier evaluation are replaced.
        evaluation: of the history.
        manifest: of the bundle.

    Returns:
        the files, in order of reading.
    """
    scored = np.nan_to_num(evaluation.score, nan=-1.0)
    strangest = int(np.argmax(scored)) if len(scored) else 0
    figures = _pictures(evaluation, manifest, strangest, "about the highest score")
    return _save(directory, "evaluate", figures)


def _pictures(found: Evaluation, manifest: Manifest, row: int, where: str) -> list[tuple[str, Any]]:
    sensors = worst_sensors(found, manifest)
    scores = list(_score_pages(found, manifest))
    pages = list(_forecast_pages(found, manifest, sensors, stretch_around(found, row), where))
    return [
        *_numbered("score", scores),
        *_numbered("forecast", pages),
        ("residuals", _residuals(found, manifest, sensors)),
    ]


def _numbered(name: str, pages: Sequence[Any]) -> list[tuple[str, Any]]:
    if len(pages) == 1:
        return [(name, pages[0])]
    return [(f"{name}_{number}", page) for number, page in enumerate(pages, 1)]


def _save(directory: Path, command: str, figures: Sequence[tuple[str, Any]]) -> tuple[Path, ...]:
    paths = []
    for name, figure in figures:
        paths.append(directory / f"{command}_{name}.png")
        save_png(figure, paths[-1])
    return tuple(paths)


def _figure(heading: str, inches_high: float) -> Any:
    figure = new_figure(_INCHES_WIDE, inches_high)
    figure.suptitle(heading, fontsize=13, x=0.01, ha="left", parse_math=False)
    return figure


def _learning(record: dict[str, Any]) -> Any:
    """Return the losses by epoch; the later block's begin with epoch 0, the ridge regression alone."""
    figure = _figure("Learning: loss by epoch", 5.5)
    learning_panel(figure.subplots(), record)
    return figure


def learning_panel(axes: Any, record: dict[str, Any]) -> None:
    """Draw the losses of the manifest's record of training."""
    losses, later, best = record["losses"], record["stop_losses"], record["best_epoch"]
    axes.plot(range(1, len(losses) + 1), losses, ".-", color=RESIDUAL, label="training block")
    axes.plot(
        range(len(later)), later, ".-", color=FORECAST, label="early-stopping block (later, not learnt from)"
    )
    kept = f"kept: epoch {best}" if best else "kept: the ridge regression alone (epoch 0)"
    axes.plot(
        [best], [later[best]], "o", ms=11, mfc="none", mec=LIMIT, mew=2, label=f"{kept}, {later[best]:.4g}"
    )
    axes.axvline(best, color=LIMIT, lw=0.8, ls=":")
    if max(*losses, *later, 0) > 10 * min((*losses, *later)) > 0:
        axes.set_yscale("log")
    axes.set_xlabel("epoch (0 is the linear part before the LSTM has learnt anything)")
    axes.set_ylabel("mean square error (scaled units)")
    whole_numbers(axes.xaxis)
    axes.grid(alpha=0.3)
    axes.legend()


def _score_pages(found: Evaluation, manifest: Manifest) -> Iterator[Any]:
    peaks = [
        np.nanmax(np.append(found.score[found.asset == number], -1.0)) for number in range(len(found.assets))
    ]
    shown = sorted(np.argsort(peaks, kind="stable")[::-1][:MOST_ASSETS].tolist())
    left_out = f", the {len(shown)} highest of {len(peaks)} assets" if len(shown) < len(peaks) else ""
    limits = manifest.threshold
    meaning = (
        f"a false alarm budget of {limits.alarms_per_week:g} a week; each +1 is ten times rarer"
        if limits.basis == "tail"
        else "a margin over normal operation; no claim of rarity"
    )
    for at in range(0, len(shown), _ASSETS_PER_PAGE):
        page = shown[at : at + _ASSETS_PER_PAGE]
        figure = _figure(f"Score over time{left_out}: the threshold 1.0 is {meaning}", 2.6 * len(page) + 2.2)
        for axes, number in zip(figure.subplots(len(page), 1, squeeze=False)[:, 0], page, strict=True):
            score_panel(axes, found, np.flatnonzero(found.asset == number))
            title(axes, f"{found.assets[number]}: highest score {_figures(peaks[number])}")
        rows = np.flatnonzero(np.isin(found.asset, page))
        _legend(figure, found, rows, (("score", RESIDUAL, "-"), ("threshold", LIMIT, "--")))
        yield figure


def score_panel(axes: Any, found: Evaluation, rows: Int64) -> None:
    """Draw the score of one asset's rows, shaded where it is in alarm or labelled."""
    _shade(axes, found, rows)
    time, score = thinned(*with_gaps(found.time[rows], found.score[rows], found.interval))
    axes.plot(time / DAY, score, color=RESIDUAL, lw=0.9)
    axes.axhline(1.0, color=LIMIT, ls="--", lw=1.2)
    top = max(1.2, float(np.nanmax(np.append(score, 0.0))))
    score_axis(axes, top)
    axes.set_ylabel("score")
    axes.grid(alpha=0.3)
    time_axis(axes)


def _forecast_pages(
    found: Evaluation, manifest: Manifest, sensors: Sequence[int], rows: Int64, where: str
) -> Iterator[Any]:
    if not len(rows):
        return
    pages = [sensors[at : at + _SENSORS_PER_PAGE] for at in range(0, len(sensors), _SENSORS_PER_PAGE)]
    for number, page in enumerate(pages, 1):
        high = math.ceil(len(page) / 2)
        heading = f"Forecast one tick ahead against actual, {where} ({found.assets[found.asset[rows[0]]]})"
        heading += _of_how_many(sensors, manifest) + (
            f", page {number} of {len(pages)}" if len(pages) > 1 else ""
        )
        figure = _figure(heading, 4.3 * high + 1.0)
        grid = figure.add_gridspec(2 * high, 2, height_ratios=[2, 1] * high)
        for place, sensor in enumerate(page):
            row, column = divmod(place, 2)
            upper = figure.add_subplot(grid[2 * row, column])
            lower = figure.add_subplot(grid[2 * row + 1, column], sharex=upper)
            forecast_panel(upper, lower, found, manifest, sensor, rows)
        keys = (("actual", ACTUAL, "-"), ("forecast", FORECAST, "-"), ("residual", RESIDUAL, "-"))
        _legend(figure, found, rows, keys)
        yield figure


def forecast_panel(
    upper: Any, lower: Any, found: Evaluation, manifest: Manifest, sensor: int, rows: Int64
) -> None:
    """Draw one sensor's actual and forecast readings, and the residual below."""
    spec = manifest.sensors[sensor]
    cells = np.stack([found.values[rows, sensor], found.forecast[rows, sensor]], axis=1)
    time, cells = with_gaps(found.time[rows], cells, found.interval)
    actual, expected = cells[:, 0], cells[:, 1]
    for axes in (upper, lower):
        _shade(axes, found, rows)
        axes.grid(alpha=0.3)
    upper.plot(time / DAY, actual, color=ACTUAL, lw=1.6)
    upper.plot(time / DAY, expected, color=FORECAST, lw=0.9)
    lower.plot(time / DAY, actual - expected, color=RESIDUAL, lw=0.9)
    lower.axhline(0.0, color=ACTUAL, lw=0.6)
    for axes in (upper, lower):
        axes.margins(y=0.12)  # the band of alarms along the top must hide nothing
    title(upper, fitted(spec.name, 64), fontweight="bold")
    upper.set_ylabel(spec.unit or "reading")
    lower.set_ylabel(f"residual{f' ({spec.unit})' if spec.unit else ''}")
    upper.tick_params(labelbottom=False)
    time_axis(lower)


def _residuals(found: Evaluation, manifest: Manifest, sensors: Sequence[int]) -> Any:
    high = math.ceil(len(sensors) / 3)
    heading = f"Residuals (actual minus forecast){_of_how_many(sensors, manifest)}"
    figure = _figure(heading, 2.7 * high + 1.0)
    grid = figure.add_gridspec(high, 3)
    faulty = np.zeros(len(found.time), np.bool_) if found.labels is None else found.labels > 0
    for place, sensor in enumerate(sensors):
        axes = figure.add_subplot(grid[divmod(place, 3)])
        residual = found.values[:, sensor].astype(np.float64) - found.forecast[:, sensor]
        known, spec = np.isfinite(residual), manifest.sensors[sensor]
        title(axes, fitted(spec.name, 38), fontweight="bold")
        axes.set_xlabel(
            f"residual, {spec.unit}" if spec.unit else "residual, in the sensor's unit", fontsize=8
        )
        if place % 3 == 0:
            axes.set_ylabel("share of samples, %")
        distribution_panel(axes, residual[known & ~faulty], residual[known & faulty])
    handles = [
        patch_key("not labelled" if faulty.any() else "measured", RESIDUAL, 0.45),
        line_key("normal distribution of the same middle half", FORECAST, "--"),
    ]
    if faulty.any():
        handles.append(line_key("labelled as a fault", LIMIT, "-"))
    figure.legend(handles=handles, loc="outside lower left", ncols=len(handles), frameon=False)
    return figure


def distribution_panel(axes: Any, residual: Float64, faulty: Float64) -> None:
    """Draw the shares of the residuals within five widths of the middle; the text says how many lie further out."""
    if not len(residual):
        axes.text(0.5, 0.5, "no residual", ha="center", transform=axes.transAxes)
        return
    low, middle, high = np.percentile(residual, [25, 50, 75])
    # A sensor at rest most of the time has a middle half without width.
    width = max((high - low) / 1.349, float(residual.std()) / 10, 1e-9 * max(1.0, abs(middle)))
    edges = np.linspace(middle - 5 * width, middle + 5 * width, _BINS + 1)
    axes.stairs(_shares(residual, edges), edges, fill=True, color=RESIDUAL, alpha=0.45)
    if len(faulty):
        axes.stairs(_shares(faulty, edges), edges, color=LIMIT, lw=1.0)
    bell = np.exp(-0.5 * ((edges - middle) / width) ** 2) / (width * math.sqrt(2 * math.pi))
    axes.plot(edges, 100.0 * (edges[1] - edges[0]) * bell, color=FORECAST, ls="--", lw=1.1)
    beyond = 100.0 - float(_shares(residual, edges).sum())
    text = f"mean {residual.mean():+.3g}\nRMSE {math.sqrt(float(np.mean(residual**2))):.3g}"
    text += f"\nbeyond the edges {beyond:.2g} %" if beyond > 1e-9 else ""
    axes.text(0.98, 0.95, text, ha="right", va="top", fontsize=8, transform=axes.transAxes)
    few_numbers(axes.xaxis)
    axes.grid(alpha=0.3)


def _shares(residual: Float64, edges: Float64) -> Float64:
    """Return the share of each bin in percent."""
    return np.asarray(100.0 * np.histogram(residual, edges)[0] / len(residual), np.float64)


def _of_how_many(sensors: Sequence[int], manifest: Manifest) -> str:
    every = len(manifest.sensors)
    return f", the {len(sensors)} worst of {every} sensors" if len(sensors) < every else ""


def _shade(axes: Any, found: Evaluation, rows: Int64) -> None:
    """Shade the labelled time over the whole height and the alarms as a band along the top."""
    labels = None if found.labels is None else found.labels[rows] > 0
    for flag, band, style in (
        (labels, (0.0, 1.0), {"color": LABEL, "alpha": 0.55}),
        (found.alarm[rows], (0.94, 0.06), {"color": ALARM}),
    ):
        if flag is not None and flag.any():
            runs = spans(found.time[rows] / DAY, flag, found.interval / DAY)
            axes.broken_barh(runs, band, transform=axes.get_xaxis_transform(), lw=0, zorder=0.5, **style)


def _legend(figure: Any, found: Evaluation, rows: Int64, keys: Sequence[tuple[str, str, str]]) -> None:
    handles = [line_key(*key) for key in keys]
    if found.alarm[rows].any():
        handles.append(patch_key("in alarm", ALARM))
    if found.labels is not None and found.labels[rows].any():
        handles.append(patch_key("labelled as a fault", LABEL, 0.55))
    figure.legend(handles=handles, loc="outside lower left", ncols=len(handles), frameon=False)


def _figures(value: float) -> str:
    return "none" if value < 0 else f"{value:.3g}"
