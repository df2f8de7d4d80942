"""The cell used for electrostatics and volume."""

from __future__ import annotations

import enum
import math

import numpy as np
from jaxtyping import Bool, Float

from mace_scf_jax.boundary import (
    are_independent,
    encloses_volume,
    is_slab,
    plane_normal,
    repeated_cell,
)
from mace_scf_jax.data.errors import DataError

MINIMUM_OPEN_CELL = 30.0
"""Smallest cell edge (Å) of a structure without periodic directions."""


class CellRule(enum.Enum):
    """What `electrostatic_cell` did to the cell of a structure."""

    KEPT = "kept"
    RAISED = "raised to the minimum"
    CUBE = "replaced by a cube"


def electrostatic_cell(
    cell: Float[np.ndarray, "3 3"],
    pbc: Bool[np.ndarray, "3"],
    positions: Float[np.ndarray, "atoms 3"],
) -> tuple[Float[np.ndarray, "3 3"], CellRule]:
    """The cell for reciprocal vectors and volume.

    With a periodic direction the cell is what the file says. Without one it only frames the
    charges, and must be large: each diagonal element is at least 30 Å, and if one is still below
    twice the extent of the structure along its axis, the cell is a cube of twice the largest
    extent. A cell without volume becomes a cube too, of at least 30 Å.

    Args:
        cell: lattice vectors as rows, Å; all zero where there is none.
        pbc: periodic directions.
        positions: positions, Å.

    Returns:
        The cell in Å, and what was done to it.

    Raises:
        DataError: if lattice vectors of periodic directions are zero or linearly dependent.
    """
    if not np.all(np.isfinite(cell)):
        raise DataError("cell: found NaN or infinity, expected finite numbers")
    if pbc.any():
        _check_periodic_vectors(cell, pbc)
        return cell, CellRule.KEPT
    adjusted = cell.copy() if cell.any() else np.eye(3)
    diagonal = np.diagonal(adjusted)
    rule = CellRule.RAISED if (diagonal < MINIMUM_OPEN_CELL).any() else CellRule.KEPT
    np.fill_diagonal(adjusted, np.maximum(diagonal, MINIMUM_OPEN_CELL))
    extent = np.ptp(positions, axis=0)
    if (np.diagonal(adjusted) < 2.0 * extent).any() or not encloses_volume(adjusted):
        return max(MINIMUM_OPEN_CELL, 2.0 * extent.max()) * np.eye(3), CellRule.CUBE
    return adjusted, rule


_REPEATS_PER_DOUBLING = 8


def repeat_length(
    positions: Float[np.ndarray, "atoms 3"],
    cell: Float[np.ndarray, "3 3"],
    pbc: Bool[np.ndarray, "3"],
    tails: float | None,
) -> float:
    """The length after which a structure is repeated along its open direction.

    With the boundary condition ``exact`` vectors along open directions mean nothing. A slab is
    repeated along its normal, so far that with the interaction cut off at half that length no atom
    sees a copy. Lengths are those of a geometric series, so that they hardly ever change.

    Args:
        positions: Å.
        cell: lattice vectors as rows, Å.
        pbc: periodic directions.
        tails: length in Å to which Gaussians reach; None where the cell decides, in other boundary
            conditions.

    Returns:
        The length in Å; 0 where the cell decides, and infinity without a periodic direction.

    Raises:
        DataError: one direction is periodic.
    """
    if tails is None or pbc.all():
        return 0.0
    if not pbc.any():
        return math.inf
    if not is_slab(pbc):
        raise DataError("found one periodic direction, expected none, two or three")
    thickness = float(np.ptp(positions @ plane_normal(cell, pbc)))
    doublings = math.log2(2.0 * (thickness + tails))
    return 2.0 ** (math.ceil(_REPEATS_PER_DOUBLING * doublings) / _REPEATS_PER_DOUBLING)


def coulomb_cell(
    positions: Float[np.ndarray, "atoms 3"],
    cell: Float[np.ndarray, "3 3"],
    pbc: Bool[np.ndarray, "3"],
    tails: float | None,
) -> tuple[Float[np.ndarray, "3 3"], float]:
    """The cell that Coulomb sums repeat, and what `repeat_length` says, with the same arguments."""
    repeat = repeat_length(positions, cell, pbc, tails)
    is_repeated = 0.0 < repeat < math.inf
    return (repeated_cell(cell, pbc, repeat) if is_repeated else cell), repeat


def volume(cell: Float[np.ndarray, "3 3"]) -> float:
    """Volume of a cell in Å³, positive for either handedness."""
    return float(abs(np.linalg.det(cell)))


def _check_periodic_vectors(cell: np.ndarray, pbc: np.ndarray) -> None:
    """Refuse lattice vectors along which nothing can be repeated."""
    lengths = np.linalg.norm(cell, axis=1)
    flags = "".join("T" if flag else "F" for flag in pbc)
    for axis in np.flatnonzero(pbc):
        if lengths[axis] == 0.0:
            raise DataError(
                f"cell: found a zero vector for direction {'abc'[axis]}, which is periodic "
                f"(pbc {flags}); expected a lattice vector"
            )
    if not are_independent(cell[pbc]):
        raise DataError(
            f"cell: found linearly dependent vectors {cell[pbc].tolist()} for the periodic "
            f"directions (pbc {flags})"
        )
