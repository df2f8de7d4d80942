"""Charge carried along edges: what the sender gives, the receiver gets."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mace_scf_jax.graph import Graph


def net_transfer(graph: Graph, transfer: Float[Array, "edges"]) -> Float[Array, "atoms"]:
    """Charge that every atom gains: what its incoming edges carry minus what its outgoing do.

    Args:
        transfer: charge carried by each edge in e, zero for padding edges.
    """
    outgoing = jax.ops.segment_sum(transfer, graph.senders, num_segments=graph.num_atoms)
    return sum_incoming(graph, transfer) - outgoing


def sum_incoming(graph: Graph, values: Float[Array, "edges *rest"]) -> Float[Array, "atoms *rest"]:
    """Sum over the edges that end at each atom."""
    if graph.neighbours_per_atom is None:
        return jax.ops.segment_sum(
            values, graph.receivers, num_segments=graph.num_atoms, indices_are_sorted=True
        )
    shape = (graph.num_atoms, graph.neighbours_per_atom, *values.shape[1:])
    return jnp.sum(values.reshape(shape), axis=1)


def at_receivers(graph: Graph, values: Float[Array, "atoms *rest"]) -> Float[Array, "edges *rest"]:
    """Values of the atom at which each edge ends."""
    if graph.neighbours_per_atom is None:
        return values[graph.receivers]
    return jnp.repeat(values, graph.neighbours_per_atom, axis=0)


def polarization_of(
    graph: Graph,
    charges: Float[Array, "atoms"],
    transfer: Float[Array, "edges"],
    vectors: Float[Array, "edges 3"],
) -> Float[Array, "graphs 3"]:
    """Polarization Σ q r + Σ t r_edge of each graph in e Å (x, y, z), in double precision.

    Args:
        charges: that move with their atoms, in e; zero for padding atoms.
        transfer: charge carried by each edge in e, zero for padding edges.
        vectors: of the edges in Å.
    """
    positions = jnp.asarray(graph.positions)
    carried = sum_incoming(graph, transfer[:, None] * vectors).astype(positions.dtype)
    return graph.sum_atoms(charges.astype(positions.dtype)[:, None] * positions + carried)
