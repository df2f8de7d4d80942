"""Angular functions of the Chebyshev descriptor, as sums over the edges of each atom.

For the neighbours j of an atom with weights g_j = w_j f(r_j; R_a)

    A_n = Σ_{j<k} g_j g_k T_n(û_j·û_k).

The pairs are not enumerated: with T_n = Σ_l c_nl P_l and the addition theorem

    A_n = ½ [Σ_l c_nl 4π/(2l+1) Σ_m (Σ_j g_j Y_lm(û_j))² - Σ_j g_j²],

which is smooth for opposite neighbours, where derivatives of n arccos are not. The harmonics are
sums of T_v(z) Re (x + iy)^m and T_v(z) Im (x + iy)^m, v + m ≤ l, so that the sums over neighbours
are the moments Σ_j g_j T_v Re … and Σ_j g_j T_v Im ….
"""

from __future__ import annotations

import functools

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mace_scf_jax.backbones.chebyshev.descriptor import Descriptor
from mace_scf_jax.backbones.chebyshev.harmonics import legendre_factors
from mace_scf_jax.backbones.chebyshev.polynomials import (
    chebyshev_polynomials,
    cosine_cutoff,
    powers_around,
)
from mace_scf_jax.backbones.chebyshev.sums import (
    Components,
    Weights,
    lengths_of,
    products,
    sum_over_neighbours,
)
from mace_scf_jax.graph import Graph


def angular_functions(
    graph: Graph, vectors: Components, weights: Weights, descriptor: Descriptor
) -> Float[Array, "atoms kinds orders"]:
    """A_n of every atom for each kind of weights.

    Args:
        vectors: of the edges in Å.
        weights: w of the sender of each edge.
    """
    order, cutoff = descriptor.ang_order, descriptor.ang_cutoff
    number = 2 * (order + 1) ** 2

    def sums(vectors: Components, weights: Weights) -> Array:
        """Moments, then Σ_j g_j², of each kind."""
        lengths = lengths_of(vectors)
        x, y, z = (part / lengths for part in vectors)
        damping = cosine_cutoff(lengths, cutoff)
        damped = [weight * damping for weight in weights]
        polynomials = chebyshev_polynomials(z, order)
        real, imaginary = powers_around(x, y, order)
        moments = products(
            [kind * value for kind in damped for value in polynomials], real + imaginary
        )
        own = jnp.stack([jnp.sum(kind**2, axis=1) for kind in damped], axis=1)
        return jnp.concatenate([moments.reshape(*own.shape, number), own[:, :, None]], axis=2)

    found = sum_over_neighbours(sums, graph, vectors, weights, cutoff=cutoff)
    components = found[:, :, :number] @ jnp.asarray(moments_to_harmonics(order), found.dtype)
    pairs = components**2 @ jnp.asarray(angular_coefficients(order).T, found.dtype)
    return 0.5 * (pairs - found[:, :, number:])


@functools.cache
def legendre_coefficients(order: int) -> np.ndarray:
    """c_nl of T_n = Σ_l c_nl P_l, for n and l up to the order, [n, l].

    By Gauss–Legendre quadrature, which is exact for these polynomials.
    """
    points, quadrature = np.polynomial.legendre.leggauss(order + 1)
    chebyshev = np.polynomial.chebyshev.chebvander(points, order)
    legendre = np.polynomial.legendre.legvander(points, order)
    norms = (2 * np.arange(order + 1) + 1) / 2
    coefficients = np.einsum("p,pn,pl,l->nl", quadrature, chebyshev, legendre, norms)
    n, l = np.indices(coefficients.shape)
    return np.where((l <= n) & ((n - l) % 2 == 0), coefficients, 0.0)


@functools.cache
def angular_coefficients(order: int) -> np.ndarray:
    """c_nl/(2l + 1) for each component lm of the harmonics, [n, components].

    Products of harmonics that are normalised to 2l + 1 add up to (2l + 1) P_l.
    """
    degrees = np.arange(order + 1)
    of_degrees = legendre_coefficients(order) / (2 * degrees + 1)
    return np.repeat(of_degrees, 2 * degrees + 1, axis=1)


@functools.cache
def moments_to_harmonics(order: int) -> np.ndarray:
    """Coefficients of the moments, [v, part, m] in one axis, in the harmonics lm."""
    factors = legendre_factors(order)
    components = [(l, m) for l in range(order + 1) for m in range(-l, l + 1)]
    found = np.zeros((order + 1, 2, order + 1, len(components)))
    for index, (l, m) in enumerate(components):
        found[:, int(m < 0), abs(m), index] = factors[:, l, abs(m)]
    return found.reshape(-1, len(components))
