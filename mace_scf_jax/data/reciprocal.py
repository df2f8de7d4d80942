"""Choice of reciprocal lattice vectors on the host."""

from __future__ import annotations

import functools

import numpy as np
from jaxtyping import Float, Int

from mace_scf_jax.boundary import encloses_volume
from mace_scf_jax.data.errors import DataError


def half_space_indices(
    cell: Float[np.ndarray, "3 3"],
    cutoff: float,
    *,
    largest_strain: float = 0.0,
    with_zero: bool = False,
) -> Int[np.ndarray, "kvectors 3"]:
    """Integer indices n of the reciprocal vectors k = n B with 0 < |k| ≤ cutoff, one of each ±k.

    B = 2π A^{-T} for the cell A. Of each pair the one whose first non-zero index is positive is
    kept. The order is lexicographic, so it does not depend on rounding.

    Args:
        cell: lattice vectors as rows, Å, of either handedness.
        cutoff: largest |k|, 1/Å.
        largest_strain: one index set for a range of cells, as in simulations at constant pressure:
            it holds every index with |k| ≤ cutoff in any cell A (1 + ε), where ε is symmetric with
            eigenvalues of at most this magnitude. With a fixed set the energy is a smooth function
            of the cell.
        with_zero: put k = 0 before them, which counts for a charged slab (see
            `mace_scf_jax.electrostatics.sums.truncation`).

    Returns:
        The indices, int32 and read-only.

    Raises:
        DataError: if the cell has no volume, the cutoff is not positive and finite, or the strain
            is not between 0 and 1.
    """
    cell = np.ascontiguousarray(cell, dtype=np.float64)
    if not encloses_volume(cell):
        raise DataError(
            f"cell: found {cell.tolist()}, which encloses no volume; reciprocal vectors need three "
            "independent lattice vectors, also along open directions"
        )
    if not (np.isfinite(cutoff) and cutoff > 0.0):
        raise DataError(f"reciprocal cutoff: found {cutoff}, expected a positive number in 1/Å")
    if not 0.0 <= largest_strain < 1.0:
        raise DataError(f"largest strain: found {largest_strain}, expected a number from 0 to 1")
    # In the cell A (1 + ε) the index n has k' = (1 + ε)⁻¹ k, so |k| ≤ |k'| (1 + |ε|).
    return _indices(cell.tobytes(), float(cutoff) * (1.0 + float(largest_strain)), with_zero)


@functools.lru_cache(maxsize=1024)
def _indices(cell_bytes: bytes, cutoff: float, with_zero: bool) -> np.ndarray:
    """The indices for a cell given by its bytes: structures in equal cells share one array."""
    cell = np.frombuffer(cell_bytes, dtype=np.float64).reshape(3, 3)
    # |n_i| = |k · a_i| / 2π ≤ cutoff |a_i| / 2π
    bounds = np.floor(cutoff * np.linalg.norm(cell, axis=1) / (2.0 * np.pi)).astype(int)
    first = np.arange(0, bounds[0] + 1)
    second = np.arange(-bounds[1], bounds[1] + 1)
    third = np.arange(-bounds[2], bounds[2] + 1)
    candidates = np.stack(np.meshgrid(first, second, third, indexing="ij"), axis=-1).reshape(-1, 3)
    # The origin sits in the middle of the plane n_0 = 0; what follows it is the half space.
    candidates = candidates[(len(second) * len(third)) // 2 + (0 if with_zero else 1) :]
    reciprocal = 2.0 * np.pi * np.linalg.inv(cell).T
    within = np.sum((candidates @ reciprocal) ** 2, axis=1) <= cutoff**2
    indices = candidates[within].astype(np.int32)
    indices.flags.writeable = False
    return indices
