"""A committee of models: predictions of all members with their mean and spread."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ase
import jax
import numpy as np

from mace_scf_jax.data.configuration import from_atoms
from mace_scf_jax.data.errors import Location
from mace_scf_jax.data.keys import PREDICTION_KEYS, KeySpecification
from mace_scf_jax.data.structure import Structure
from mace_scf_jax.electrostatics import SummationMethod
from mace_scf_jax.graph import Graph
from mace_scf_jax.hints import unknown_name
from mace_scf_jax.models.families.fixed_point.self_consistency import SelfConsistency
from mace_scf_jax.predict.committee_file import COMMITTEE_FILE, CommitteeFile, read_committee_file
from mace_scf_jax.predict.convergence import (
    NotConverged,
    NotConvergedError,
    check_policy,
    report_convergence,
)
from mace_scf_jax.predict.model import Model, Prediction, load_model, split_outputs
from mace_scf_jax.predict.uncertainty import CommitteePrediction, combined


class CommitteeError(ValueError):
    """Models do not make a committee, or a committee lacks what is asked of it."""


@dataclasses.dataclass(frozen=True, eq=False)
class Committee:
    """Models that were trained alike with different seeds.

    Args:
        members: at least two; they agree in family, elements, cutoff, number of layers,
            electrostatics and precision.
        names: what messages call each member; None for "member 1", ….

    Raises:
        CommitteeError: there are too few members, or they disagree.
    """

    members: tuple[Model, ...]
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "members", tuple(self.members))
        if len(self.members) < 2:
            raise CommitteeError(
                f"expected at least 2 members, found {len(self.members)}: their spread is what a "
                "committee is for"
            )
        numbered = tuple(f"member {number}" for number in range(1, len(self.members) + 1))
        object.__setattr__(self, "names", tuple(self.names) or numbered)
        if len(self.names) != len(self.members):
            raise CommitteeError(
                f"expected a name for each of {len(self.members)} members, found {len(self.names)}"
            )
        expected = _common_ground(self.members[0])
        for name, member in zip(self.names[1:], self.members[1:], strict=True):
            for what, found in _common_ground(member).items():
                if found != expected[what]:
                    raise CommitteeError(
                        f"{name}: expected the {what} of {self.names[0]}, {expected[what]}, found "
                        f"{found}"
                    )

    def __len__(self) -> int:
        return len(self.members)

    @property
    def first(self) -> Model:
        """The first member, which stands for what all members have in common."""
        return self.members[0]

    def predict(
        self,
        atoms: ase.Atoms | Sequence[ase.Atoms],
        *,
        keys: KeySpecification = PREDICTION_KEYS,
        forces: bool = True,
        stress: bool = False,
        batch_size: int = 64,
        not_converged: NotConverged = "warn",
    ) -> CommitteePrediction | list[CommitteePrediction]:
        """Predict one structure or several with every member.

        Args:
            atoms: structures; total charge, external field and Fermi level are read from ``info``.
            keys: where the inputs are found.
            forces: whether to compute forces.
            stress: whether to compute stress and virials.
            batch_size: most structures evaluated together.
            not_converged: what to do about structures whose multipoles are not self-consistent.

        Returns:
            A prediction for each structure; a single one for a single structure.

        Raises:
            DataError: a structure cannot be used.
            BoundaryError: a structure's periodicity does not fit the models' electrostatics.
            NotConvergedError: a member did not converge, and ``not_converged`` is "raise".
        """
        is_single = isinstance(atoms, ase.Atoms)
        structures = [
            self.first.prepare(from_atoms(entry, keys=keys, location=Location(None, index)))
            for index, entry in enumerate([atoms] if is_single else atoms)
        ]
        predictions = self.predict_structures(
            structures,
            forces=forces,
            stress=stress,
            batch_size=batch_size,
            not_converged=not_converged,
        )
        return predictions[0] if is_single else predictions

    def predict_structures(
        self,
        structures: Sequence[Structure],
        *,
        forces: bool = True,
        stress: bool = False,
        batch_size: int = 64,
        not_converged: NotConverged = "warn",
    ) -> list[CommitteePrediction]:
        """Predict prepared structures, in batches of similar size; see `predict`."""
        check_policy(not_converged)
        predictions: list[tuple[Prediction, ...]] = [() for _ in structures]
        for indices, graph in self.first.batches(structures, batch_size=batch_size, labels=True):
            outputs = self.evaluate(graph, forces=forces, stress=stress)
            for index, own in zip(indices, split_members(outputs, graph), strict=True):
                predictions[index] = own
        self.report_convergence(
            predictions,
            [entry.configuration.location for entry in structures],
            not_converged=not_converged,
        )
        return [combined(own) for own in predictions]

    def evaluate(
        self, graph: Graph, *, forces: bool = True, stress: bool = False
    ) -> list[dict[str, np.ndarray]]:
        """Outputs of every member for one batch.

        Args:
            graph: the batch.
            forces: whether to compute forces.
            stress: whether to compute stress and virials.
        """
        return [
            jax.device_get(
                member.evaluate(
                    member.parameters, member.inputs_of(graph), None, forces=forces, stress=stress
                )
            )
            for member in self.members
        ]

    def report_convergence(
        self,
        predictions: Sequence[Sequence[Prediction]],
        locations: Sequence[Location],
        *,
        not_converged: NotConverged,
    ) -> None:
        """Raise or warn if members did not find self-consistent multipoles.

        Args:
            predictions: for each structure those of all members.
            locations: where each structure came from.
            not_converged: what to do.

        Raises:
            NotConvergedError: a member did not converge, and the policy is to raise.
        """
        for name, own in zip(self.names, zip(*predictions, strict=True), strict=False):
            try:
                report_convergence(own, locations, not_converged=not_converged)
            except NotConvergedError as error:
                raise NotConvergedError(f"{name}: {error}") from None


def load_committee(
    source: str | Path | Sequence[str | Path],
    *,
    stage: str | None = None,
    scf: SelfConsistency | None = None,
    sums: SummationMethod | str | None = None,
) -> Committee:
    """Read a committee.

    Args:
        source: the folder that ``mace-scf-jax train --committee`` wrote, its ``committee.json``, or
            several model files.
        stage: name of the stage whose models to take; None for the last. Not with model files.
        scf: how the multipoles of self-consistent models are solved for; None for the default.
        sums: how electrostatic sums are done (see `Model.with_sums`); None for the way of the file.

    Raises:
        CommitteeFileError: there is no readable ``committee.json``.
        CommitteeError: members have not been trained yet, there is no such stage, or the members
            disagree.
        ModelFileError: a model file is missing or damaged.
    """
    if not isinstance(source, str | Path):
        if stage is not None:
            raise CommitteeError("stage: expected none together with a list of model files")
        paths = [Path(path) for path in source]
    else:
        folder = Path(source)
        folder = folder.parent if folder.name == COMMITTEE_FILE else folder
        paths = _model_files(folder, read_committee_file(folder), stage)
    return Committee(
        tuple(load_model(path, scf=scf, sums=sums) for path in paths),
        tuple(str(path) for path in paths),
    )


def is_committee(path: str | Path) -> bool:
    """Whether a path is the folder of a committee or its ``committee.json``."""
    path = Path(path)
    return path.name == COMMITTEE_FILE or path.is_dir()


def split_members(
    outputs: Sequence[dict[str, np.ndarray]], graph: Graph
) -> list[tuple[Prediction, ...]]:
    """For each structure of a batch the predictions of all members.

    Args:
        outputs: of each member, for the batch.
        graph: the batch.
    """
    return list(zip(*(split_outputs(own, graph) for own in outputs), strict=True))


def _common_ground(model: Model) -> dict[str, Any]:
    """What all members of a committee must have in common, in words."""
    settings = model.settings
    return {
        "family": settings.family,
        "elements": settings.elements,
        "cutoff": settings.backbone.r_max,
        "number of layers": settings.backbone.num_interactions,
        "electrostatics": settings.electrostatics,
        "precision": model.dtype.name,
    }


def _model_files(folder: Path, committee: CommitteeFile, stage: str | None) -> list[Path]:
    """Model files of all members of a committee for one stage."""
    missing = committee.missing()
    if missing:
        raise CommitteeError(
            f"{folder / COMMITTEE_FILE}: expected {committee.size} trained members, found "
            f"{len(committee.members)}; not finished: {', '.join(map(str, missing))}. Train them "
            f"with `--committee {committee.size}`, or give the model files of the others"
        )
    paths = []
    for member in committee.members:
        name = list(member.models)[-1] if stage is None else stage
        if name not in member.models:
            hint = unknown_name("stage", name, member.models)
            raise CommitteeError(f"{folder / COMMITTEE_FILE}, member {member.number}: {hint}")
        paths.append(folder / member.models[name])
    return paths
