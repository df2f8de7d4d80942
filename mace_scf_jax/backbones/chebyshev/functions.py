"""The features of the Chebyshev descriptor: radial and angular functions of every atom.

Each is there once with w = 1 and once with the weights of the species.

Source:
    Artrith, Urban and Ceder, Phys. Rev. B 96, 014112 (2017).
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from mace_scf_jax.backbones.chebyshev.angular import angular_functions
from mace_scf_jax.backbones.chebyshev.descriptor import Descriptor
from mace_scf_jax.backbones.chebyshev.radial import radial_functions
from mace_scf_jax.backbones.chebyshev.sums import Weights
from mace_scf_jax.graph import Graph


def descriptors(
    graph: Graph, descriptor: Descriptor, elements: tuple[int, ...]
) -> Float[Array, "atoms features"]:
    """Features of every atom in the order R_n, A_n, weighted R_n, weighted A_n; zero for padding.

    Args:
        graph: a batch whose edges reach at least `Descriptor.cutoff`.
        elements: atomic numbers that the species of the batch index.
    """
    vectors = graph.edge_components()
    weights = weights_in_rows(graph, descriptor, elements)
    radial = radial_functions(graph, vectors, weights, descriptor)
    angular = angular_functions(graph, vectors, weights, descriptor)
    return jnp.concatenate([radial, angular], axis=-1).reshape(graph.num_atoms, descriptor.size)


def edge_weights(
    graph: Graph, descriptor: Descriptor, elements: tuple[int, ...]
) -> Float[Array, "edges kinds"]:
    """Weights w of the sender of each edge: 1 and, with several species, s; zero for padding.

    Args:
        elements: atomic numbers that the species of the batch index.
    """
    weights = weights_in_rows(graph, descriptor, elements)
    return jnp.stack(weights, axis=-1).reshape(-1, len(weights))


def weights_in_rows(graph: Graph, descriptor: Descriptor, elements: tuple[int, ...]) -> Weights:
    """The `edge_weights` of each kind."""
    exists = graph.rows(graph.edge_mask).astype(graph.dtype)
    if not descriptor.is_weighted:
        return [exists]
    of_species = jnp.asarray(descriptor.weights(elements), graph.dtype)
    return [exists, exists * of_species[graph.species][graph.rows(graph.senders)]]
