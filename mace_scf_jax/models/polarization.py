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
    return graph.sum_incoming(transfer) - outgoing


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
    carried = graph.sum_incoming(transfer[:, None] * vectors).astype(positions.dtype)
    return graph.sum_atoms(charges.astype(positions.dtype)[:, None] * positions + carried)
