"""The look of all pictures: one palette that the colour-blind can read, thin lines, few ink.

Figures are made without pyplot, so that drawing needs no display and leaves no state behind.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import (
    FuncFormatter,
    Locator,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    NullLocator,
)

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D1F")
"""Okabe and Ito's palette, with a brown in place of its yellow, which is pale on white."""
GREY = "#999999"
INK = "#333333"
BAND = "#F2F2F2"

TICKS_PER_DECADE = ((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0), (1.0, 1.5, 2.0, 3.0, 5.0, 7.0))
"""Labels of logarithmic axes; the first choice that gives four of them is taken."""
ROUND_STEPS = (1, 2, 2.5, 5, 10)
"""Distances of ticks, times a power of ten."""
MOST_DECADES = 9
"""Of a logarithmic axis."""
LEAST_RATIO = 1.5
"""Of the ends of a logarithmic axis."""
ROUND_OFF = 1e-7
"""Smaller errors, in thousandths of a unit, are zero up to round-off."""

DOTS_PER_INCH = 160
TITLE_PAD = 14.5
"""Distance of a title from a panel with one line of small text between, in points."""

_SETTINGS = {
    "font.family": "DejaVu Sans",
    "font.size": 9.0,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9.0,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.6,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 8.0,
    "ytick.labelsize": 8.0,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "lines.linewidth": 1.4,
    "legend.frameon": False,
    "legend.fontsize": 8.0,
    "text.color": INK,
    "savefig.facecolor": "white",
    "svg.hashsalt": "mace-scf-jax",
    "pdf.fonttype": 42,
}


@contextlib.contextmanager
def drawing() -> Iterator[None]:
    """Draw and save in this style."""
    with matplotlib.rc_context(_SETTINGS):
        yield


def new_figure(width: float, height: float) -> Figure:
    """An empty figure.

    Args:
        width: in inches.
        height: in inches.
    """
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def panels(
    count: int, *, width: float = 3.4, height: float = 2.5, most_columns: int = 3
) -> tuple[Figure, list[Axes]]:
    """A figure with some panels in rows.

    Args:
        count: number of panels.
        width: of a panel, in inches.
        height: of a panel, in inches.
        most_columns: most panels beside each other.
    """
    columns = min(count, most_columns)
    rows = math.ceil(count / columns)
    figure = new_figure(width * columns, height * rows)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for unused in grid[count:]:
        unused.remove()
    return figure, list(grid[:count])


def save(figure: Figure, path: Path) -> Path:
    """Write a figure.

    Args:
        figure: the figure.
        path: its suffix, .png or .pdf, says how.
    """
    with drawing():
        figure.savefig(path, dpi=DOTS_PER_INCH)
    return path


def logarithmic(axes: Axes) -> None:
    """A logarithmic y axis around the lines of a panel, labelled also within a decade.

    What is smaller than the largest value by more than `MOST_DECADES` is zero up to round-off, and
    is not shown. Without any positive value, the axis stays linear.

    Args:
        axes: with all lines drawn.
    """
    values = np.concatenate([np.ravel(line.get_ydata()) for line in axes.get_lines()])
    values = values[np.isfinite(values) & (values > 0.0)]
    if not values.size:
        return
    low, high = logarithmic_limits(values)
    axes.set_yscale("log")
    axes.set_ylim(low, high)
    axes.yaxis.set_major_locator(_locator(low, high))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_minor_locator(NullLocator())


def logarithmic_limits(values: np.ndarray, *, margin: float = 0.05) -> tuple[float, float]:
    """Ends of a logarithmic axis: around the values, at least `LEAST_RATIO` apart.

    Args:
        values: positive numbers.
        margin: share of the range that is added at each end.
    """
    high = float(values.max())
    low = float(values[values >= high * 10.0**-MOST_DECADES].min())
    middle = math.sqrt(low * high)
    half = (high / low) ** (0.5 + margin)
    half = max(half, math.sqrt(LEAST_RATIO))
    return middle / half, middle * half


def _locator(low: float, high: float) -> Locator:
    """Round ticks, at least four of them: of powers of ten, or evenly within a short range."""
    for steps in TICKS_PER_DECADE:
        locator = LogLocator(subs=steps, numticks=20)
        ticks = locator.tick_values(low, high)
        if np.sum((ticks >= low) & (ticks <= high)) >= 4:
            return locator
    return MaxNLocator(nbins=6, steps=ROUND_STEPS)


def legend_beside(
    figure: Figure, where: str, entries: Mapping[str, Line2D], title: str | None = None
) -> None:
    """A legend in rows above or below all panels, where it covers nothing; the figure grows.

    Args:
        figure: with all panels.
        where: upper or lower.
        entries: a line for each label.
        title: of the legend.
    """
    longest = max(len(label) for label in entries)
    columns = max(1, int(figure.get_figwidth() / (0.6 + 0.07 * longest)))  # inches, 8 pt letters
    rows = math.ceil(len(entries) / columns) + (title is not None)
    figure.set_figheight(figure.get_figheight() + 0.18 * rows)
    legend = figure.legend(
        entries.values(),
        entries.keys(),
        loc=f"outside {where} left",
        ncols=min(columns, len(entries)),
        title=title,
        alignment="left",
    )
    legend.get_title().set_fontsize(8.0)


def marker(points: int) -> str | None:
    """How the points of a line are marked: a single one would not be seen otherwise.

    Args:
        points: their number.
    """
    return "." if points == 1 else None


def whole_numbers(axes: Axes) -> None:
    """Ticks of the x axis at whole numbers only, for epochs."""
    axes.xaxis.set_major_locator(
        MaxNLocator(nbins=6, steps=ROUND_STEPS, integer=True, min_n_ticks=1)
    )


def above(axes: Axes, text: str) -> None:
    """Small text between a panel and its title, which needs `TITLE_PAD`.

    Args:
        text: one line.
    """
    axes.annotate(
        text,
        (0.0, 1.0),
        xycoords="axes fraction",
        xytext=(0, 3),
        textcoords="offset points",
        va="bottom",
        fontsize=7.5,
    )


def mark_stages(axes: Axes, stages: Sequence[tuple[str, float, float]], *, names: bool) -> None:
    """Shade every other stage, and write the names of stages above the panel.

    Args:
        stages: name, first and last value of x.
        names: whether to write them.
    """
    for index, (name, start, end) in enumerate(stages):
        if index % 2:
            axes.axvspan(start, end, color=BAND, zorder=0, linewidth=0.0)
        if names and len(stages) > 1:
            axes.annotate(
                name,
                (0.5 * (start + end), 1.0),
                xycoords=("data", "axes fraction"),
                xytext=(0, 2),
                textcoords="offset points",
                ha="center",
                va="bottom",
                fontsize=7.5,
                color=GREY,
            )


def in_brackets(unit: str) -> str:
    """A unit as it stands after the slash of an axis label.

    Args:
        unit: such as meV/Å, which needs brackets there, or e, which needs none.
    """
    return f"({unit})" if "/" in unit or " " in unit else unit


def limits(values: Sequence[np.ndarray], *, margin: float = 0.04) -> tuple[float, float]:
    """Common limits around all values.

    Args:
        values: arrays of numbers.
        margin: share of the range that is added at each end.
    """
    everything = np.concatenate([np.ravel(part) for part in values])
    low, high = float(everything.min()), float(everything.max())
    room = margin * (high - low) or 0.5
    return low - room, high + room
