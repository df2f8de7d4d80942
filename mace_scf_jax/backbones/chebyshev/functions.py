"""Radial and angular functions of the Chebyshev descriptor, as sums over the edges of each atom.

For the neighbours j of an atom with weights g_j, T_n the Chebyshev polynomials of the first kind,

    R_n = Σ_j w_j T_n(2 r_j/R_r - 1) f(r_j; R_r),
    A_n = Σ_{j<k} g_j g_k T_n(û_j·û_k),   g_j = w_j f(r_j; R_a),

once with w = 1 and once with the weights of the species. The pairs are not enumerated: with
T_n = Σ_l c_nl P_l and the addition theorem

    A_n = ½ [Σ_l c_nl 4π/(2l+1) Σ_m (Σ_j g_j Y_lm(û_j))² - Σ_j g_j²],

which is smooth for opposite neighbours, where derivatives of n arccos are not.

Source:
    Artrith, Urban and Ceder, Phys. Rev. B 96, 014112 (2017).
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mace_scf_jax.backbones.chebyshev.descriptor import Descriptor
from mace_scf_jax.backbones.chebyshev.harmonics import legendre_factors, powers_around
from mace_scf_jax.graph import Graph


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def chebyshev_polynomials(x: Float[Array, "points"], order: int) -> Float[Array, "points orders"]:
    """T_0(x) … T_order(x), by T_{n+1} = 2x T_n - T_{n-1}; derivatives are sums of the same T_n."""

    def next_order(known: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], Array]:
        value, following = known
        return (following, 2.0 * x * following - value), value

    # in a loop: unrolled, XLA would compute every order from the beginning
    values = jax.lax.scan(next_order, (jnp.ones_like(x), x), length=order + 1)[1]
    return jnp.moveaxis(values, 0, -1)


@chebyshev_polynomials.defjvp
def _change_of_polynomials(order, primals, tangents):
    values = chebyshev_polynomials(primals[0], order)
    slopes = values @ jnp.asarray(chebyshev_slopes(order), values.dtype)
    return values, slopes * tangents[0][:, None]


@functools.cache
def chebyshev_slopes(order: int) -> np.ndarray:
    """d_kn of T_n' = Σ_k d_kn T_k, for k and n up to the order, [k, n]."""
    slopes = np.zeros((order + 1, order + 1))
    slopes[:order] = np.polynomial.chebyshev.chebder(np.eye(order + 1))[:order]
    return slopes


def cosine_cutoff(lengths: Float[Array, "edges"], cutoff: float) -> Float[Array, "edges"]:
    """f(r; R) = ½ (cos(π r/R) + 1) within the cutoff, and 0 beyond it."""
    inside = 0.5 * (jnp.cos(jnp.pi * lengths / cutoff) + 1.0)
    return jnp.where(lengths < cutoff, inside, 0.0)


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


def descriptors(
    graph: Graph, descriptor: Descriptor, elements: tuple[int, ...]
) -> Float[Array, "atoms features"]:
    """Features of every atom in the order R_n, A_n, weighted R_n, weighted A_n; zero for padding.

    Args:
        graph: a batch whose edges reach at least `Descriptor.cutoff`.
        elements: atomic numbers that the species of the batch index.
    """
    vectors = graph.edge_vectors()
    lengths = jnp.sqrt(jnp.sum(vectors**2, axis=-1))
    weights = edge_weights(graph, descriptor, elements)
    radial = radial_functions(graph, lengths, weights, descriptor)
    angular = angular_functions(graph, vectors, lengths, weights, descriptor)
    return jnp.concatenate([radial, angular], axis=-1).reshape(graph.num_atoms, descriptor.size)


def edge_weights(
    graph: Graph, descriptor: Descriptor, elements: tuple[int, ...]
) -> Float[Array, "edges kinds"]:
    """Weights w of the sender of each edge: 1 and, with several species, s; zero for padding.

    Args:
        elements: atomic numbers that the species of the batch index.
    """
    weights = jnp.asarray(graph.edge_mask, graph.dtype)[:, None]
    if not descriptor.is_weighted:
        return weights
    sent = jnp.asarray(descriptor.weights(elements), graph.dtype)[graph.species][graph.senders]
    return weights * jnp.stack([jnp.ones_like(sent), sent], axis=1)


def radial_functions(
    graph: Graph,
    lengths: Float[Array, "edges"],
    weights: Float[Array, "edges kinds"],
    descriptor: Descriptor,
) -> Float[Array, "atoms kinds orders"]:
    """R_n of every atom for each kind of weights.

    Args:
        lengths: of the edges in Å.
        weights: w of the sender of each edge; zero for padding edges.
    """
    cutoff = descriptor.rad_cutoff
    polynomials = chebyshev_polynomials(2.0 * lengths / cutoff - 1.0, descriptor.rad_order)
    damped = weights * cosine_cutoff(lengths, cutoff)[:, None]
    return graph.sum_incoming_products(damped, polynomials)


def angular_functions(
    graph: Graph,
    vectors: Float[Array, "edges 3"],
    lengths: Float[Array, "edges"],
    weights: Float[Array, "edges kinds"],
    descriptor: Descriptor,
) -> Float[Array, "atoms kinds orders"]:
    """A_n of every atom for each kind of weights.

    Args:
        vectors: of the edges in Å.
        lengths: of the edges in Å.
        weights: w of the sender of each edge; zero for padding edges.
    """
    order = descriptor.ang_order
    damped = weights * cosine_cutoff(lengths, descriptor.ang_cutoff)[:, None]
    x, y, z = jnp.moveaxis(vectors / lengths[:, None], 1, 0)
    polar = damped[:, :, None] * chebyshev_polynomials(z, order)[:, None, :]
    around = powers_around(x, y, order)
    moments = graph.sum_incoming_products(polar.reshape(len(polar), -1), around)
    shape = (graph.num_atoms, weights.shape[1], order + 1, 2, order + 1)
    legendre = jnp.asarray(legendre_factors(order), moments.dtype)
    components = jnp.einsum("akvcm,vlm->akclm", moments.reshape(shape), legendre)
    squares = jnp.sum(components**2, axis=(2, 4))
    of_degrees = legendre_coefficients(order) / (2 * np.arange(order + 1) + 1)
    pairs = squares @ jnp.asarray(of_degrees.T, moments.dtype)
    own = graph.sum_incoming(damped**2)
    return 0.5 * (pairs - own[:, :, None])
