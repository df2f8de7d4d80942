"""Neighbour lists on the host."""

from __future__ import annotations

import numpy as np
import vesin
from jaxtyping import Bool, Float, Int

from mace_scf_jax.data.errors import DataError


def neighbour_list(
    positions: Float[np.ndarray, "atoms 3"],
    cell: Float[np.ndarray, "3 3"],
    pbc: Bool[np.ndarray, "3"],
    cutoff: float,
) -> tuple[Int[np.ndarray, "edges"], Int[np.ndarray, "edges"], Int[np.ndarray, "edges 3"]]:
    """All directed pairs of atoms and their images closer than the cutoff.

    Both directions of a pair are listed, all images within the cutoff, and an atom with its own
    images, but not with itself. The vector of an edge is
    `positions[receiver] - positions[sender] + cell_shift @ cell`.

    Args:
        positions: positions, Å; need not lie within the cell.
        cell: lattice vectors as rows, Å; only those of periodic directions matter.
        pbc: periodic directions.
        cutoff: largest distance, Å.

    Returns:
        Senders, receivers and integer cell shifts, sorted by receiver, then sender, then shift.

    Raises:
        DataError: if the cutoff is not positive.
    """
    if not cutoff > 0.0:
        raise DataError(f"cutoff: found {cutoff}, expected a positive length in Å")
    pbc = np.asarray(pbc, dtype=bool)
    search = vesin.NeighborList(cutoff=float(cutoff), full_list=True, n_threads=1)
    senders, receivers, shifts = search.compute(
        np.asarray(positions, dtype=np.float64), search_box(cell, pbc), pbc.tolist(), "ijS"
    )
    order = np.lexsort((shifts[:, 2], shifts[:, 1], shifts[:, 0], senders, receivers))
    return (
        senders[order].astype(np.int32),
        receivers[order].astype(np.int32),
        shifts[order].astype(np.int32),
    )


def search_box(cell: np.ndarray, pbc: np.ndarray) -> np.ndarray:
    """A box with volume for the search: open directions get unit vectors normal to the others.

    Pairs do not depend on the vectors of open directions, but the search needs a box that can be
    inverted, and a slab or wire may come with zero vectors there.
    """
    box = np.array(cell, dtype=np.float64)
    if pbc.all():
        return box
    periodic = box[pbc]
    _, _, axes = np.linalg.svd(periodic if len(periodic) else np.zeros((1, 3)))
    box[~pbc] = axes[len(periodic) :]
    return box
