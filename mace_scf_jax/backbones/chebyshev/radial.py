"""Radial functions of the Chebyshev descriptor, as sums over the edges of each atom.

For the neighbours j of an atom with weights w_j and T_n the Chebyshev polynomials of the first kind

    R_n = Σ_j w_j T_n(2 r_j/R_r - 1) f(r_j; R_r).

The sums are those of products of T_a and T_bm, a < m, about 2√n polynomials instead of n.
"""

from __future__ import annotations

import math

import jax.numpy as jnp
from jaxtyping import Array, Float

from mace_scf_jax.backbones.chebyshev.descriptor import Descriptor
from mace_scf_jax.backbones.chebyshev.polynomials import (
    chebyshev_polynomials,
    cosine_cutoff,
    orders_of_products,
)
from mace_scf_jax.backbones.chebyshev.sums import (
    Components,
    Weights,
    lengths_of,
    products,
    sum_over_neighbours,
)
from mace_scf_jax.graph import Graph


def radial_functions(
    graph: Graph, vectors: Components, weights: Weights, descriptor: Descriptor
) -> Float[Array, "atoms kinds orders"]:
    """R_n of every atom for each kind of weights.

    Args:
        vectors: of the edges in Å.
        weights: w of the sender of each edge.
    """
    order, cutoff = descriptor.rad_order, descriptor.rad_cutoff
    low = math.isqrt(order) + 1

    def sums(vectors: Components, weights: Weights) -> Array:
        lengths = lengths_of(vectors)
        polynomials = chebyshev_polynomials(2.0 * lengths / cutoff - 1.0, low)
        multiples = chebyshev_polynomials(polynomials[low], order // low)  # T_b(T_m) = T_bm
        damping = cosine_cutoff(lengths, cutoff)
        damped = [weight * damping for weight in weights]
        found = products(
            [kind * value for kind in damped for value in polynomials[:low]], multiples
        )
        orders = jnp.asarray(orders_of_products(low, order), found.dtype)
        return jnp.einsum(
            "akij,nij->akn", found.reshape(len(lengths), len(weights), low, -1), orders
        )

    return sum_over_neighbours(sums, graph, vectors, weights, cutoff=cutoff)
