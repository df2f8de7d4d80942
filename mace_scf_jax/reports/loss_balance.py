"""Loss balance: how much each weighted term contributes to the loss of the training steps."""

from __future__ import annotations

import dataclasses

import numpy as np
from matplotlib.figure import Figure

from mace_scf_jax.reports.style import (
    COLOURS,
    INK,
    drawing,
    logarithmic,
    mark_stages,
    new_figure,
    whole_numbers,
)
from mace_scf_jax.reports.training_run import RunError, TrainingRun

WINDOWS = 40
"""The running mean of a stage is over this part of its steps,"""
LEAST_STEPS = 5
"""but over this number at least."""
MOST_POINTS = 4000
FEW_POINTS = 200
"""So many steps of a stage have larger points."""


@dataclasses.dataclass(frozen=True)
class TermSeries:
    """The weighted terms of the steps of one stage."""

    stage: str
    position: np.ndarray
    """Epoch of each step, with its place within the epoch as decimals."""
    terms: dict[str, np.ndarray]
    averaged: dict[str, np.ndarray]
    """Running means within the stage: the weights of the next one are others."""


def running_mean(values: np.ndarray, window: int) -> np.ndarray:
    """Mean over the steps around each step, without lag; fewer at the ends.

    Args:
        values: numbers in their order.
        window: number of steps; an even one counts one more.
    """
    ones = np.ones(2 * (window // 2) + 1)
    middle = slice(window // 2, window // 2 + len(values))
    total = np.convolve(values, ones)[middle]
    return total / np.convolve(np.ones(len(values)), ones)[middle]


def loss_terms(
    run: TrainingRun, *, min_epoch: int | None = None, max_epoch: int | None = None
) -> list[TermSeries]:
    """The weighted loss terms of all steps in a range of epochs, stage by stage.

    Args:
        min_epoch: first epoch.
        max_epoch: last epoch, included.

    Raises:
        RunError: there is no step in this range.
    """
    steps = run.results.steps
    per_epoch: dict[int, int] = {}
    places = []
    for step in steps:
        places.append(per_epoch.get(step["epoch"], 0))
        per_epoch[step["epoch"]] = places[-1] + 1
    positions = np.array(
        [
            step["epoch"] + (place + 0.5) / per_epoch[step["epoch"]]
            for step, place in zip(steps, places, strict=True)
        ]
    )
    low = -np.inf if min_epoch is None else min_epoch
    high = np.inf if max_epoch is None else max_epoch
    series = []
    for stage in run.results.stages:
        own = [index for index, step in enumerate(steps) if step["stage"] == stage]
        shown = np.array([low <= steps[index]["epoch"] <= high for index in own])
        if not shown.any():
            continue
        names = list(steps[own[0]]["loss_terms"])
        values = {
            name: np.array([steps[index]["loss_terms"][name] for index in own]) for name in names
        }
        series.append(
            TermSeries(
                stage=stage,
                position=positions[own][shown],
                terms={name: column[shown] for name, column in values.items()},
                averaged={
                    name: running_mean(column, max(LEAST_STEPS, len(own) // WINDOWS))[shown]
                    for name, column in values.items()
                },
            )
        )
    if not series:
        raise RunError(
            f"no training step in epochs {min_epoch} to {max_epoch}; the run has "
            f"{steps[0]['epoch']} to {steps[-1]['epoch']}"
        )
    return series


def loss_balance(
    run: TrainingRun, *, min_epoch: int | None = None, max_epoch: int | None = None
) -> Figure:
    """The weighted loss terms of the training steps, and their shares of the loss.

    Above, every step (points) and running means (lines); below, shares of the running means.

    Args:
        min_epoch: first epoch.
        max_epoch: last epoch, included.

    Raises:
        RunError: there is no step in this range.
    """
    series = loss_terms(run, min_epoch=min_epoch, max_epoch=max_epoch)
    names = list(dict.fromkeys(name for part in series for name in part.terms))
    colours = {name: COLOURS[index % len(COLOURS)] for index, name in enumerate(names)}
    with drawing():
        figure = new_figure(8.0, 5.4)
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
        for part in series:
            every = slice(None, None, max(1, len(part.position) // MOST_POINTS))
            position = part.position[every]
            size = 6.0 if len(position) <= FEW_POINTS else 3.0
            for name, values in part.terms.items():
                above.plot(
                    position,
                    values[every],
                    ".",
                    color=colours[name],
                    markersize=size,
                    markeredgewidth=0.0,
                    alpha=0.5,
                    rasterized=True,
                )
                above.plot(position, part.averaged[name][every], color=colours[name])
            total = np.sum(list(part.averaged.values()), axis=0)
            below.stackplot(
                position,
                [100.0 * (part.averaged[name] / total)[every] for name in part.averaged],
                colors=[colours[name] for name in part.averaged],
                alpha=0.85,
                linewidth=0.0,
            )
        spans = [
            (part.stage, np.floor(part.position[0]), np.ceil(part.position[-1])) for part in series
        ]
        mark_stages(above, spans, names=True)
        for _, _, end in spans[:-1]:
            below.axvline(end, color="white", linewidth=1.5)
        above.set_ylabel("weighted loss term")
        logarithmic(above)
        handles = [above.plot([], [], color=colours[name], linewidth=2.5)[0] for name in names]
        handles += above.plot([], [], ".", color=INK, markersize=6.0, markeredgewidth=0.0)
        handles += above.plot([], [], color=INK)
        labels = [*names, "one step", "running mean"]
        figure.legend(handles, labels, loc="outside right upper")
        below.set_ylabel("share / %")
        below.set_ylim(0.0, 100.0)
        below.set_xlabel("epoch")
        below.set_xlim(spans[0][1], spans[-1][2])
        below.grid(visible=False)
        whole_numbers(below)
    return figure
