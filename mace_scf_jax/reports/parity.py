"""Parity plots: predictions against labels, and the errors of each config type."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mace_scf_jax.data.datasets import load_datasets
from mace_scf_jax.data.errors import DataError
from mace_scf_jax.data.reading import is_there
from mace_scf_jax.predict.evaluation import FileEvaluation
from mace_scf_jax.predict.model import Model
from mace_scf_jax.reports.comparison import Comparison, compare
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
from mace_scf_jax.reports.training_run import RunError, TrainingRun
from mace_scf_jax.training.config.options import TrainOptions, options_from
from mace_scf_jax.training.settings import data_settings

MOST_STRUCTURES = 5000
"""Of larger sets, as many structures at regular distances are predicted."""
DATA_FILES = ("train_file", "valid_file", "test_file")


@dataclasses.dataclass(frozen=True)
class ComparedSet:
    """Labels and predictions of a set."""

    comparisons: list[Comparison]
    used: int
    """Structures that were predicted."""
    total: int
    """Structures of the set."""


def compare_sets(run: TrainingRun, model: Model) -> dict[str, ComparedSet]:
    """Labels and predictions of the validation set and the test sets, these together.

    Args:
        model: of one of its stages.

    Raises:
        RunError: the model does not tell its training, or the structures are no longer there.
        DataError: they cannot be used.
    """
    if "training_options" not in model.record:
        raise RunError("the model file does not say how it was trained")
    options = _with_found_files(model.record["training_options"], run.files.work)
    # the model of the file has its dispersion
    data = load_datasets(dataclasses.replace(data_settings(options), less=None))
    tests = [entry for part in data.tests.values() for entry in part]
    compared = {}
    for name, members in (("valid", data.valid), ("test", tests)):
        rows = np.arange(len(members))
        if len(rows) > MOST_STRUCTURES:
            rows = np.linspace(0, len(rows) - 1, MOST_STRUCTURES).astype(int)
        used = [members[int(row)] for row in rows]
        structures = [model.prepare(entry) for entry in used]
        predictions = model.predict_structures(structures, stress=options.compute_stress)
        found = compare(used, predictions, atomic_energies=_atomic_energies(model))
        if found:
            compared[name] = ComparedSet(found, used=len(used), total=len(members))
    return compared


def compare_file(evaluation: FileEvaluation, model: Model) -> list[Comparison]:
    """Labels and predictions of an evaluated file.

    Args:
        evaluation: of the file.
        model: that made the predictions.

    Raises:
        DataError: the file has no labels of anything that the model predicts.
    """
    found = compare(
        evaluation.configurations, evaluation.predictions, atomic_energies=_atomic_energies(model)
    )
    if not found:
        file = evaluation.configurations[0].location.file
        raise DataError(f"{file}: found no labels of what the model predicts, so nothing to plot")
    return found


def _atomic_energies(model: Model) -> list[dict[int, float]]:
    """Energies of isolated atoms by atomic number, in eV, of every head."""
    settings = model.settings
    rows: Any = settings.atomic_energies if settings.heads else (settings.atomic_energies,)
    return [dict(zip(settings.elements, row, strict=True)) for row in rows]


def _with_found_files(recorded: Mapping[str, Any], work: Path) -> TrainOptions:
    """The options of the run; its data files are looked for here and beside the run."""
    options = dict(recorded)

    def place(file: str) -> str | None:
        places = [Path(file), work / file]
        return next((str(path) for path in places if is_there(path)), None)

    def found(name: str, file: str) -> str:
        path = place(file)
        if path is None:
            raise RunError(f"{file}: no such file ({name} of the run)")
        return path

    options |= {name: found(name, it) for name in DATA_FILES if (it := options.get(name))}
    if (replay := options.get("replay")) is not None:
        options["replay"] = replay | {"file": found("replay", replay["file"])}
    if (start := options.get("start_from")) is not None:  # perhaps the name of a public model
        options["start_from"] = place(start) or start
    return options_from(options)


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
