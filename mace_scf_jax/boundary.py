"""Boundary conditions of the electrostatic problem, and the periodicities each one allows."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float

if TYPE_CHECKING:
    from jaxtyping import Array


class BoundaryError(ValueError):
    """A structure's periodicity or cell does not fit the boundary condition."""


class BoundaryMode(enum.StrEnum):
    """How the electrostatic problem is closed at infinity."""

    EXACT = "exact"
    """By each structure's own periodic directions: a sum over three or over two of them, whichever
    they are, or over pairs of atoms without any. Cell vectors along open directions mean nothing.
    The other modes are those of the PyTorch reference."""
    REALSPACE = "realspace"
    """Open boundary: exact sum over pairs, no cell."""
    DISPLACED_CHARGES = "displaced_charges"
    """As `EXACT`, but dipoles of open structures are pairs of charges a little apart, with which
    the public PolarMACE models were trained."""
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

    @property
    def is_by_periodicity(self) -> bool:
        """Whether each structure's periodic directions decide, and nothing else about its cell."""
        return self in (BoundaryMode.EXACT, BoundaryMode.DISPLACED_CHARGES)


_LINEARLY_DEPENDENT = 1e-8
"""Smallest singular value of the unit vectors along independent lattice vectors."""

_NEUTRAL = 1e-6
"""Total charge in e below which a structure counts as neutral."""

OPEN = (False, False, False)
SLAB = (True, True, False)
PERIODIC = (True, True, True)

_ANY_PLANE = (PERIODIC, SLAB, (True, False, True), (False, True, True), OPEN)

ALLOWED_PBC: dict[BoundaryMode, tuple[tuple[bool, bool, bool], ...]] = {
    BoundaryMode.EXACT: _ANY_PLANE,
    BoundaryMode.DISPLACED_CHARGES: _ANY_PLANE,
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


def boundary_fault(
    mode: BoundaryMode | str, pbc: Bool[np.ndarray, "3"], total_charge: float
) -> str | None:
    """Tell whether a boundary condition that allows a structure is wrong for it, and why.

    Args:
        mode: boundary condition, perhaps that of a stored model.
        pbc: periodicity along x, y, z of one structure (host array).
        total_charge: of the structure in e.

    Returns:
        The reason as the end of a sentence; None where the boundary condition is right.
    """
    mode, periodicity = BoundaryMode(mode), tuple(np.asarray(pbc, dtype=bool).tolist())
    corrected = mode in (BoundaryMode.SLAB, BoundaryMode.MOLECULE_IN_BOX)
    if abs(total_charge) < _NEUTRAL or not (corrected or mode is BoundaryMode.MIXED_PERIODIC):
        return None
    if periodicity == SLAB:
        return (
            f"boundary {mode.value!r} leaves out the term of a slab for its net charge "
            f"({total_charge:+g} e): energy and forces depend on where the slab stands and on the "
            "vacuum"
        )
    if periodicity == OPEN:
        return (
            f"boundary {mode.value!r} puts an open structure with a net charge "
            f"({total_charge:+g} e) into a periodic box: energy and forces depend on the box and "
            "on the orientation"
        )
    return None


def check_slab_cell(
    cell: Float[np.ndarray, "*structures 3 3"],
    pbc: Bool[np.ndarray, "*structures 3"],
    mode: BoundaryMode | str,
) -> None:
    """Refuse slabs whose periodic plane is not the xy plane where a boundary condition assumes it.

    Args:
        cell: lattice vectors of one or more structures in Å (rows, host array).
        pbc: periodicity along x, y, z; structures other than slabs are not looked at.
        mode: boundary condition; ``exact`` and ``displaced_charges`` take any plane.

    Raises:
        BoundaryError: a periodic lattice vector of a slab has a z component; names the first one.
    """
    if BoundaryMode(mode).is_by_periodicity:
        return
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


def is_slab(
    pbc: Bool[Array | np.ndarray, "*structures 3"],
) -> Bool[Array | np.ndarray, "*structures"] | np.bool_:
    """Whether two directions are periodic, and the third is open."""
    return pbc.sum(axis=-1) == 2


def plane_normal(
    cell: Float[Array | np.ndarray, "3 3"], pbc: Bool[Array | np.ndarray, "3"]
) -> Float[Array | np.ndarray, "3"]:
    """Unit vector normal to the two periodic lattice vectors of a slab; otherwise of no use.

    Args:
        cell: lattice vectors as rows, of the host or traced; the one of the open direction does not
            matter.
        pbc: periodic directions.

    Returns:
        An array of the same kind.
    """
    xp = cell.__array_namespace__()
    cross = xp.linalg.cross
    normals = xp.stack([cross(cell[1], cell[2]), cross(cell[2], cell[0]), cross(cell[0], cell[1])])
    normal = xp.sum(xp.where(pbc[:, None], xp.zeros_like(normals), normals), axis=0)
    squared = xp.sum(normal * normal)
    return normal / xp.sqrt(xp.where(squared > 0.0, squared, xp.ones_like(squared)))


def repeated_cell(
    cell: Float[Array | np.ndarray, "3 3"],
    pbc: Bool[Array | np.ndarray, "3"],
    repeat: Float[Array, ""] | float,
) -> Float[Array | np.ndarray, "3 3"]:
    """The cell of a slab that is repeated along its normal; any other cell as it is.

    Args:
        cell: lattice vectors as rows in Å, of the host or traced.
        pbc: periodic directions.
        repeat: length in Å after which a copy follows.

    Returns:
        The cell with the vector of the open direction replaced.
    """
    xp = cell.__array_namespace__()
    open_of_slab = (~pbc & is_slab(pbc))[:, None]
    return xp.where(open_of_slab, repeat * plane_normal(cell, pbc), cell)


def encloses_volume(cell: Float[np.ndarray, "3 3"]) -> bool:
    """Whether the lattice vectors are finite, not zero and linearly independent."""
    return bool(np.all(np.isfinite(cell)) and are_independent(cell))


def are_independent(vectors: Float[np.ndarray, "vectors 3"]) -> bool:
    """Whether directions of vectors (rows, some perhaps zero) are linearly independent."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not lengths.all():
        return False
    return bool(np.linalg.svd(vectors / lengths, compute_uv=False).min() > _LINEARLY_DEPENDENT)
