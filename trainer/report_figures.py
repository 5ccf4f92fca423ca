"""The figures of a report, each small enough to be read on a phone."""

from typing import Any

import numpy as np

from edge_agent.contract.bundle import Manifest
from edge_agent.contract.tail import WEEK_SECONDS, cluster_peaks
from edge_agent.contract.types import Float64, Int64
from trainer.canvas import (
    ACTUAL,
    FORECAST,
    LABEL,
    LIMIT,
    RESIDUAL,
    fitted,
    new_figure,
    title,
    whole_numbers,
)
from trainer.evaluate import Evaluation
from trainer.plots import distribution_panel, forecast_panel, learning_panel, score_panel

WIDE = 4.6
"""Inches; 440 pixels, which a phone shows at four fifths of their size."""
MOST_BARS = 16
_COLOURS = {"forecaster": RESIDUAL, "ridge": FORECAST, "persistence": ACTUAL, "seasonal": LABEL}


def learning_figure(training: dict[str, Any]) -> Any:
    """Draw the losses by epoch, of the manifest's record of training."""
    figure = new_figure(WIDE, 3.2)
    axes = figure.subplots()
    learning_panel(axes, training)
    axes.set_xlabel("epoch (0 is the linear part alone)", fontsize=8)
    axes.set_ylabel("mean square error (scaled)", fontsize=8)
    axes.get_legend().remove()
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", frameon=False, fontsize=8)
    return figure


def score_figure(found: Evaluation, asset: int) -> Any:
    """Draw the score of one asset over time, shaded where it is in alarm or labelled."""
    figure = new_figure(WIDE, 2.3)
    axes = figure.subplots()
    score_panel(axes, found, np.flatnonzero(found.asset == asset))
    return figure


def forecast_figure(found: Evaluation, manifest: Manifest, sensor: int, rows: Int64) -> Any:
    """Draw one sensor's actual and forecast readings over some rows, and the residual below."""
    figure = new_figure(WIDE, 3.4)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[2, 1])
    forecast_panel(upper, lower, found, manifest, sensor, rows)
    title(upper, "")  # the page has the name above the picture
    return figure


def residual_figure(found: Evaluation, manifest: Manifest, sensor: int) -> Any:
    """Draw the distribution of one sensor's residuals; a red line is that of labelled rows."""
    figure = new_figure(WIDE, 2.4)
    axes = figure.subplots()
    residual = found.values[:, sensor].astype(np.float64) - found.forecast[:, sensor]
    known = np.isfinite(residual)
    faulty = np.zeros(len(residual), np.bool_) if found.labels is None else found.labels > 0
    distribution_panel(axes, residual[known & ~faulty], residual[known & faulty])
    axes.set_xlabel(
        f"residual, {manifest.sensors[sensor].unit or 'in its unit'}", fontsize=8, parse_math=False
    )
    axes.set_ylabel("share of samples, %", fontsize=8)
    return figure


def tail_figure(found: Evaluation, manifest: Manifest, separation: int) -> Any:
    """Draw how often the fused statistic exceeds a level, what the bundle expects of it, and the threshold.

    Args:
        found: labelled rows do not count.
        manifest: of the bundle.
        separation: quiet samples between two excursions.
    """
    figure = new_figure(WIDE, 3.0)
    axes = figure.subplots()
    limits = manifest.threshold
    normal = np.isfinite(found.statistic) & (True if found.labels is None else found.labels == 0)
    values = found.statistic[normal]
    if len(values):
        levels, rates = _exceedances(values, found.interval, separation)
        axes.step(levels, rates, where="post", color=RESIDUAL, label="this history, unlabelled rows")
    if limits.tail is not None:
        grid = np.linspace(limits.tail.levels[0], 1.2 * limits.value, 200)
        axes.plot(grid, limits.tail.rate(grid), color=FORECAST, ls="--", label="calibration")
    axes.axvline(limits.value, color=LIMIT, lw=1.2, label=f"threshold {limits.value:.3g}")
    axes.axhline(limits.alarms_per_week, color=ACTUAL, lw=0.8, ls=":", label="alarm budget")
    axes.set_yscale("log")
    axes.set_xlabel("fused statistic", fontsize=8)
    axes.set_ylabel("excursions above it a week", fontsize=8)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside upper left", ncols=2, frameon=False, fontsize=8)
    return figure


def _exceedances(values: Float64, interval: float, separation: int) -> tuple[Float64, Float64]:
    """Return levels and how many separate excursions a week reach above each."""
    levels = np.unique(
        np.quantile(values, np.r_[np.linspace(0.5, 0.99, 40), 1.0 - np.geomspace(1e-2, 1e-5, 40)])
    )
    counts = np.array([len(cluster_peaks(values, level, separation)) for level in levels], np.float64)
    # Clusters merge at low levels, which would make low values look rarer than higher ones.
    rates = np.maximum.accumulate(counts[::-1])[::-1] / (len(values) * interval / WEEK_SECONDS)
    return levels, np.where(rates > 0, rates, np.nan)


def crossval_figure(record: dict[str, Any]) -> Any:
    """Draw the RMSE of each contender by fold, of the record that `trainer crossval --json` prints."""
    figure = new_figure(WIDE, 3.0)
    axes = figure.subplots()
    names = [name for name, found in record["contenders"].items() if found["rmse"] is not None]
    folds = record["folds"]
    width = 0.8 / max(len(names), 1)
    for place, name in enumerate(names):
        heights = [fold[name]["rmse"] or 0.0 for fold in folds]
        at = np.arange(1, len(folds) + 1) + (place - (len(names) - 1) / 2) * width
        axes.bar(at, heights, width, color=_COLOURS[name], label=name, edgecolor=ACTUAL, lw=0.4)
    axes.set_xlabel("fold, oldest first")
    axes.set_ylabel("RMSE (scaled units)")
    whole_numbers(axes.xaxis)
    axes.grid(alpha=0.3, axis="y")
    axes.set_axisbelow(True)
    figure.legend(loc="outside upper left", ncols=2, frameon=False, fontsize=8)
    return figure


def sources_figure(record: dict[str, Any]) -> Any:
    """Draw what the sources add to the logarithm of the statistic, of the record of `trainer explain --json`."""
    rows = [(_source_name(part), part["contribution"]) for part in record["sources"]]
    rows = [(name, value) for name, value in rows if abs(value) > 1e-9] or rows
    figure = new_figure(WIDE, 1.1 + 0.24 * len(rows))
    axes = figure.subplots()
    _bars(axes, rows)
    axes.set_xlabel("part of the logarithm of the statistic", fontsize=8)
    return figure


def sensors_figure(record: dict[str, Any]) -> Any:
    """Draw what the sensors add to the logarithm of the statistic, the largest shares first."""
    rows = [(fitted(one["name"], 26), one["contribution"]) for one in record["sensors"][:MOST_BARS]]
    figure = new_figure(WIDE, 1.1 + 0.24 * len(rows))
    axes = figure.subplots()
    _bars(axes, rows)
    axes.set_xlabel("part of the logarithm of the statistic", fontsize=8)
    return figure


def attribution_figure(forecast: dict[str, Any], method: str) -> Any:
    """Draw which inputs and lags made the forecast of one sensor.

    Args:
        forecast: an entry of `forecasts` in the record of `trainer explain --json`.
        method: `integrated_gradients` or `shap`.
    """
    names = list(dict.fromkeys(cell["input"] for cell in forecast["cells"]))
    lags = list(dict.fromkeys((cell["first_lag"], cell["last_lag"]) for cell in forecast["cells"]))
    table = np.array([cell[method] for cell in forecast["cells"]]).reshape(len(names), len(lags))
    order = np.argsort(-np.abs(table).sum(axis=1), kind="stable")[:MOST_BARS]
    figure = new_figure(WIDE, 1.5 + 0.26 * len(order))
    axes = figure.subplots()
    most = max(float(np.abs(table).max()), 1e-12)
    shown = axes.imshow(table[order], cmap="PuOr", vmin=-most, vmax=most, aspect="auto")
    axes.set_yticks(
        range(len(order)), [fitted(names[place], 26) for place in order], fontsize=8, parse_math=False
    )
    axes.set_xticks(
        range(len(lags)), [f"{a}" if a == b else f"{a}-{b}" for a, b in lags], fontsize=8, rotation=45
    )
    axes.set_xlabel("samples before the one forecast", fontsize=8)
    bar = figure.colorbar(shown, ax=axes, pad=0.02)
    bar.ax.tick_params(labelsize=8)
    bar.set_label(forecast["unit"] or "sensor's unit", fontsize=8, parse_math=False)
    return figure


def _bars(axes: Any, rows: list[tuple[str, float]]) -> None:
    """Draw values as horizontal bars, the first on top; what adds and what takes away differ in colour."""
    values = [value for _, value in rows]
    colours = [LIMIT if value > 0 else RESIDUAL for value in values]
    axes.barh(range(len(rows)), values, color=colours)
    axes.set_yticks(range(len(rows)), [name for name, _ in rows], fontsize=8, parse_math=False)
    axes.invert_yaxis()
    axes.axvline(0.0, color=ACTUAL, lw=0.8)
    axes.grid(alpha=0.3, axis="x")
    axes.set_axisbelow(True)


def _source_name(part: dict[str, Any]) -> str:
    return part["source"] if part["span"] is None else f"{part['source']}, span {part['span']}"
