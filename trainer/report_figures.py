"""The figures of a report, each small enough to be read on a phone, and a text that says what it shows."""

from typing import Any

import numpy as np

from trainer.canvas import ACTUAL, FORECAST, LABEL, RESIDUAL, new_figure, whole_numbers

WIDE = 4.6
"""Inches; 440 pixels, which a phone shows at four fifths of their size."""
_COLOURS = {"forecaster": RESIDUAL, "ridge": FORECAST, "persistence": ACTUAL, "seasonal": LABEL}


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
