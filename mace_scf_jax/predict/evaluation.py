"""Predictions for a file of structures, written beside them, and their errors."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import ase.io
import jax
import numpy as np

from mace_scf_jax.data.configuration import Configuration
from mace_scf_jax.data.keys import PREDICTION_KEYS, KeySpecification
from mace_scf_jax.data.reading import read_atoms, to_configurations, warn_about
from mace_scf_jax.data.structure import Structure
from mace_scf_jax.files import write_whole
from mace_scf_jax.graph import Graph
from mace_scf_jax.models import SelfConsistency
from mace_scf_jax.predict.convergence import NotConverged, check_policy, report_convergence
from mace_scf_jax.predict.metrics import ErrorAccumulator
from mace_scf_jax.predict.model import Model, Prediction, split_outputs
from mace_scf_jax.scf import LinearMixing
from mace_scf_jax.scf.status import SolverStatus

ALL = "all"
"""Name of the errors over all structures of a file."""

SPREAD = "_std"
"""End of the names of standard deviations over a committee."""

_INFO_OUTPUTS = {
    name: name
    for name in (
        "energy",
        "dipole",
        "stress",
        "total_charge",
        "electrostatic_energy",
        "polarizability",
        "fermi_level",
        "field_energy",
        "scf_status",
        "scf_steps",
        "scf_evaluations",
        "scf_residual",
    )
}
_CONTRIBUTIONS = {"contributions": "BO_contributions"}
"""Outputs of a structure and their names in files."""
_ARRAY_OUTPUTS = {
    "forces": "forces",
    "multipoles": "density_coefficients",
    "electrostatic_potentials": "electrostatic_potentials",
}
"""Per-atom outputs and their names in files."""

SCFHistory = Literal["none", "absolute_change", "full_history"]
"""What is written of the way to self-consistent multipoles."""


@dataclasses.dataclass(frozen=True)
class FileEvaluation:
    """Predictions and errors for the structures of a file."""

    predictions: list[Prediction]
    metrics: dict[str, dict[str, float]]
    """Errors by config type, and over `ALL` structures; empty without labels."""
    configurations: Sequence[Configuration]
    """What the file holds, with its labels."""


def evaluate_file(
    model: Model,
    path: str | Path,
    *,
    output: str | Path | None = None,
    keys: KeySpecification | None = None,
    forces: bool = True,
    stress: bool = False,
    contributions: bool = False,
    batch_size: int = 64,
    prefix: str = "MACE_",
    scf_history: SCFHistory = "none",
    not_converged: NotConverged = "warn",
) -> FileEvaluation:
    """Predict the structures of an extended XYZ file and compare with its labels.

    Args:
        model: the model.
        path: the file.
        output: where to write the structures with predictions; None for nowhere. What the file
            holds is kept; predictions are added as ``<prefix>energy``, ``<prefix>dipole``,
            ``<prefix>stress``, … in info and ``<prefix>forces``,
            ``<prefix>density_coefficients`` in arrays.
        keys: where inputs and labels are found; None for those the model was trained with.
        forces: whether to predict forces.
        stress: whether to predict stress.
        contributions: whether to write the parts of the energy that belong to the isolated atoms
            and to each layer as ``<prefix>BO_contributions``; further parts are
            ``<prefix>electrostatic_energy`` and ``<prefix>field_energy``.
        batch_size: most structures evaluated together.
        prefix: of the names of predictions.
        scf_history: what to write of the way to self-consistent multipoles, without prefix.
            "absolute_change": ``scf_convergence``, the residual of every step; "full_history": also
            ``scf_charge_history`` in arrays, the multipoles from the start to the last step side by
            side, and ``scf_convergence_relative``, the mean of their |p - p of the last step|.
        not_converged: what to do about structures whose multipoles are not self-consistent; they
            count among the errors like all others, and the file says how far each came.

    Raises:
        DataError: the file or a structure in it cannot be used.
        BoundaryError: a structure's periodicity does not fit the model's electrostatics.
        NotConvergedError: a structure did not converge, and ``not_converged`` is "raise".
        ValueError: the model has no such history.
    """
    check_policy(not_converged)
    model = _keeping(model, scf_history)
    atoms, structures = read_structures(model, path, keys=keys)
    configurations = [entry.configuration for entry in structures]
    types = np.array([configuration.config_type for configuration in configurations])
    predictions: list[Prediction] = [{} for _ in structures]
    errors = {name: ErrorAccumulator() for name in (*dict.fromkeys(types), ALL)}
    for indices, graph in model.batches(structures, batch_size=batch_size, labels=True):
        outputs = jax.device_get(
            model.evaluate(
                model.parameters, model.inputs_of(graph), None, forces=forces, stress=stress
            )
        )
        for name in dict.fromkeys(types[indices]):
            errors[name].update(outputs, only_graphs(graph, types[indices] == name))
        errors[ALL].update(outputs, graph)
        for index, prediction in zip(indices, split_outputs(outputs, graph), strict=True):
            predictions[index] = prediction
    report_convergence(
        predictions, [entry.location for entry in configurations], not_converged=not_converged
    )
    if output is not None:
        if scf_history != "none":
            for entry, prediction in zip(atoms, predictions, strict=True):
                _add_history(entry, prediction)
        write_predictions(output, atoms, predictions, prefix, info_outputs(contributions))
    metrics = {config_type: error.metrics() for config_type, error in errors.items()}
    return FileEvaluation(predictions, metrics, configurations)


def read_structures(
    model: Model, path: str | Path, *, keys: KeySpecification | None = None
) -> tuple[list[ase.Atoms], list[Structure]]:
    """The structures of an extended XYZ file, as they are and prepared for a model.

    Args:
        model: the model.
        path: the file.
        keys: where inputs and labels are found; None for those the model was trained with.

    Raises:
        DataError: the file or a structure in it cannot be used.
        BoundaryError: a structure's periodicity does not fit the model's electrostatics.
    """
    electrostatics = model.settings.electrostatics
    keys = keys or training_keys(model.record) or PREDICTION_KEYS
    atoms = read_atoms(path)
    configurations = to_configurations(
        atoms,
        keys,
        multipoles_max_l=0 if electrostatics is None else electrostatics.max_l,
        file=str(path),
    )
    warn_about(configurations, keys, str(path))
    return atoms, [model.prepare(configuration) for configuration in configurations]


def _keeping(model: Model, history: SCFHistory) -> Model:
    """The model, whose predictions have the history asked for.

    Raises:
        ValueError: there is no such history.
    """
    if history not in get_args(SCFHistory):
        known = ", ".join(get_args(SCFHistory))
        raise ValueError(f"scf_history: expected one of {known}, found {history!r}")
    if history == "none":
        return model
    if not isinstance(model.scf, SelfConsistency):
        found = "the mode direct" if model.is_self_consistent else model.settings.family
        raise ValueError(
            f"scf_history {history}: expected a model that is solved for its multipoles, "
            f"found {found}"
        )
    if history == "absolute_change":
        return model
    if not isinstance(model.scf.solver, LinearMixing):
        raise ValueError(
            "scf_history full_history: expected the solver linear_mixing, whose steps are states "
            f"of their own, found {type(model.scf.solver).__name__}"
        )
    solver = dataclasses.replace(model.scf.solver, keep_states=True)
    return dataclasses.replace(model, scf=dataclasses.replace(model.scf, solver=solver))


def _add_history(atoms: ase.Atoms, prediction: Prediction) -> None:
    """Write the way to the multipoles of a structure into its info and arrays."""
    steps = int(prediction["scf_steps"])
    atoms.info["scf_convergence"] = np.asarray(prediction["scf_history"][:steps])
    if "scf_states" in prediction:
        states = np.asarray(prediction["scf_states"])[:, : steps + 1]
        distance = np.mean(np.abs(states - states[:, -1:]), axis=(0, 2))
        atoms.info["scf_convergence_relative"] = distance
        atoms.arrays["scf_charge_history"] = states.reshape(len(atoms), -1)


def training_keys(record: Mapping[str, Any]) -> KeySpecification | None:
    """The keys that a model was trained with, or None if its record does not tell."""
    heads = record.get("heads")
    return None if heads is None else KeySpecification.from_heads(heads)


def only_graphs(graph: Graph, chosen: np.ndarray) -> Graph:
    """The batch with all graphs but the chosen ones masked.

    Args:
        graph: the batch.
        chosen: which of its real graphs, one truth value for each.
    """
    graph_mask = np.zeros(graph.num_graphs, dtype=bool)
    graph_mask[: len(chosen)] = chosen
    return graph.replace(
        graph_mask=graph_mask, atom_mask=graph.atom_mask & graph_mask[graph.atom_graph]
    )


def _written(value: Any) -> Any:
    """How a file holds an output of a structure: the status of a cycle by its name."""
    return value.name.lower() if isinstance(value, SolverStatus) else np.asarray(value)[()]


def info_outputs(contributions: bool) -> Mapping[str, str]:
    """Outputs of a structure that are written, and their names in files.

    Args:
        contributions: whether the parts of the energy are among them.
    """
    return _INFO_OUTPUTS | (_CONTRIBUTIONS if contributions else {})


def write_predictions(
    path: str | Path,
    atoms: list[ase.Atoms],
    predictions: list[Prediction],
    prefix: str,
    info: Mapping[str, str],
) -> None:
    """Write structures with their predictions, all or nothing.

    Args:
        path: the file.
        atoms: the structures.
        predictions: of each; names that end in `SPREAD` are standard deviations over a committee.
        prefix: of the names of predictions.
        info: outputs of a structure that are written, and their names; see `info_outputs`.
    """
    annotated = []
    for original, prediction in zip(atoms, predictions, strict=True):
        entry = original.copy()
        entry.calc = original.calc  # holds what the file calls energy, forces, ...
        for ending in ("", SPREAD):
            for name, written in info.items():
                if name + ending in prediction:
                    entry.info[prefix + written + ending] = _written(prediction[name + ending])
            for name, written in _ARRAY_OUTPUTS.items():
                if name + ending in prediction:
                    entry.arrays[prefix + written + ending] = np.asarray(prediction[name + ending])
        annotated.append(entry)
    with write_whole(path) as partial:
        ase.io.write(partial, annotated, format="extxyz")
