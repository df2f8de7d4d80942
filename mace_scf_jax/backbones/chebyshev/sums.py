"""Sums over the neighbours of each atom, some at a time.

What is computed of an edge are many numbers: those of all edges at once would have to pass through
memory. So atoms are taken some at a time, and their neighbours too; those of which none is within
the cutoff are left out. The edges of an atom were in the order of their lengths when they were
found, so that those within a smaller cutoff are together. Nothing depends on their order but time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from mace_scf_jax.graph import Graph

EDGES_AT_ONCE = 2048
NEIGHBOURS_AT_ONCE = 32
"""On CPU, where what is computed of so many edges fits the cache."""
EDGES_IN_MEMORY = 2**20
"""At once elsewhere, where many small steps would be slow."""

Components = tuple[Array, ...]
"""Components of vectors in the form of `Graph.rows`."""
Weights = list[Array]
"""Weights of each kind in the form of `Graph.rows`; those of the first kind are 0 for padding."""


def sum_over_neighbours(
    sums: Callable[[Components, Weights], Array],
    graph: Graph,
    vectors: Components,
    weights: Weights,
    *,
    cutoff: float,
) -> Array:
    """Sum what the edges of each atom contribute.

    Args:
        sums: from some rows and columns of the edges to the sum over each row, [rows, ...]; edges
            beyond the cutoff contribute nothing.
        graph: whose edges they are.
        vectors: of the edges in Å; not zero.
        weights: of the edges.
        cutoff: in Å.

    Returns:
        Sums [atoms, ...].
    """
    rows, columns = vectors[0].shape
    on_cpu = jax.default_backend() == "cpu"
    neighbours = min(columns, NEIGHBOURS_AT_ONCE) if on_cpu else columns
    atoms = min(rows, max(1, (EDGES_AT_ONCE if on_cpu else EDGES_IN_MEMORY) // neighbours))

    def of_piece(piece: tuple[Components, Weights]) -> Array:
        vectors, weights = piece
        within = (sum(part**2 for part in vectors) < cutoff**2) & (weights[0] != 0.0)
        nothing = jax.eval_shape(sums, *piece)
        return jax.lax.cond(
            jnp.any(within),
            jax.checkpoint(sums),  # else all that it computes would be kept for derivatives
            lambda *_: jnp.zeros(nothing.shape, nothing.dtype),
            *piece,
        )

    @jax.checkpoint
    def of_rows(block: tuple[Components, Weights]) -> Array:
        return jnp.sum(jax.lax.map(of_piece, _pieces(block, neighbours, axis=1)), axis=0)

    found = jax.lax.map(of_rows, _pieces((vectors, weights), atoms, axis=0))
    return graph.sum_of_rows(found.reshape(-1, *found.shape[2:])[:rows])


def _pieces(edges: tuple[Components, Weights], size: int, *, axis: int) -> Any:
    """Edges [rows, columns] in pieces of a size along an axis, [pieces, ...], the last filled."""

    def pieces(values: Array, filling: float) -> Array:
        padding = [(0, 0), (0, 0)]
        padding[axis] = (0, -values.shape[axis] % size)
        filled = jnp.pad(values, padding, constant_values=jnp.asarray(filling, values.dtype))
        shape = list(values.shape)
        shape[axis : axis + 1] = [-1, size]
        return jnp.moveaxis(filled.reshape(shape), axis, 0)

    vectors, weights = edges
    return tuple(pieces(part, 1.0) for part in vectors), [pieces(kind, 0.0) for kind in weights]


def products(left: list[Array], right: list[Array]) -> Array:
    """Sums Σ_j L_m R_n of products over each row, [rows, m, n]."""
    return jnp.einsum("amk,ank->amn", jnp.stack(left, axis=1), jnp.stack(right, axis=1))


def lengths_of(vectors: Components) -> Array:
    """Lengths of vectors."""
    return jnp.sqrt(sum(part**2 for part in vectors))
