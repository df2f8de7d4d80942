"""Pairs of different atoms that see each other, each for all edges that are images of it."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int

from mace_scf_jax.data.sets import StructureSet
from mace_scf_jax.data.stack import STACKED_AT_ONCE, Stack


def pairs_of_atoms(stacked: Stack) -> tuple[Int[np.ndarray, "edges"], Int[np.ndarray, "pairs"]]:
    """Pairs of different atoms: an order of the edges by pairs, and the first edge of each there.

    Edges from an atom to its own images are not in the order.
    """
    edges = stacked.edges
    structure = np.repeat(np.arange(len(stacked)), edges.counts)
    senders, receivers = edges["senders"], edges["receivers"]
    order = np.lexsort((senders, receivers, structure))
    order = order[senders[order] != receivers[order]]
    keys = np.stack([structure, receivers, senders])[:, order]
    is_first = np.ones(len(order), dtype=bool)
    is_first[1:] = np.any(keys[:, 1:] != keys[:, :-1], axis=0)
    return order, np.flatnonzero(is_first)


def number_of_pairs(structures: StructureSet) -> int:
    """Number of pairs of different atoms in all structures."""
    starts = range(STACKED_AT_ONCE, len(structures), STACKED_AT_ONCE)
    parts = np.split(np.arange(len(structures)), starts)
    return sum(len(pairs_of_atoms(structures.stack(rows))[1]) for rows in parts if len(rows))
