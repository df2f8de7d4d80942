"""How the self-consistent solutions of a run ended, epoch by epoch, and how much work they took."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mace_scf_jax.reports.style import (
    COLOURS,
    drawing,
    mark_stages,
    new_figure,
    whole_numbers,
)
from mace_scf_jax.reports.training_run import RunError, TrainingRun
from mace_scf_jax.training.results_file import set_name

ENDS = {"max_steps": "out of steps", "diverged": "diverged", "singular": "singular"}
"""How a solution can fail."""
MARKERS = "os^Dv"


def has_solutions(run: TrainingRun) -> bool:
    """Whether anything was solved for self-consistently in a run.

    Args:
        run: the run.
    """
    return any("scf" in record for record in (*run.results.steps, *run.results.evaluations))


def scf_convergence(
    run: TrainingRun, *, min_epoch: int | None = None, max_epoch: int | None = None
) -> Figure:
    """Share of structures without self-consistent solution, and evaluations per structure.

    Args:
        run: the run.
        min_epoch: first epoch.
        max_epoch: last epoch, included.

    Raises:
        RunError: nothing was solved for in this range.
    """
    low = -np.inf if min_epoch is None else min_epoch
    high = np.inf if max_epoch is None else max_epoch
    sets = {"training": _by_epoch(run.results.steps, low, high)}
    for record in run.results.evaluations:
        name = {"valid": "validation"}.get(set_name(record), set_name(record))
        own = [other for other in run.results.evaluations if set_name(other) == set_name(record)]
        sets.setdefault(name, _by_epoch(own, low, high))
    sets = {name: counts for name, counts in sets.items() if counts}
    if not sets:
        raise RunError("nothing was solved for self-consistently in these epochs")
    epochs = sorted({epoch for counts in sets.values() for epoch in counts})
    with drawing():
        figure = new_figure(8.0, 4.8)
        above, below = figure.subplots(2, 1, sharex=True)
        for index, (name, counts) in enumerate(sets.items()):
            _draw_failures(above, name, counts, index)
            _draw_work(below, name, counts, index)
        above.set_ylabel("not self-consistent / %")
        above.set_ylim(bottom=0.0, top=max(1.0, above.get_ylim()[1]))
        below.set_ylabel("evaluations per structure")
        below.set_ylim(bottom=0.0)
        below.set_xlabel("epoch")
        spans = [
            (stage, max(start, epochs[0]) - 0.5, min(end, epochs[-1]) + 0.5)
            for stage, start, end in run.stage_epochs
            if start <= epochs[-1] and end >= epochs[0]
        ]
        mark_stages(above, spans, names=True)
        mark_stages(below, spans, names=False)
        below.set_xlim(epochs[0] - 0.5, epochs[-1] + 0.5)
        whole_numbers(below)
        handles, labels = above.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside right upper")
    return figure


def _by_epoch(
    records: Iterable[Mapping[str, Any]], low: float, high: float
) -> dict[int, dict[str, int]]:
    """Counts of each epoch in a range, over its steps or evaluation."""
    counts: dict[int, dict[str, int]] = {}
    for record in records:
        if "scf" in record and low <= record["epoch"] <= high:
            total = counts.setdefault(record["epoch"], {})
            for kind, number in record["scf"].items():
                total[kind] = total.get(kind, 0) + number
    return counts


def _draw_failures(axes: Axes, name: str, counts: dict[int, dict[str, int]], index: int) -> None:
    """A line for each way to fail that occurs; one line at zero if none does."""
    epochs = list(counts)
    structures = np.array([counts[epoch]["structures"] for epoch in epochs])
    failures = {
        text: np.array([counts[epoch].get(kind, 0) for epoch in epochs])
        for kind, text in ENDS.items()
    }
    occurring = {text: numbers for text, numbers in failures.items() if numbers.any()}
    for text, numbers in (occurring or {"none": np.zeros(len(epochs))}).items():
        axes.plot(
            epochs,
            100.0 * numbers / structures,
            color=COLOURS[index % len(COLOURS)],
            marker=MARKERS[list(failures).index(text)] if text in failures else None,
            markersize=3.5,
            label=f"{name}: {text}",
            clip_on=False,
        )


def _draw_work(axes: Axes, name: str, counts: dict[int, dict[str, int]], index: int) -> None:
    epochs = list(counts)
    work = [counts[epoch]["evaluations"] / counts[epoch]["structures"] for epoch in epochs]
    axes.plot(epochs, work, color=COLOURS[index % len(COLOURS)], label=name)
