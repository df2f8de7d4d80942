"""Parity plots: predictions against labels, and the errors of each config type."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mace_scf_jax.reports.comparison import Comparison
from mace_scf_jax.reports.style import (
    COLOURS,
    GREY,
    INK,
    ROUND_OFF,
    TITLE_PAD,
    above,
    drawing,
    in_brackets,
    limits,
    new_figure,
    panels,
)

MOST_POINTS = 20_000
"""More entries are thinned out at random in the plot, not in the errors."""
OTHERS = "other"
MOST_COLUMNS = 6


def parity(comparisons: Sequence[Comparison]) -> Figure:
    """Predictions against labels, one panel per property, coloured by config type.

    The most frequent config types have a colour of their own, the rest is grey.

    Args:
        comparisons: of labels and predictions, at least one.
    """
    types = _most_frequent(comparisons)
    with drawing():
        figure, axes = panels(len(comparisons), width=3.3, height=3.1)
        for panel, comparison in zip(axes, comparisons, strict=True):
            _draw(panel, comparison, types)
        names = list(types)
        if len(names) > 1:
            handles = [
                axes[0].plot([], [], "o", color=types[name], markersize=5)[0] for name in names
            ]
            figure.legend(handles, names, loc="outside right upper", title="config type")
    return figure


def errors_by_type(comparisons: Sequence[Comparison]) -> Figure:
    """The root mean square error of each property for every config type.

    Args:
        comparisons: of labels and predictions, at least one.
    """
    types = sorted({str(name) for part in comparisons for name in np.unique(part.config_type)})
    lines = math.ceil(len(comparisons) / MOST_COLUMNS)
    columns = math.ceil(len(comparisons) / lines)
    with drawing():
        figure = new_figure(1.3 + 1.75 * columns, lines * (1.0 + 0.2 * len(types)))
        grid = figure.subplots(lines, columns, sharey=True, squeeze=False).ravel()
        for unused in grid[len(comparisons) :]:
            unused.remove()
        for panel, comparison in zip(grid, comparisons, strict=False):
            _draw_types(panel, comparison, types)
        grid[0].set_yticks(range(len(types)), types)
        grid[0].set_ylim(len(types) - 0.4, -0.6)
    return figure


def _draw_types(panel: Axes, comparison: Comparison, types: Sequence[str]) -> None:
    """One line for each config type, as long as its error; dashed, the error over all."""
    own = [comparison.of(name) for name in types]
    rows = [row for row, part in enumerate(own) if part.error.size]
    values = [1000.0 * own[row].rmse for row in rows]
    overall = 1000.0 * comparison.rmse
    panel.axvline(overall, color=GREY, linewidth=1.0, linestyle=(0, (4, 2)))
    panel.hlines(rows, 0.0, values, color=COLOURS[0], linewidth=1.2, alpha=0.5)
    panel.plot(values, rows, "o", color=COLOURS[0], markersize=4.5, clip_on=False)
    largest = max([*values, overall])
    panel.set_xlim(0.0, 1.08 * largest if largest > ROUND_OFF else 1.0)
    panel.locator_params(axis="x", nbins=4)
    panel.set_title(comparison.quantity.title, fontsize=8.5)
    panel.set_xlabel(f"RMSE / {in_brackets(comparison.quantity.error_unit)}")
    panel.grid(axis="y", visible=False)
    panel.tick_params(axis="y", length=0)


def _most_frequent(comparisons: Sequence[Comparison]) -> dict[str, str]:
    """Colour of each config type that has one, and grey for all others."""
    names, counts = np.unique(
        np.concatenate([part.config_type for part in comparisons]), return_counts=True
    )
    ordered = [str(name) for name in names[np.argsort(-counts, kind="stable")]]
    if len(ordered) <= len(COLOURS):
        return dict(zip(ordered, COLOURS, strict=False))
    others = f"{OTHERS} ({len(ordered) - len(COLOURS) + 1})"
    return dict(zip(ordered[: len(COLOURS) - 1], COLOURS, strict=False)) | {others: GREY}


def _draw(panel: Axes, comparison: Comparison, types: dict[str, str]) -> None:
    """One parity plot with the errors over all entries."""
    quantity = comparison.quantity
    shown = np.arange(len(comparison.error))
    if len(shown) > MOST_POINTS:
        shown = np.random.default_rng(0).choice(shown, MOST_POINTS, replace=False)
    else:
        shown = np.random.default_rng(0).permutation(shown)  # no type covers all others
    colours = np.array([types.get(str(name), GREY) for name in comparison.config_type[shown]])
    ends = limits([comparison.reference, comparison.prediction])
    panel.plot(ends, ends, color=INK, linewidth=0.8, zorder=1)
    panel.scatter(
        comparison.reference[shown],
        comparison.prediction[shown],
        c=colours,
        s=7.0 if len(shown) < 2000 else 3.0,
        alpha=0.75,
        linewidths=0.0,
        rasterized=True,
        zorder=2,
    )
    panel.set_xlim(ends)
    panel.set_ylim(ends)
    panel.set_aspect("equal")
    panel.locator_params(nbins=5)
    panel.set_title(quantity.title, pad=TITLE_PAD)
    errors = f"RMSE {_number(1000.0 * comparison.rmse)}, MAE {_number(1000.0 * comparison.mae)}"
    above(panel, f"{errors} {quantity.error_unit}")
    unit = in_brackets(quantity.unit)
    panel.set_xlabel(f"reference / {unit}")
    panel.set_ylabel(f"predicted / {unit}")


def _number(value: float) -> str:
    """Three significant digits without exponent; round-off as two with it."""
    if value <= ROUND_OFF:
        return f"{value:.2g}"
    decimals = max(0, 2 - int(np.floor(np.log10(value))))
    return f"{value:.{min(decimals, 9)}f}"
