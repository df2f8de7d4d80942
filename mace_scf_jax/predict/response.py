"""Response of the dipole of structures: polarizabilities and Born effective charges."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Sequence
from typing import Unpack

import ase
import jax
import numpy as np
from ase.geometry import find_mic
from jaxtyping import Float

from mace_scf_jax.data.structure import Structure
from mace_scf_jax.models import build
from mace_scf_jax.models.response import DipoleResponse, dipole_response
from mace_scf_jax.predict.model import Model
from mace_scf_jax.predict.use import Options


class PolarizabilityWarning(UserWarning):
    """A polarizability is not positive, as that of any stable system is."""


def predict_response(
    model: Model,
    atoms: ase.Atoms | Sequence[ase.Atoms],
    *,
    batch_size: int = 64,
    **options: Unpack[Options],
) -> DipoleResponse | list[DipoleResponse]:
    """Polarizability and Born effective charges of one structure or several.

    Args:
        model: a model with charges.
        atoms: structures; the inputs of the model are read from their ``info`` and ``arrays``.
        batch_size: most structures evaluated together.
        options: how the model is used, see `Options`.

    Returns:
        For each structure dipole [3] (e Å), polarizability [3, 3] (e Å²/V) or None, and Born
        effective charges [atoms, 3, 3] (e); see `DipoleResponse` for signs and for what means
        nothing. A single one for a single structure.

    Warns:
        PolarizabilityWarning: a polarizability has a negative eigenvalue.

    Raises:
        NoDipoleError: the model has no charges.
        DataError: a structure cannot be used.
        BoundaryError: a structure's periodicity does not fit the model's electrostatics.
    """
    if isinstance(atoms, ase.Atoms):
        return predict_response(model, [atoms], batch_size=batch_size, **options)[0]
    model = model.using(**options)
    return respond(model, model.prepare_atoms(atoms), batch_size=batch_size)


def respond(
    model: Model, structures: Sequence[Structure], *, batch_size: int = 64
) -> list[DipoleResponse]:
    """Polarizability and Born effective charges of prepared structures; see `predict_response`."""
    periodic = any(entry.configuration.pbc.any() for entry in structures)
    response = functools.partial(
        dipole_response, build(model.settings), how=model.scf, periodic=periodic
    )
    compiled = jax.jit(response)
    responses: list[DipoleResponse | None] = [None] * len(structures)
    for indices, graph in model.batches(structures, batch_size=batch_size):
        batch = jax.device_get(compiled(model.parameters, graph))
        real = np.flatnonzero(graph.graph_mask)
        for index, own in zip(indices, real, strict=True):
            members = np.asarray(graph.slots[own])[np.asarray(graph.slot_mask[own])]
            responses[index] = DipoleResponse(
                dipole=batch.dipole[own],
                polarizability=None if batch.polarizability is None else batch.polarizability[own],
                born_charges=batch.born_charges[members],
            )
    found = [each for each in responses if each is not None]
    _warn_of_negative([each.polarizability for each in found])
    return found


def _warn_of_negative(polarizabilities: Sequence[np.ndarray | None]) -> None:
    """Warn of polarizabilities that point against the field; NaN where they mean nothing."""
    least = [
        np.inf if each is None or np.isnan(each).any() else np.linalg.eigvalsh(each)[0]
        for each in polarizabilities
    ]
    if min(least, default=0.0) < 0.0:
        worst = int(np.argmin(least))
        warnings.warn(
            f"structure {worst}: found a polarizability with the eigenvalue {least[worst]:.2g} e "
            f"Å²/V ({sum(value < 0.0 for value in least)} of {len(least)} structures have a "
            "negative one), expected positive ones: train longer, or with structures in fields",
            PolarizabilityWarning,
            stacklevel=3,
        )


def polarization_change(
    model: Model,
    atoms: ase.Atoms,
    reference: ase.Atoms,
    *,
    points: int = 4,
    **options: Unpack[Options],
) -> Float[np.ndarray, "3"]:
    """Polarization of a structure less that of a reference, ΔP = ∫ Σ Z_i·dr_i in e Å.

    The path is straight, with every atom taking the shortest way between its periodic images, so it
    matters neither how the structures are wrapped nor, along open directions, where they stand.

    Args:
        model: a model with charges.
        atoms: the structure.
        reference: the same atoms in the same cell, elsewhere; charge and field are those of
            ``atoms``.
        points: of the Gauss-Legendre quadrature along the path.
        options: how the model is used, see `Options`.

    Raises:
        ValueError: atoms, cell or periodic directions differ.
        NoDipoleError: the model has no charges.
    """
    same_system = np.array_equal(atoms.numbers, reference.numbers) and np.array_equal(
        atoms.pbc, reference.pbc
    )
    if not (same_system and np.allclose(atoms.cell, reference.cell)):
        raise ValueError(
            f"reference: found {reference}, expected the atoms, the cell and the periodic "
            f"directions of {atoms}"
        )
    steps, _ = find_mic(atoms.positions - reference.positions, atoms.cell, atoms.pbc)
    nodes, weights = np.polynomial.legendre.leggauss(points)
    path = []
    for node in nodes:
        path.append(atoms.copy())
        path[-1].positions = reference.positions + 0.5 * (1.0 + node) * steps
    slopes = [
        np.einsum("iab,ib->a", response.born_charges, steps)
        for response in predict_response(model, path, **options)
    ]
    return 0.5 * np.einsum("p,pa->a", weights, slopes)
