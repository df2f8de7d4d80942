"""Predictions of a committee for a file of structures: errors of the mean, and the spread."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mace_scf_jax.data.keys import KeySpecification
from mace_scf_jax.predict.committee import Committee, split_members
from mace_scf_jax.predict.convergence import NotConverged, check_policy
from mace_scf_jax.predict.evaluation import (
    ALL,
    SPREAD,
    FileEvaluation,
    info_outputs,
    only_graphs,
    read_structures,
    write_predictions,
)
from mace_scf_jax.predict.metrics import ErrorAccumulator
from mace_scf_jax.predict.model import Prediction
from mace_scf_jax.predict.uncertainty import (
    AVERAGED_OUTPUTS,
    UNCERTAINTIES,
    CommitteePrediction,
    combined,
    mean_and_std,
    uncertainty,
)


@dataclasses.dataclass(frozen=True)
class CommitteeFileEvaluation(FileEvaluation):
    """Predictions and errors of the means of a committee, and the spread of its members."""

    members: list[CommitteePrediction]
    """Everything that the members predict for each structure."""
    uncertainties: dict[str, np.ndarray]
    """Uncertainty of every structure by the name of the measure, in the order of the file."""

    def by_config_type(self) -> dict[str, np.ndarray]:
        """Positions of the structures of each config type, and of `ALL`."""
        types = np.array([entry.config_type for entry in self.configurations])
        chosen = {name: np.flatnonzero(types == name) for name in dict.fromkeys(types.tolist())}
        return chosen | {ALL: np.arange(len(types))}


def evaluate_committee_file(
    committee: Committee,
    path: str | Path,
    *,
    output: str | Path | None = None,
    keys: KeySpecification | None = None,
    forces: bool = True,
    stress: bool = False,
    contributions: bool = False,
    batch_size: int = 64,
    prefix: str = "MACE_",
    not_converged: NotConverged = "warn",
) -> CommitteeFileEvaluation:
    """Predict the structures of an extended XYZ file with every member of a committee.

    Args:
        committee: the committee.
        path: the file.
        output: where to write the structures with the means, as `evaluate_file` does, and their
            standard deviations as ``<prefix>energy_std``, ``<prefix>forces_std``, …; None for
            nowhere.
        keys: where inputs and labels are found; None for those the first member was trained with.
        forces: whether to predict forces.
        stress: whether to predict stress.
        contributions: whether to write the parts of the energy, as `evaluate_file` does.
        batch_size: most structures evaluated together.
        prefix: of the names of predictions.
        not_converged: what to do about structures whose multipoles are not self-consistent.

    Raises:
        DataError: the file or a structure in it cannot be used.
        BoundaryError: a structure's periodicity does not fit the models' electrostatics.
        NotConvergedError: a member did not converge, and ``not_converged`` is "raise".
    """
    check_policy(not_converged)
    first = committee.first
    atoms, structures = read_structures(first, path, keys=keys)
    configurations = [entry.configuration for entry in structures]
    types = np.array([configuration.config_type for configuration in configurations])
    own: list[tuple[Prediction, ...]] = [() for _ in structures]
    errors = {name: ErrorAccumulator() for name in (*dict.fromkeys(types.tolist()), ALL)}
    for indices, graph in first.batches(structures, batch_size=batch_size, labels=True):
        outputs = committee.evaluate(graph, forces=forces, stress=stress)
        means = _means(outputs)
        for name in dict.fromkeys(types[indices].tolist()):
            errors[name].update(means, only_graphs(graph, types[indices] == name))
        errors[ALL].update(means, graph)
        for index, members in zip(indices, split_members(outputs, graph), strict=True):
            own[index] = members
    committee.report_convergence(
        own, [entry.location for entry in configurations], not_converged=not_converged
    )
    predictions = [combined(members) for members in own]
    if output is not None:
        written = [_written(entry) for entry in predictions]
        write_predictions(output, atoms, written, prefix, info_outputs(contributions))
    return CommitteeFileEvaluation(
        predictions=[entry.mean for entry in predictions],
        metrics={config_type: error.metrics() for config_type, error in errors.items()},
        configurations=configurations,
        members=predictions,
        uncertainties=_uncertainties(predictions),
    )


def _means(outputs: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Means over the members, for a batch."""
    return {
        name: mean_and_std([own[name] for own in outputs])[0]
        for name in AVERAGED_OUTPUTS
        if name in outputs[0]
    }


def _uncertainties(predictions: Sequence[CommitteePrediction]) -> dict[str, np.ndarray]:
    """All measures that can be made from the predictions."""
    return {
        name: np.array([uncertainty(entry, by=name) for entry in predictions])
        for name, measure in UNCERTAINTIES.items()
        if all(needed in entry.std for entry in predictions for needed in measure.needs)
    }


def _written(prediction: CommitteePrediction) -> Prediction:
    """What a file holds of a prediction: means and standard deviations."""
    return prediction.mean | {f"{name}{SPREAD}": value for name, value in prediction.std.items()}
