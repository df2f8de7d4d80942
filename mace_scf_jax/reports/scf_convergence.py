"""How the self-consistent solutions of a run ended, epoch by epoch, and how much work they took."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mace_scf_jax.predict.scf_diagnosis import Diagnosis, SolverRun
from mace_scf_jax.reports.style import (
    COLOURS,
    GREY,
    drawing,
    mark_stages,
    marker,
    new_figure,
    whole_numbers,
)
from mace_scf_jax.reports.training_run import RunError, TrainingRun
from mace_scf_jax.training.records.results_file import set_name

FAILURES = {"max_steps": "out of steps", "diverged": "diverged", "singular": "singular"}
"""How a solution can fail."""

TRAINING, VALIDATION = "training", "validation"
LEAST_PERCENT = 10.0
"""Upper end of an axis of shares, at least."""
DASHES = ((4, 2), (1, 1.5), (6, 2, 1, 2))
"""Of test sets, so that equal curves of several sets can be seen."""
Counts = Mapping[int, Mapping[str, int]]
"""How many solutions ended in which way, by epoch."""


def has_solutions(run: TrainingRun) -> bool:
    """Whether anything was solved for self-consistently in a run."""
    return any("scf" in record for record in (*run.results.steps, *run.results.evaluations))


def scf_convergence(
    run: TrainingRun, *, min_epoch: int | None = None, max_epoch: int | None = None
) -> Figure:
    """Share of structures without self-consistent solution, and evaluations per structure.

    Args:
        min_epoch: first epoch.
        max_epoch: last epoch, included.

    Raises:
        RunError: nothing was solved for in this range.
    """
    low = -np.inf if min_epoch is None else min_epoch
    high = np.inf if max_epoch is None else max_epoch
    sets = {TRAINING: _by_epoch(run.results.steps, low, high)}
    evaluations = run.results.evaluations
    for name in dict.fromkeys(set_name(record) for record in evaluations):
        own = (record for record in evaluations if set_name(record) == name)
        sets[{"valid": VALIDATION}.get(name, name)] = _by_epoch(own, low, high)
    sets = {name: counts for name, counts in sets.items() if counts}
    if not sets:
        raise RunError("nothing was solved for self-consistently in these epochs")
    epochs = sorted({epoch for counts in sets.values() for epoch in counts})
    occurring = [
        kind
        for kind in FAILURES
        if any(count.get(kind) for counts in sets.values() for count in counts.values())
    ]
    with drawing():
        figure = new_figure(8.0, 1.9 * (max(1, len(occurring)) + 1) + 0.3)
        axes = figure.subplots(max(1, len(occurring)) + 1, 1, sharex=True)
        for panel, kind in zip(axes, occurring, strict=False):
            _draw(panel, sets, lambda count, kind=kind: 100.0 * count[kind] / count["structures"])
            panel.set_ylabel(f"{FAILURES[kind]} / %")
        if not occurring:
            _draw(axes[0], sets, lambda count: 0.0)
            axes[0].set_ylabel("not self-consistent / %")
        _draw(axes[-1], sets, lambda count: count["evaluations"] / count["structures"])
        axes[-1].set_ylabel("evaluations\nper structure")
        axes[-1].set_xlabel("epoch")
        spans = [
            (stage, max(start, epochs[0]) - 0.5, min(end, epochs[-1]) + 0.5)
            for stage, start, end in run.stage_epochs
            if start <= epochs[-1] and end >= epochs[0]
        ]
        for panel in axes:
            top = 1.08 * max(float(np.max(line.get_ydata())) for line in panel.get_lines())
            if panel is not axes[-1]:
                top = max(top, LEAST_PERCENT)
            panel.set_ylim(-0.04 * top, top)  # a line at zero is not on the frame
            mark_stages(panel, spans, names=panel is axes[0])
        axes[-1].set_xlim(epochs[0] - 0.5, epochs[-1] + 0.5)
        whole_numbers(axes[-1])
        figure.legend(axes[0].get_lines(), list(sets), loc="outside right upper")
        figure.align_ylabels(axes)
    return figure


def _draw(
    panel: Axes, sets: Mapping[str, Counts], value: Callable[[Mapping[str, int]], float]
) -> None:
    """A line for each set, in the colours of the learning curves; equal ones remain visible."""
    for index, (name, counts) in enumerate(sets.items()):
        values = [value(count) for count in counts.values()]
        mark = marker(len(values))
        panel.plot(
            list(counts), values, marker=mark, label=name, clip_on=False, **_look(name, index)
        )


def _look(name: str, index: int) -> dict[str, Any]:
    """Training broad and pale below all others, validation solid, test sets dashed."""
    if name == TRAINING:
        return {"color": GREY, "linewidth": 4.0, "alpha": 0.6, "markersize": 12.0}
    dashes = "solid" if name == VALIDATION else (0, DASHES[index % len(DASHES)])
    return {"color": COLOURS[(index - 1) % len(COLOURS)], "linestyle": dashes}


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


def solver_convergence(diagnoses: Sequence[Diagnosis], *, tolerance: float | None = None) -> Figure:
    """Residual of every structure against the evaluations of F that it took.

    One colour per solver, one line per structure; a cross marks the end of a search that failed.
    Solvers that evaluate F several times in a step are drawn as if evenly.

    Args:
        diagnoses: of the structures.
        tolerance: residual of a converged structure, if it is the same for all solvers.
    """
    with drawing():
        figure = new_figure(6.4, 3.8)
        axes = figure.subplots()
        for name, colour in zip(diagnoses[0].runs, COLOURS, strict=False):
            runs = [diagnosis.runs[name] for diagnosis in diagnoses]
            solved = sum(run.has_converged for run in runs)
            axes.plot([], [], color=colour, label=f"{name} ({solved} of {len(runs)} converged)")
            opacity = float(np.clip(4.0 / len(runs), 0.25, 0.9))
            for run in runs:
                _draw_run(axes, run, colour, opacity if run.has_converged else 0.9)
        if tolerance is not None:
            axes.axhline(tolerance, color=GREY, linewidth=0.8, linestyle="--", label="tolerance")
        axes.set(yscale="log", xlabel="evaluations of the map F", ylabel="residual / e Å$^l$")
        axes.set_xlim(left=0.0)
        axes.legend(loc="upper right")
    return figure


def _draw_run(axes: Axes, run: SolverRun, colour: str, opacity: float) -> None:
    """One line, from the initial residual to the last."""
    history = np.array(run.history)
    at = np.linspace(0.0, run.evaluations, len(history))
    shown = np.where(np.isfinite(history) & (history > 0.0), history, np.nan)
    marker = "o" if run.has_converged else "x"
    axes.plot(at, shown, color=colour, alpha=opacity, linewidth=1.1)
    axes.plot(at[-1], shown[-1], marker, color=colour, alpha=opacity, markersize=4.0)
