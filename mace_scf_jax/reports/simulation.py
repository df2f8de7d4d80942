"""Pictures of simulations, drawn from their logs."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mace_scf_jax.reports.style import COLOURS, GREY, INK, drawing, marker, new_figure

MOST_POINTS = 200
"""Points of a running mean over a tenth of the run."""


@dataclasses.dataclass(frozen=True)
class Panel:
    """What is drawn of a quantity."""

    label: str
    columns: Mapping[str, str]
    """Columns of the log, by what the legend calls them."""
    relative: bool = False
    """Whether the first value is subtracted."""
    target: float | None = None
    """Value that the simulation is to have on average."""
    with_mean: bool = True
    """Whether the running mean is drawn over the values, which fluctuate."""


def simulation_log(
    path: str | Path, *, temperature: float | None = None, pressure: float | None = None
) -> Figure:
    """The log of a simulation over time: energies, temperature, pressure, volume.

    Energies are relative to the first row. Thick lines are means over a tenth of the rows, dashed
    ones what the baths aim at.

    Args:
        path: of the log.
        temperature: of the thermostat, K; None without one.
        pressure: of the barostat, bar; None without one.
    """
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    energies = {"potential": "potential_energy_eV", "conserved": "conserved_energy_eV"}
    panels = [
        Panel("energy change / eV", energies, relative=True, with_mean=False),
        Panel("temperature / K", {"": "temperature_K"}, target=temperature),
        Panel("pressure / bar", {"": "pressure_bar"}, target=pressure),
    ]
    if pressure is not None:
        panels.append(Panel("volume / Å³", {"": "volume_A3"}))
    shown = [panel for panel in panels if any(rows[0][name] for name in panel.columns.values())]
    time = _column(rows, "time_ps")
    with drawing():
        figure = new_figure(6.4, 0.3 + 1.6 * len(shown))
        axes = np.atleast_1d(figure.subplots(len(shown), sharex=True))
        for axis, panel in zip(axes, shown, strict=True):
            _draw(axis, panel, time, rows)
        axes[-1].set_xlabel("time / ps")
        figure.align_ylabels(list(axes))
    return figure


def _draw(axes: Axes, panel: Panel, time: np.ndarray, rows: list[dict[str, str]]) -> None:
    drawn = {label: name for label, name in panel.columns.items() if rows[0][name]}
    for colour, (label, name) in zip(COLOURS, drawn.items(), strict=False):
        values = _column(rows, name)
        values = values - values[0] if panel.relative else values
        pale = {"alpha": 0.45, "linewidth": 0.9} if panel.with_mean else {}
        axes.plot(time, values, color=colour, marker=marker(len(time)), label=label, **pale)
        if panel.with_mean:
            at, mean = running_mean(time, values)
            axes.plot(at, mean, color=colour, linewidth=1.8, label="running mean")
    if panel.target is not None:
        wanted = f"target {panel.target:g}"
        axes.axhline(panel.target, color=INK, linewidth=0.9, linestyle=(0, (4, 2)), label=wanted)
    if panel.relative:
        axes.axhline(0.0, color=GREY, linewidth=0.6, zorder=0)
    axes.set_ylabel(panel.label)
    if len(axes.get_legend_handles_labels()[0]) > 1:
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))


def _column(rows: list[dict[str, str]], name: str) -> np.ndarray:
    return np.array([float(row[name]) for row in rows])


def running_mean(time: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means over windows of a tenth of the rows, at the means of their times.

    Args:
        time: of the rows.
        values: of the rows.
    """
    width = max(1, len(values) // 10)
    sums = np.cumsum(np.stack([time, values]), axis=1)
    sums = np.concatenate([np.zeros((2, 1)), sums], axis=1)
    means = (sums[:, width:] - sums[:, :-width]) / width
    step = max(1, means.shape[1] // MOST_POINTS)
    return means[0, ::step], means[1, ::step]
