"""The one door to matplotlib: figures, the axes that every picture shares, and files of them.

Figures are drawn with the Agg canvas and never through pyplot: no display, no state between two pictures.
"""

import io
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator

DAY = 86400.0
"""Seconds; matplotlib's dates are days."""
# Told apart by colour-blind eyes too.
ACTUAL, FORECAST, RESIDUAL, LIMIT = "#2f3640", "#e07000", "#0072b2", "#c0182a"
ALARM, LABEL = "#c0182a", "#a9cdea"
_SYMLOG_TICKS = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 1e4, 1e5, 1e6)


def new_figure(inches_wide: float, inches_high: float, dpi: int = 110) -> Any:
    """Return an empty figure."""
    return Figure(figsize=(inches_wide, inches_high), dpi=dpi, layout="constrained")


def save_png(figure: Any, path: Path) -> None:
    """Write a figure as PNG."""
    FigureCanvasAgg(figure).print_png(path)


def svg_of(figure: Any) -> bytes:
    """Return a figure as SVG whose text stays text; the same figure gives the same bytes."""
    stream = io.BytesIO()
    style = {
        "svg.fonttype": "none",
        "svg.hashsalt": "forewarn",
        "font.family": "sans-serif",
        "path.simplify": True,
    }
    with matplotlib.rc_context(style):
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    return stream.getvalue()


def title(axes: Any, text: str, **style: Any) -> None:
    """Write a name as it is: a tag may hold dollar signs, which would be read as a formula."""
    axes.set_title(text, loc="left", parse_math=False, **{"fontsize": 10, **style})


def fitted(name: str, most: int) -> str:
    """Take the middle out of a long name: what tells tags of a plant apart stands at their ends."""
    return name if len(name) <= most else f"{name[: most // 2 - 1]}…{name[-(most - most // 2) :]}"


def time_axis(axes: Any) -> None:
    """Let the horizontal axis show dates."""
    locator = AutoDateLocator(minticks=3, maxticks=8)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    axes.set_xlabel("time (UTC)", fontsize=8)
    axes.margins(x=0.01)


def whole_numbers(axis: Any) -> None:
    """Let an axis show whole numbers only."""
    axis.set_major_locator(MaxNLocator(integer=True))


def few_numbers(axis: Any, most: int = 5) -> None:
    """Let an axis show at most so many intervals."""
    axis.set_major_locator(MaxNLocator(most))


def score_axis(axes: Any, top: float) -> None:
    """Let the vertical axis show scores from 0 to beyond `top`; from 6 on logarithmically above 2."""
    if top > 6:
        axes.set_yscale("symlog", linthresh=2.0)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.set_yticks([tick for tick in _SYMLOG_TICKS if tick <= top])
    axes.set_ylim(0, top * (1.15 if top <= 6 else 1.8))


def line_key(name: str, colour: str, style: str) -> Any:
    """Return the entry of a line in a legend."""
    return Line2D([], [], color=colour, ls=style, label=name)


def patch_key(name: str, colour: str, alpha: float = 1.0) -> Any:
    """Return the entry of an area in a legend."""
    return Patch(color=colour, alpha=alpha, label=name)
