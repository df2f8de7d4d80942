"""A trained model, ready to predict."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import ase
import jax
import numpy as np

from mace_scf_jax.data.batching import IndexedBatch, batches_by_size
from mace_scf_jax.data.configuration import Configuration, from_atoms
from mace_scf_jax.data.errors import Location
from mace_scf_jax.data.keys import PREDICTION_KEYS, KeySpecification
from mace_scf_jax.data.structure import Structure, prepare
from mace_scf_jax.electrostatics import BoundaryError, check_pbc, check_slab_cell
from mace_scf_jax.graph import Graph
from mace_scf_jax.io.model_file import load_model_file, save_model
from mace_scf_jax.models import ModelSettings, build, check_inputs, evaluate

Prediction = dict[str, Any]
"""Outputs for one structure by name: energy (eV), forces [atoms, 3] (eV/Å), stress [3, 3] (eV/Å³),
virials [3, 3] (eV), multipoles [atoms, (L+1)²] (e Å^l; order Q, d_y, d_z, d_x), dipole [3] (e Å;
x, y, z), total_charge (e), node_energy [atoms], contributions [terms], electrostatic_energy (eV).
Models with a polarizability readout have polarizability [3, 3] (e Å²/V).
Models without charges have no multipoles, dipole, total_charge and electrostatic_energy."""

PER_ATOM_OUTPUTS = frozenset(
    {"forces", "multipoles", "node_energy", "electronegativity", "hardness"}
)
"""Outputs with one row per atom; all others have one per structure."""


@dataclasses.dataclass(frozen=True, eq=False)
class Model:
    """A model with its parameters."""

    settings: ModelSettings
    parameters: dict[str, Any]
    record: dict[str, Any] = dataclasses.field(default_factory=dict)
    """How the model was made."""

    @property
    def dtype(self) -> np.dtype:
        """Precision of the parameters, in which the model computes."""
        return np.dtype(jax.tree.leaves(self.parameters)[0].dtype)

    @functools.cached_property
    def evaluate(self) -> Callable[..., dict[str, jax.Array]]:
        """Compiled ``evaluate(parameters, graph, forces=True, stress=False)`` for one batch."""
        module = build(self.settings)

        @functools.partial(jax.jit, static_argnames=("forces", "stress"))
        def compiled(parameters, graph, *, forces=True, stress=False):
            return evaluate(module, parameters, graph, forces=forces, stress=stress)

        return compiled

    def prepare(
        self, configuration: Configuration, *, skin: float = 0.0, largest_strain: float = 0.0
    ) -> Structure:
        """Edges and reciprocal vectors of a structure.

        Args:
            configuration: the structure.
            skin: length in Å by which edges may be longer than the model's cutoff.
            largest_strain: range of cells that the reciprocal vectors serve, as for
                `mace_scf_jax.data.reciprocal.half_space_indices`.

        Raises:
            DataError: it has an element that the model lacks, lacks an input that the model needs,
                or has coinciding atoms or no volume along a periodic direction.
            BoundaryError: its periodicity is not one that the model's electrostatics treats, or it
                is a slab that does not lie in the xy plane.
        """
        if self.settings.electrostatics is not None:
            try:
                check_pbc(configuration.pbc, self.settings.electrostatics.boundary)
                check_slab_cell(configuration.cell, configuration.pbc)
            except BoundaryError as error:
                raise BoundaryError(f"{configuration.location}: {error}") from None
        check_inputs(self.settings, configuration)
        return prepare(
            configuration,
            elements=self.settings.elements,
            cutoff=self.settings.backbone.r_max + skin,
            kspace_cutoff=self.settings.kspace_cutoff,
            largest_strain=largest_strain,
        )

    def predict(
        self,
        atoms: ase.Atoms | Sequence[ase.Atoms],
        *,
        keys: KeySpecification = PREDICTION_KEYS,
        forces: bool = True,
        stress: bool = False,
        batch_size: int = 64,
    ) -> Prediction | list[Prediction]:
        """Predict one structure or several.

        Args:
            atoms: structures; total charge and external field are read from ``info``.
            keys: where the inputs are found.
            forces: whether to compute forces.
            stress: whether to compute stress and virials.
            batch_size: most structures evaluated together.

        Returns:
            A prediction for each structure; a single one for a single structure.

        Raises:
            DataError: a structure cannot be used.
            BoundaryError: a structure's periodicity does not fit the model's electrostatics.
        """
        if isinstance(atoms, ase.Atoms):
            return self.predict(
                [atoms], keys=keys, forces=forces, stress=stress, batch_size=batch_size
            )[0]
        structures = [
            self.prepare(from_atoms(entry, keys=keys, location=Location(None, index)))
            for index, entry in enumerate(atoms)
        ]
        return self.predict_structures(
            structures, forces=forces, stress=stress, batch_size=batch_size
        )

    def predict_structures(
        self,
        structures: Sequence[Structure],
        *,
        forces: bool = True,
        stress: bool = False,
        batch_size: int = 64,
    ) -> list[Prediction]:
        """Predict prepared structures, in batches of similar size."""
        predictions: list[Prediction] = [{} for _ in structures]
        batches = self.batches(structures, batch_size=batch_size)
        for batch in batches:
            outputs = self.evaluate(self.parameters, batch.graph, forces=forces, stress=stress)
            for index, prediction in zip(
                batch.indices, split_outputs(jax.device_get(outputs), batch.graph), strict=True
            ):
                predictions[index] = prediction
        return predictions

    def batches(
        self, structures: Sequence[Structure], *, batch_size: int = 64, labels: bool = False
    ) -> Iterator[IndexedBatch]:
        """Batches of prepared structures in the model's precision."""
        return batches_by_size(
            structures, batch_size=batch_size, layout="per_atom", dtype=self.dtype, labels=labels
        )

    def save(self, path: str | Path) -> None:
        """Write a model file."""
        save_model(path, self.parameters, self.settings, self.record)


def split_outputs(outputs: dict[str, np.ndarray], graph: Graph) -> list[Prediction]:
    """The outputs of a batch, one prediction per real graph.

    Args:
        outputs: arrays of the batch by name.
        graph: the batch.
    """
    predictions = []
    for index in np.flatnonzero(graph.graph_mask):
        own = np.asarray(graph.slots[index])[np.asarray(graph.slot_mask[index])]
        predictions.append(
            {
                name: values[own] if name in PER_ATOM_OUTPUTS else values[index]
                for name, values in outputs.items()
            }
        )
    return predictions


def load_model(path: str | Path) -> Model:
    """Read a model from its file.

    Args:
        path: a file written by training or `Model.save`.

    Raises:
        ModelFileError: the file is missing, damaged or written by a newer version.
        ValueError: its settings describe no model of this version.
    """
    content = load_model_file(path)
    settings = ModelSettings.from_dict(content.settings)
    return Model(settings, content.parameters, content.record)
