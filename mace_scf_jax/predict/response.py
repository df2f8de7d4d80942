"""Response of the dipole of structures: polarizabilities and Born effective charges."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import ase
import jax
import numpy as np

from mace_scf_jax.data.keys import PREDICTION_KEYS, KeySpecification
from mace_scf_jax.models import build
from mace_scf_jax.models.response import DipoleResponse, dipole_response
from mace_scf_jax.predict.model import Model


def predict_response(
    model: Model,
    atoms: ase.Atoms | Sequence[ase.Atoms],
    *,
    keys: KeySpecification = PREDICTION_KEYS,
    batch_size: int = 64,
) -> DipoleResponse | list[DipoleResponse]:
    """Polarizability and Born effective charges of one structure or several.

    Args:
        model: a model with charges.
        atoms: structures; total charge and external field are read from ``info``.
        keys: where the inputs are found.
        batch_size: most structures evaluated together.

    Returns:
        For each structure dipole [3] (e Å), polarizability [3, 3] (e Å²/V) and Born effective
        charges [atoms, 3, 3] (e); see `DipoleResponse` for signs. A single one for a single
        structure.

    Raises:
        NoDipoleError: the model has no charges.
        DataError: a structure cannot be used.
        BoundaryError: a structure's periodicity does not fit the model's electrostatics.
    """
    if isinstance(atoms, ase.Atoms):
        return predict_response(model, [atoms], keys=keys, batch_size=batch_size)[0]
    structures = model.prepare_atoms(atoms, keys=keys)
    compiled = jax.jit(functools.partial(dipole_response, build(model.settings)))
    responses: list[DipoleResponse | None] = [None] * len(structures)
    for indices, graph in model.batches(structures, batch_size=batch_size):
        batch = jax.device_get(compiled(model.parameters, graph))
        real = np.flatnonzero(graph.graph_mask)
        for index, own in zip(indices, real, strict=True):
            members = np.asarray(graph.slots[own])[np.asarray(graph.slot_mask[own])]
            responses[index] = DipoleResponse(
                dipole=batch.dipole[own],
                polarizability=batch.polarizability[own],
                born_charges=batch.born_charges[members],
            )
    return responses
