"""Learning curves: loss and validation errors of every property against the epoch.

The training set is evaluated only at the end of a run: its loss has a curve, its errors have none.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mace_scf_jax.reports.style import (
    COLOURS,
    GREY,
    INK,
    ROUND_OFF,
    TITLE_PAD,
    drawing,
    in_brackets,
    legend_beside,
    logarithmic,
    mark_stages,
    marker,
    panels,
    whole_numbers,
)
from mace_scf_jax.reports.training_run import RunError, TrainingRun
from mace_scf_jax.training.records.results_file import set_name

VALIDATION = "valid"
Spans = list[tuple[str, float, float]]
"""Name, first and last value of the epoch axis of each stage."""


@dataclasses.dataclass(frozen=True)
class Curve:
    """An error that is drawn if the run has it."""

    metric: str
    title: str
    unit: str
    scale: float = 1000.0


CURVES = (
    Curve("rmse_e_per_atom", "Energy per atom", "meV/atom"),
    Curve("rmse_f", "Forces", "meV/Å"),
    Curve("rmse_stress", "Stress", "meV/Å³"),
    Curve("rmse_charges", "Atomic charges", "me"),
    Curve("rmse_local_dipoles", "Atomic dipoles", "me Å"),
    Curve("rmse_mu_per_atom", "Total dipole per atom", "me Å/atom"),
    Curve("rmse_total_charge", "Total charge", "me"),
    Curve("rmse_fermi_level", "Fermi level", "meV"),
    Curve("rmse_polarizability_per_atom", "Polarizability per atom", "me Å²/V/atom"),
    Curve("rmse_esp", "Electrostatic potential", "mV"),
)


def learning_curves(
    run: TrainingRun, *, min_epoch: int | None = None, max_epoch: int | None = None
) -> Figure:
    """Loss, errors and learning rate of a run against the epoch.

    Stages are shaded in turn; a dot marks the epoch whose parameters each stage keeps.

    Args:
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
        spans = _spans(run, float(epochs[chosen].min()), float(epochs[chosen].max()))
        _draw_loss(axes[0], run, chosen, spans)
        for panel, curve in zip(axes[1:], curves, strict=False):
            _draw_curve(panel, run, curve, chosen, spans)
        if rates:
            _draw_rates(axes[-1], run, rates, chosen)
        legend_beside(figure, "upper", _labelled(axes[0]))
        if len(rates) > 1:
            legend_beside(figure, "lower", _labelled(axes[-1]), title="learning rates")
        for panel in axes:
            panel.set_xlabel("epoch")
            mark_stages(panel, spans, names=True)
            panel.set_xlim(spans[0][1], spans[-1][2])
            whole_numbers(panel)
    return figure


def _is_shown(run: TrainingRun, curve: Curve, chosen: np.ndarray) -> bool:
    """Whether the run has an error; what is exact, because it is given, has only round-off."""
    column = f"{VALIDATION}_{curve.metric}"
    if column not in run.history.columns:
        return False
    return bool(np.any(curve.scale * run.history.column(column)[chosen] > ROUND_OFF))


def _spans(run: TrainingRun, first: float, last: float) -> Spans:
    """The visible part of each stage on the epoch axis; neighbours share their border."""
    spans = [
        (name, max(start - 0.5, first - 0.5), min(end + 0.5, last + 0.5))
        for name, start, end in run.stage_epochs
    ]
    return [span for span in spans if span[1] < span[2]]


def _draw_loss(panel: Axes, run: TrainingRun, chosen: np.ndarray, spans: Spans) -> None:
    _draw_by_stage(panel, run, "train_loss", chosen, color=GREY, label="training (loss only)")
    _draw_sets(panel, run, "loss", chosen, spans, scale=1.0)
    panel.set_title("Loss", pad=TITLE_PAD)
    panel.set_ylabel("weighted loss")


def _draw_curve(
    panel: Axes, run: TrainingRun, curve: Curve, chosen: np.ndarray, spans: Spans
) -> None:
    _draw_sets(panel, run, curve.metric, chosen, spans, scale=curve.scale)
    panel.set_title(curve.title, pad=TITLE_PAD)
    panel.set_ylabel(f"RMSE / {in_brackets(curve.unit)}")


def _draw_sets(
    panel: Axes, run: TrainingRun, metric: str, chosen: np.ndarray, spans: Spans, *, scale: float
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
    logarithmic(panel)
    values = np.where(chosen, scale * run.history.column(f"{VALIDATION}_{metric}"), np.nan)
    _draw_kept(panel, run, values)
    _tell_what_is_below(panel, run, values, spans)


def _draw_kept(panel: Axes, run: TrainingRun, values: np.ndarray) -> None:
    """A dot at the epoch that each stage keeps, if it is on the axes."""
    epochs = run.history.column("epoch")
    low, high = panel.get_ylim()
    kept = np.isin(epochs, list(run.best_epochs().values())) & (values >= low) & (values <= high)
    if not kept.any():
        return  # a line without points that is not clipped would count as one at the origin
    panel.plot(
        epochs[kept],
        values[kept],
        "o",
        label="epoch that a stage keeps",
        color=COLOURS[0],
        markersize=4.5,
        markeredgecolor="white",
        markeredgewidth=0.8,
        zorder=4,
        clip_on=False,
    )


def _tell_what_is_below(panel: Axes, run: TrainingRun, values: np.ndarray, spans: Spans) -> None:
    """Write how small the errors of a stage are that all lie below the axis."""
    stages = run.history.column("stage")
    for name, start, end in spans:
        own = values[(stages == name) & np.isfinite(values)]
        if own.size and own.max() < panel.get_ylim()[0]:
            panel.annotate(
                f"below\n{_power_above(own.max())}" if own.max() > 0.0 else "zero",
                (0.5 * (start + end), 0.03),
                xycoords=("data", "axes fraction"),
                ha="center",
                va="bottom",
                fontsize=7.5,
                color=GREY,
            )


def _power_above(value: float) -> str:
    """The power of ten above a number."""
    return f"1e{math.floor(math.log10(value)) + 1}"


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
        look = {"marker": marker(len(epochs)), "linestyle": "-" if index < len(COLOURS) else "--"}
        panel.step(epochs, values, where="mid", color=colour, label=label, **look)
    panel.set_title("Learning rate", pad=TITLE_PAD)
    panel.set_ylabel("learning rate")
    logarithmic(panel)


def _labelled(panel: Axes) -> dict[str, Line2D]:
    """The lines of a panel that belong into a legend."""
    lines = {line.get_label(): line for line in panel.get_lines()}
    return {label: line for label, line in lines.items() if not label.startswith("_")}
