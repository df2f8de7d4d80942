"""Learning curves: loss and errors of every property against the epoch."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mace_scf_jax.reports.style import (
    COLOURS,
    GREY,
    INK,
    drawing,
    in_brackets,
    logarithmic,
    mark_stages,
    marker,
    panels,
    whole_numbers,
)
from mace_scf_jax.reports.training_run import RunError, TrainingRun
from mace_scf_jax.training.results_file import set_name

VALIDATION = "valid"


@dataclasses.dataclass(frozen=True)
class Curve:
    """An error that is drawn if the run has it."""

    metric: str
    title: str
    unit: str
    scale: float = 1000.0


CURVES = (
    Curve("rmse_e_per_atom", "Energy", "meV/atom"),
    Curve("rmse_f", "Forces", "meV/Å"),
    Curve("rmse_stress", "Stress", "meV/Å³"),
    Curve("rmse_charges", "Atomic charges", "me"),
    Curve("rmse_local_dipoles", "Atomic dipoles", "me Å"),
    Curve("rmse_mu_per_atom", "Total dipole", "me Å/atom"),
    Curve("rmse_total_charge", "Total charge", "me"),
    Curve("rmse_fermi_level", "Fermi level", "meV"),
    Curve("rmse_polarizability_per_atom", "Polarizability", "me Å²/V/atom"),
    Curve("rmse_esp", "Electrostatic potential", "mV"),
)


def learning_curves(
    run: TrainingRun, *, min_epoch: int | None = None, max_epoch: int | None = None
) -> Figure:
    """Loss, errors and learning rate of a run against the epoch.

    Stages are shaded in turn; a dot marks the epoch whose parameters each stage keeps.

    Args:
        run: the run.
        min_epoch: first epoch to draw.
        max_epoch: last epoch to draw, included.

    Raises:
        RunError: no epoch in this range was evaluated.
    """
    history = run.history
    if not history.rows:
        raise RunError(f"{run.files.results}: no epoch was evaluated yet")
    epochs = history.column("epoch")
    chosen = np.ones(len(epochs), dtype=bool)
    chosen &= epochs >= (epochs.min() if min_epoch is None else min_epoch)
    chosen &= epochs <= (epochs.max() if max_epoch is None else max_epoch)
    if not chosen.any():
        raise RunError(
            f"no epoch from {min_epoch} to {max_epoch} was evaluated; the run has "
            f"{epochs.min()} to {epochs.max()}"
        )
    curves = [curve for curve in CURVES if _is_shown(run, curve, chosen)]
    rates = [name for name in history.columns if name == "lr" or name.endswith("_lr")]
    with drawing():
        figure, axes = panels(1 + len(curves) + bool(rates))
        _draw_loss(axes[0], run, chosen)
        for panel, curve in zip(axes[1:], curves, strict=False):
            _draw_curve(panel, run, curve, chosen)
        if rates:
            _draw_rates(axes[-1], run, rates, chosen)
        spans = _spans(run, float(epochs[chosen].min()), float(epochs[chosen].max()))
        for panel in axes:
            panel.set_xlabel("epoch")
            mark_stages(panel, spans, names=True)
            panel.set_xlim(spans[0][1], spans[-1][2])
            whole_numbers(panel)
    return figure


def _is_shown(run: TrainingRun, curve: Curve, chosen: np.ndarray) -> bool:
    """Whether the run has an error; what is predicted exactly, because it is given, has none."""
    column = f"{VALIDATION}_{curve.metric}"
    return column in run.history.columns and bool(np.any(run.history.column(column)[chosen] > 0.0))


def _spans(run: TrainingRun, first: float, last: float) -> list[tuple[str, float, float]]:
    """The visible part of each stage on the epoch axis; neighbours share their border."""
    spans = [
        (name, max(start - 0.5, first - 0.5), min(end + 0.5, last + 0.5))
        for name, start, end in run.stage_epochs
    ]
    return [span for span in spans if span[1] < span[2]]


def _draw_loss(panel: Axes, run: TrainingRun, chosen: np.ndarray) -> None:
    _draw_by_stage(panel, run, "train_loss", chosen, color=GREY, label="training (epoch mean)")
    _draw_sets(panel, run, "loss", chosen, scale=1.0)
    panel.set_title("Loss", pad=13)
    panel.set_ylabel("weighted loss")
    logarithmic(panel)
    panel.legend(loc="upper right")


def _draw_curve(panel: Axes, run: TrainingRun, curve: Curve, chosen: np.ndarray) -> None:
    _draw_sets(panel, run, curve.metric, chosen, scale=curve.scale)
    panel.set_title(curve.title, pad=13)
    panel.set_ylabel(f"RMSE / {in_brackets(curve.unit)}")
    logarithmic(panel)


def _draw_sets(
    panel: Axes, run: TrainingRun, metric: str, chosen: np.ndarray, *, scale: float
) -> None:
    """The curve of the validation set with the kept epochs, and those of test sets."""
    tests = {set_name(record) for record in run.results.evaluations} - {VALIDATION}
    for index, name in enumerate((VALIDATION, *sorted(tests))):
        if f"{name}_{metric}" in run.history.columns:
            look = {"linewidth": 1.0, "label": name}
            if name == VALIDATION:
                look = {"linewidth": 1.6, "label": "validation", "zorder": 3}
            colour = COLOURS[index % len(COLOURS)]
            _draw_by_stage(
                panel, run, f"{name}_{metric}", chosen, scale=scale, color=colour, **look
            )
    epochs = run.history.column("epoch")
    kept = chosen & np.isin(epochs, list(run.best_epochs().values()))
    panel.plot(
        epochs[kept],
        scale * run.history.column(f"{VALIDATION}_{metric}")[kept],
        "o",
        color=COLOURS[0],
        markersize=4.5,
        markeredgecolor="white",
        markeredgewidth=0.8,
        zorder=4,
        clip_on=False,
    )


def _draw_by_stage(
    panel: Axes,
    run: TrainingRun,
    column: str,
    chosen: np.ndarray,
    *,
    scale: float = 1.0,
    label: str,
    **look: Any,
) -> None:
    """A line for each stage, so that no line leads from one to the next."""
    epochs, values = run.history.column("epoch"), scale * run.history.column(column)
    stages = run.history.column("stage")
    for stage in dict.fromkeys(stages[chosen]):
        part = chosen & (stages == stage) & np.isfinite(values)
        mark = marker(int(part.sum()))
        panel.plot(epochs[part], values[part], marker=mark, label=label, **look)
        label = "_"  # one entry in the legend


def _draw_rates(panel: Axes, run: TrainingRun, rates: list[str], chosen: np.ndarray) -> None:
    epochs = run.history.column("epoch")[chosen]
    for index, name in enumerate(rates):
        values = run.history.column(name)[chosen]
        colour = INK if name == "lr" else COLOURS[index % len(COLOURS)]
        label = "all other groups" if name == "lr" else name.removesuffix("_lr")
        mark = marker(len(epochs))
        panel.step(epochs, values, where="mid", marker=mark, color=colour, label=label)
    panel.set_title("Learning rate", pad=13)
    panel.set_ylabel("learning rate")
    logarithmic(panel)
    if len(rates) > 1:
        panel.legend(loc="upper right")
