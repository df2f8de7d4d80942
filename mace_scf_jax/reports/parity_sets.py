"""What parity plots are made of: the sets of a run, or a file of structures."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mace_scf_jax.data.datasets import load_datasets
from mace_scf_jax.data.errors import DataError
from mace_scf_jax.predict.evaluation import FileEvaluation
from mace_scf_jax.predict.model import Model
from mace_scf_jax.reports.comparison import Comparison, compare
from mace_scf_jax.reports.training_run import RunError, TrainingRun
from mace_scf_jax.training.config.options import TrainOptions, options_from
from mace_scf_jax.training.preparation import data_settings

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
        run: the run.
        model: of one of its stages.

    Raises:
        RunError: the model does not tell its training, or the structures are no longer there.
        DataError: they cannot be used.
    """
    if "training_options" not in model.record:
        raise RunError("the model file does not say how it was trained")
    options = _with_found_files(model.record["training_options"], run.files.work)
    data = load_datasets(data_settings(options))
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


def _atomic_energies(model: Model) -> dict[int, float]:
    """Energies of isolated atoms by atomic number, in eV."""
    return dict(zip(model.settings.elements, model.settings.atomic_energies, strict=True))


def _with_found_files(recorded: Mapping[str, Any], work: Path) -> TrainOptions:
    """The options of the run; its data files are looked for here and beside the run."""
    options = dict(recorded)
    for name in DATA_FILES:
        if options.get(name) is None:
            continue
        path = Path(options[name])
        places = [path, work / path]
        found = next((place for place in places if place.exists()), None)
        if found is None:
            raise RunError(f"{path}: no such file ({name} of the run)")
        options[name] = str(found)
    return options_from(options)
