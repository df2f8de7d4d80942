"""The validation and test sets of a run, predicted by its model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mace_scf_jax.data.datasets import load_datasets
from mace_scf_jax.reports.comparison import Comparison, compare
from mace_scf_jax.reports.training_run import RunError, TrainingRun
from mace_scf_jax.simulate.model import Model
from mace_scf_jax.training.options import TrainOptions
from mace_scf_jax.training.preparation import data_settings

DATA_FILES = ("train_file", "valid_file", "test_file")


def compare_sets(run: TrainingRun, model: Model) -> dict[str, list[Comparison]]:
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
    sets = {"valid": data.valid, "test": [entry for part in data.tests.values() for entry in part]}
    energies = dict(zip(model.settings.elements, model.settings.atomic_energies, strict=True))
    compared = {}
    for name, members in sets.items():
        structures = [model.prepare(entry) for entry in members]
        predictions = model.predict_structures(structures, stress=options.compute_stress)
        found = compare(members, predictions, atomic_energies=energies)
        if found:
            compared[name] = found
    return compared


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
    return TrainOptions(**options)
