"""Boundary conditions of the electrostatic problem, and the periodicities each one allows."""

from __future__ import annotations

import enum

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float


class BoundaryError(ValueError):
    """A structure's periodicity or cell does not fit the boundary condition."""


class BoundaryMode(enum.StrEnum):
    """How the electrostatic problem is closed at infinity."""

    REALSPACE = "realspace"
    """Open boundary: exact sum over pairs, no cell."""
    PBC = "pbc"
    """Periodic in three directions, conducting surroundings."""
    SLAB = "slab"
    """Periodic in x and y, with the dipole correction along the open axis z."""
    MOLECULE_IN_BOX = "molecule_in_box"
    """Isolated system in a periodic box, corrected for its images."""
    MIXED_PERIODIC = "mixed_periodic"
    """Chosen per graph from its pbc flags: TTT pbc, TTF slab, FFF molecule in a box."""
    AUTO = "auto"
    """`REALSPACE` if no structure is periodic, else `MIXED_PERIODIC`; resolved on the host."""


_LINEARLY_DEPENDENT = 1e-8
"""Smallest singular value of the unit vectors along independent lattice vectors."""

OPEN = (False, False, False)
SLAB = (True, True, False)
PERIODIC = (True, True, True)

ALLOWED_PBC: dict[BoundaryMode, tuple[tuple[bool, bool, bool], ...]] = {
    BoundaryMode.REALSPACE: (OPEN,),
    BoundaryMode.PBC: (PERIODIC,),
    BoundaryMode.SLAB: (SLAB,),
    BoundaryMode.MOLECULE_IN_BOX: (OPEN,),
    BoundaryMode.MIXED_PERIODIC: (PERIODIC, SLAB, OPEN),
    BoundaryMode.AUTO: (PERIODIC, SLAB, OPEN),
}
"""Periodicities (x, y, z) that each boundary condition is meant for."""


def pbc_letters(pbc: Bool[np.ndarray, "3"]) -> str:
    """Periodicity as three letters, such as ``TTF``."""
    return "".join("T" if flag else "F" for flag in pbc)


def check_pbc(pbc: Bool[np.ndarray, "*structures 3"], mode: BoundaryMode | str) -> None:
    """Refuse periodicities that a boundary condition is not meant for.

    Args:
        pbc: periodicity along x, y, z of one or more structures (host array).
        mode: boundary condition.

    Raises:
        BoundaryError: a structure has another periodicity; names the first one.
    """
    mode = BoundaryMode(mode)
    allowed = ALLOWED_PBC[mode]
    for index, flags in enumerate(np.asarray(pbc, dtype=bool).reshape(-1, 3)):
        if tuple(flags.tolist()) not in allowed:
            found = "found" if np.ndim(pbc) == 1 else f"structure {index} has"
            raise BoundaryError(
                f"{found} pbc {pbc_letters(flags)}, incompatible with the boundary "
                f"condition {mode.value!r}, which allows "
                f"{', '.join(pbc_letters(np.array(pattern)) for pattern in allowed)}"
            )


def check_slab_cell(
    cell: Float[np.ndarray, "*structures 3 3"], pbc: Bool[np.ndarray, "*structures 3"]
) -> None:
    """Refuse slabs whose periodic plane is not the xy plane, which the slab correction assumes.

    Args:
        cell: lattice vectors of one or more structures in Å (rows, host array).
        pbc: periodicity along x, y, z; structures other than slabs are not looked at.

    Raises:
        BoundaryError: a periodic lattice vector of a slab has a z component; names the first one.
    """
    cells = np.asarray(cell).reshape(-1, 3, 3)
    for index, (vectors, flags) in enumerate(
        zip(cells, np.asarray(pbc).reshape(-1, 3), strict=True)
    ):
        heights = np.abs(vectors[:2, 2])
        if tuple(flags.tolist()) == SLAB and np.any(heights > 1e-6 * np.abs(vectors).max()):
            found = "found" if np.ndim(pbc) == 1 else f"structure {index} is"
            raise BoundaryError(
                f"{found} a slab (pbc TTF) with z components {vectors[0, 2]:g} and "
                f"{vectors[1, 2]:g} Å in its first two lattice vectors, which must lie in the xy "
                "plane"
            )


def resolve_boundary(
    mode: BoundaryMode | str, pbc: Bool[np.ndarray, "*structures 3"]
) -> BoundaryMode:
    """Replace ``auto`` by the boundary condition that fits a set of structures.

    Args:
        mode: boundary condition, possibly ``auto``.
        pbc: periodicity along x, y, z of the structures (host array).

    Returns:
        ``mode`` itself unless it is ``auto``.
    """
    mode = BoundaryMode(mode)
    if mode is not BoundaryMode.AUTO:
        return mode
    return BoundaryMode.MIXED_PERIODIC if np.any(pbc) else BoundaryMode.REALSPACE


def encloses_volume(cell: Float[np.ndarray, "3 3"]) -> bool:
    """Whether the lattice vectors are finite, not zero and linearly independent."""
    return bool(np.all(np.isfinite(cell)) and are_independent(cell))


def are_independent(vectors: Float[np.ndarray, "vectors 3"]) -> bool:
    """Whether directions of vectors (rows, some perhaps zero) are linearly independent."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not lengths.all():
        return False
    return bool(np.linalg.svd(vectors / lengths, compute_uv=False).min() > _LINEARLY_DEPENDENT)


def cell_volume(cell: Float[Array, "3 3"]) -> Float[Array, ""]:
    """Volume of a cell (rows are lattice vectors, either handedness), in Å³."""
    return jnp.abs(jnp.sum(cell[0] * jnp.cross(cell[1], cell[2])))


def dual_cell(cell: Float[Array, "3 3"]) -> Float[Array, "3 3"]:
    """Rows b with b_i · a_j = δ_ij: fractional coordinates are r @ dualᵀ, and k = 2π n @ dual."""
    rows = jnp.stack(
        [jnp.cross(cell[1], cell[2]), jnp.cross(cell[2], cell[0]), jnp.cross(cell[0], cell[1])]
    )
    return rows / jnp.sum(cell[0] * rows[0])
