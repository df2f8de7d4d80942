"""Checks of values on the host, before arrays enter traced functions."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

from mace_scf_jax.boundary import (
    BoundaryMode,
    check_pbc,
    check_slab_cell,
    encloses_volume,
    resolve_boundary,
)


class ElectrostaticsInputError(ValueError):
    """Values that no electrostatic energy is defined for."""


def check_inputs(
    positions: Float[np.ndarray, "atoms 3"],
    multipoles: Float[np.ndarray, "atoms components"],
    cell: Float[np.ndarray, "3 3"],
    pbc: Bool[np.ndarray, "3"],
    mode: BoundaryMode | str,
) -> None:
    """Refuse a system that the electrostatics cannot treat; traced functions cannot check values.

    Args:
        positions: atomic positions in Å (host array).
        multipoles: atomic multipoles in e Å^l (host array).
        cell: lattice vectors in Å (rows), of either handedness; not looked at with open boundary.
        pbc: periodicity along x, y, z.
        mode: boundary condition.

    Raises:
        ElectrostaticsInputError: NaN or infinity among positions or multipoles (names the first
            atom), or a cell without volume.
        BoundaryError: an unsupported periodicity, or a slab that is not in the xy plane.
    """
    for name, values in (("positions", positions), ("multipoles", multipoles)):
        faulty = np.flatnonzero(~np.all(np.isfinite(values), axis=1))
        if len(faulty):
            raise ElectrostaticsInputError(
                f"{name} of atom {faulty[0]}: found {values[faulty[0]].tolist()}, expected finite "
                "numbers"
            )
    check_pbc(pbc, mode)
    if resolve_boundary(mode, pbc) is BoundaryMode.REALSPACE:
        return
    if not encloses_volume(cell):
        raise ElectrostaticsInputError(
            f"cell: found {np.asarray(cell).tolist()}, expected three independent lattice vectors, "
            "also along open directions"
        )
    check_slab_cell(cell, pbc)
