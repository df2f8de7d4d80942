"""Predictions for a file of structures, written beside them, and their errors."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Unpack, get_args

import ase.io
import numpy as np
from ase.calculators.calculator import all_properties
from ase.calculators.singlepoint import SinglePointCalculator
from ase.stress import full_3x3_to_voigt_6_stress

from mace_scf_jax.data.ase_formats import EXTENDED_XYZ, format_to_write
from mace_scf_jax.data.checks import stored_keys
from mace_scf_jax.data.configuration import Configuration
from mace_scf_jax.data.reading import ReadStructures, read_located, warn_about
from mace_scf_jax.data.structure import Structure
from mace_scf_jax.files import write_whole
from mace_scf_jax.graph import Graph
from mace_scf_jax.models import SelfConsistency, Use
from mace_scf_jax.models.outputs import outputs_for
from mace_scf_jax.models.response import NoDipoleError
from mace_scf_jax.models.screening import dipole_scale
from mace_scf_jax.predict.born_charge_labels import BornChargeOrder, read_born_charges
from mace_scf_jax.predict.committee import Committee
from mace_scf_jax.predict.convergence import NotConverged
from mace_scf_jax.predict.metrics import ErrorAccumulator
from mace_scf_jax.predict.model import Model
from mace_scf_jax.predict.prediction import Prediction
from mace_scf_jax.predict.predictor import Notify
from mace_scf_jax.predict.response import respond
from mace_scf_jax.predict.response_scores import ResponseScores, reading_dipoles, score
from mace_scf_jax.predict.spread import UNCERTAINTIES, CommitteePrediction, uncertainty
from mace_scf_jax.predict.use import Options, SCFHistory
from mace_scf_jax.scf import LinearMixing
from mace_scf_jax.scf.status import SolverStatus

ALL = "all"
"""Name of the errors over all structures of a file."""

SPREAD = "_std"
"""End of the names of standard deviations over a committee."""


@dataclasses.dataclass(frozen=True)
class FileEvaluation:
    """Predictions and errors for the structures of a file."""

    predictions: list[Prediction]
    """Of a committee, the means over its members, or those of its reference member."""
    metrics: dict[str, dict[str, float]]
    """Errors by config type, and over `ALL` structures; empty without labels."""
    configurations: Sequence[Configuration]
    """What the file holds, with its labels."""
    response: ResponseScores | None = None
    """How dipoles and Born charges agree with those of the file, if that was asked for."""

    def by_config_type(self) -> dict[str, np.ndarray]:
        """Positions of the structures of each config type, and of `ALL`."""
        types = np.array([entry.config_type for entry in self.configurations])
        chosen = {name: np.flatnonzero(types == name) for name in dict.fromkeys(types.tolist())}
        return chosen | {ALL: np.arange(len(types))}

    @functools.cached_property
    def extrapolation(self) -> np.ndarray | None:
        """Fraction of the features of each structure outside the range of the training set.

        None of models that do not know that range.
        """
        if any("extrapolation" not in entry for entry in self.predictions):
            return None
        return np.array([np.mean(entry["extrapolation"]) for entry in self.predictions])


@dataclasses.dataclass(frozen=True)
class CommitteeFileEvaluation(FileEvaluation):
    """Predictions and errors of a committee, and the spread of its members."""

    members: list[CommitteePrediction] = dataclasses.field(kw_only=True)
    """Everything that the members predict for each structure."""

    @functools.cached_property
    def uncertainties(self) -> dict[str, np.ndarray]:
        """Uncertainty of every structure by the name of each measure that can be made."""
        return {
            name: np.array([uncertainty(entry, by=name) for entry in self.members])
            for name, measure in UNCERTAINTIES.items()
            if all(needed in entry.std for entry in self.members for needed in measure.needs)
        }


def evaluate_file(
    model: Model | Committee,
    path: str | Path,
    *,
    output: str | Path | None = None,
    forces: bool = True,
    stress: bool = False,
    contributions: bool = False,
    descriptors: bool = False,
    born_charges: bool | str = False,
    born_charges_order: BornChargeOrder | str = BornChargeOrder.AUTO,
    batch_size: int = 64,
    prefix: str = "MACE_",
    scf_history: SCFHistory = "none",
    not_converged: NotConverged = "warn",
    notify: Notify | None = None,
    **options: Unpack[Options],
) -> FileEvaluation | CommitteeFileEvaluation:
    """Predict the structures of a file, in any format of ASE, and compare with its labels.

    Args:
        model: a model, or a committee, whose means or reference member are compared.
        output: where to write the structures with predictions; None for nowhere. What the file
            holds is kept; predictions are added as ``<prefix>energy``, ``<prefix>dipole``,
            ``<prefix>stress``, … in info and ``<prefix>forces``, ``<prefix>charges``,
            ``<prefix>multipoles``, … in arrays, and the standard deviations of a committee as
            ``<prefix>energy_std``, …. Other formats than extended XYZ hold instead what is
            predicted of that which ASE's calculators have.
        forces, stress, batch_size, not_converged: see `Predictor.predict`. Structures whose
            multipoles were not found count among the errors like all others.
        contributions: whether to write the parts of the energy that belong to the isolated atoms
            and to each layer as ``<prefix>BO_contributions``; further parts are
            ``<prefix>electrostatic_energy`` and ``<prefix>field_energy``.
        descriptors: whether to predict and write the raw features of the atoms as
            ``<prefix>descriptors``, of models with a descriptor backbone.
        born_charges: whether to predict and write Born effective charges as
            ``<prefix>born_charges``, nine numbers for each atom, with rows of the dipole; or the
            name of the array that holds reference ones, to be scored like `score_born_charges`.
        born_charges_order: what the rows of these belong to, a `BornChargeOrder` or its name.
        prefix: of the names of predictions.
        scf_history: what to write of the way to self-consistent multipoles, without prefix.
            "absolute_change": ``scf_convergence``, the residual of every step; "full_history": also
            ``scf_charge_history`` in arrays, the multipoles from the start to the last step side by
            side, and ``scf_convergence_relative``, the mean of their |p - p of the last step|.
        notify: called with the number of structures predicted so far, and of all.
        options: how the model is used, see `Options`.

    Raises:
        DataError: a file or a structure in it cannot be used.
        BoundaryError: a structure's periodicity does not fit the model's electrostatics.
        NotConvergedError: a structure did not converge, and ``not_converged`` is "raise".
        ValueError: the model has no such history, no descriptors or no Born charges; or the format
            of ``output`` cannot hold them.
    """
    model = _keep_history(model.using(**options), scf_history)
    asked = {
        "contributions": contributions,
        "descriptors": descriptors,
        "born_charges": bool(born_charges),
    }
    written = [name for name, is_asked in asked.items() if is_asked]
    if output is not None and format_to_write(output, several=True) != EXTENDED_XYZ:
        for name in (*written, *(("scf_history",) if scf_history != "none" else ())):
            raise ValueError(f"{name}: expected an output of extended XYZ, found {output}")
    if born_charges:
        model = _with_response(model)
    read, structures = read_structures(model.first, path)
    atoms, labels = read.atoms, None
    if isinstance(born_charges, str):
        labels = read_born_charges(
            atoms, born_charges, order=born_charges_order, locations=read.locations
        )
    configurations = [entry.configuration for entry in structures]
    types = np.array([configuration.config_type for configuration in configurations])
    errors = {name: ErrorAccumulator() for name in (*dict.fromkeys(types.tolist()), ALL)}

    def compare(indices: np.ndarray, graph: Graph, outputs: Sequence[Prediction]) -> None:
        predicted = _combined(model.combine(outputs))
        for name in dict.fromkeys(types[indices].tolist()):
            errors[name].update(predicted, only_graphs(graph, types[indices] == name))
        errors[ALL].update(predicted, graph)

    predicted = model.predict_structures(
        structures,
        forces=forces,
        stress=stress,
        batch_size=batch_size,
        not_converged=not_converged,
        further=_further(model, descriptors=descriptors),
        observe=compare,
        notify=notify,
    )
    scores = None
    if born_charges:
        responses = respond(model.first, structures, batch_size=batch_size)
        for prediction, response in zip(predicted, responses, strict=True):
            prediction["born_charges"] = response.born_charges
        if labels is not None:
            scale = dipole_scale(model.first.settings)
            scores = score(labels, configurations, responses, scale=scale)
    if output is not None:
        if scf_history != "none":
            for entry, prediction in zip(atoms, predicted, strict=True):
                _add_history(entry, prediction)
        write_predictions(output, atoms, predicted, prefix, asked_for=written)
    metrics = {config_type: error.metrics() for config_type, error in errors.items()}
    evaluation = FileEvaluation(
        [_combined(entry) for entry in predicted], metrics, configurations, scores
    )
    if isinstance(model, Committee):
        return CommitteeFileEvaluation(**vars(evaluation), members=predicted)
    return evaluation


evaluate_committee_file = evaluate_file
"""A committee is evaluated like a model."""


def _with_response(model: Model | Committee) -> Model:
    """The model, if it has Born charges, which looks for reference dipoles.

    Raises:
        ValueError: it is a committee, or has no charges.
    """
    if isinstance(model, Committee):
        raise ValueError("born_charges: expected a single model, found a committee")
    if not model.settings.of_family.is_charged:
        raise NoDipoleError(
            "born_charges: expected a model with charges, found one of the family "
            f"{model.settings.family}"
        )
    return reading_dipoles(model)


def _further(model: Model | Committee, *, descriptors: bool) -> tuple[str, ...]:
    """Outputs on request: how far structures are outside the training set wherever it is known.

    Raises:
        ValueError: descriptors are asked for of a committee.
    """
    if descriptors and isinstance(model, Committee):
        raise ValueError("descriptors: expected a single model, found a committee")
    known = all("extrapolation" in member.settings.backbone.on_request for member in model.members)
    return ("descriptors",) * descriptors + ("extrapolation",) * known


def _combined(predicted: Prediction | CommitteePrediction) -> Prediction:
    return predicted.combined if isinstance(predicted, CommitteePrediction) else predicted


def read_structures(model: Model, path: str | Path) -> tuple[ReadStructures, list[Structure]]:
    """The structures of a file, as they are and prepared for a model.

    Raises:
        DataError: the file or a structure in it cannot be used.
        BoundaryError: a structure's periodicity does not fit the model's electrostatics.
    """
    read = read_located(path)
    configurations = model.read_labelled(read)
    stored = stored_keys(read.atoms)
    occurring = stored["info"] | stored["arrays"]
    warn_about(configurations, model.keys, str(path), occurring=occurring)
    return read, [model.prepare(configuration) for configuration in configurations]


def _keep_history(model: Model | Committee, history: SCFHistory) -> Model | Committee:
    """The model, whose predictions have the history asked for.

    Raises:
        ValueError: there is no such history.
    """
    if history not in get_args(SCFHistory):
        known = ", ".join(get_args(SCFHistory))
        raise ValueError(f"scf_history: expected one of {known}, found {history!r}")
    if history == "none":
        return model
    if isinstance(model, Committee):
        raise ValueError(f"scf_history {history}: expected a single model, found a committee")
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


def only_graphs(graph: Graph, chosen: np.ndarray) -> Graph:
    """The batch with all graphs masked but those of its real graphs that are chosen."""
    graph_mask = np.zeros(graph.num_graphs, dtype=bool)
    graph_mask[: len(chosen)] = chosen
    return graph.replace(
        graph_mask=graph_mask, atom_mask=graph.atom_mask & graph_mask[graph.atom_graph]
    )


def _file_value(value: Any, *, per_atom: bool) -> Any:
    """How a file holds an output: the status of a cycle by its name, tensors of atoms as rows."""
    if isinstance(value, SolverStatus):
        return value.name.lower()
    array = np.asarray(value)[()]
    return array.reshape(len(array), -1) if per_atom and array.ndim > 2 else array


def write_predictions(
    path: str | Path,
    atoms: list[ase.Atoms],
    predictions: Sequence[Prediction | CommitteePrediction],
    prefix: str,
    *,
    asked_for: Collection[str] = (),
) -> None:
    """Write structures with their predictions, all or nothing.

    Args:
        path: of extended XYZ; or of another format of ASE, where predictions replace what is there.
        predictions: of each structure; names of standard deviations end in `SPREAD`.
        prefix: of the names of predictions.
        asked_for: names of what is written of the outputs that files hold only if asked for.
    """
    file_format = format_to_write(path, several=True)
    if file_format != EXTENDED_XYZ:
        _write_results(path, atoms, predictions, file_format)
        return
    written = [
        *outputs_for(Use.FILES),
        *(entry for entry in outputs_for(Use.FILES_IF_ASKED_FOR) if entry.name in asked_for),
    ]
    annotated = []
    for original, prediction in zip(atoms, predictions, strict=True):
        entry = original.copy()
        entry.calc = original.calc  # holds what the file calls energy, forces, ...
        endings = {"": _combined(prediction)}
        if isinstance(prediction, CommitteePrediction):
            endings[SPREAD] = prediction.std
        for (ending, values), output in itertools.product(endings.items(), written):
            if output.name in values:
                place = entry.arrays if output.per_atom else entry.info
                for name in output.file_names:
                    place[prefix + name + ending] = _file_value(
                        values[output.name], per_atom=output.per_atom
                    )
        annotated.append(entry)
    with write_whole(path) as partial:
        ase.io.write(partial, annotated, format=EXTENDED_XYZ)


def _write_results(
    path: str | Path,
    atoms: list[ase.Atoms],
    predictions: Sequence[Prediction | CommitteePrediction],
    file_format: str,
) -> None:
    """Write structures with what ASE's calculators have of their predictions."""
    frames = []
    for original, prediction in zip(atoms, predictions, strict=True):
        values = _combined(prediction)
        known = {name: values[name] for name in all_properties if name in values}
        if "stress" in known:
            known["stress"] = full_3x3_to_voigt_6_stress(known["stress"])
        frames.append(original.copy())
        frames[-1].calc = SinglePointCalculator(frames[-1], **known)
    with write_whole(path) as partial:
        ase.io.write(partial, frames, format=file_format)
