"""Gaussian multipoles with open boundary: exact sums over the pairs of one system.

A unit-moment Gaussian multipole is φ_lm(r - r_i) = R_lm(∇_i)/(2l-1)!! G_σ(r - r_i), so a pair
interacts like derivatives of the interaction of two Gaussian charges,

    U_ij = A Σ p_a p_b R_a(∇_i) R_b(∇_j) / ((2l_a-1)!! (2l_b-1)!!) · erf(β r)/r,

with r = r_i - r_j and β² = 1/(2(σ_i² + σ_j²)). With B_n = (-1/r d/dr)^n erf(βr)/r, Hobson's theorem
for a homogeneous polynomial P of degree n,

    P(∇) B_0 = Σ_k 1/(2^k k!) · (∇²)^k P(r) · (-1)^(n-k) B_{n-k}(r),

gives closed forms of any degree: polynomials, made once on the host, times B_n. Since
B_n = 2β/√π (2β²)^n F_n(β²r²) with the Boys functions F_n, they are smooth at r = 0, and an atom's
interaction with itself is the same formula at r = 0. Large systems are summed in chunks of
receivers, recomputed in the backward pass, so that memory stays bounded.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mace_scf_jax.electrostatics import polynomials
from mace_scf_jax.electrostatics.boys import boys_functions
from mace_scf_jax.electrostatics.gaussians import odd_double_factorial
from mace_scf_jax.electrostatics.harmonics import SOLID_HARMONICS, degrees
from mace_scf_jax.electrostatics.polynomials import monomials_by_degree, monomials_of_degree
from mace_scf_jax.units import COULOMB_CONSTANT

_contract = functools.partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)
"""Contraction that keeps full float32 precision on accelerators too."""

PAIRS_AT_ONCE = 2**17
"""Receiver–source pairs whose intermediates are in memory together."""


@functools.cache
def _interaction_table(
    receiver_max_l: int, source_max_l: int
) -> dict[tuple[int, int], Float[np.ndarray, "monomials receivers sources"]]:
    """Hobson's theorem for every pair of components.

    Returns:
        For each order n of B_n and degree of the monomials that multiply it, their coefficients.
    """
    receivers = [harmonic for block in SOLID_HARMONICS[: receiver_max_l + 1] for harmonic in block]
    sources = [harmonic for block in SOLID_HARMONICS[: source_max_l + 1] for harmonic in block]
    table: dict[tuple[int, int], Float[np.ndarray, "monomials receivers sources"]] = {}
    for a, receiver_l in enumerate(degrees(receiver_max_l)):
        for b, source_l in enumerate(degrees(source_max_l)):
            # ∇_j = -∇_i gives the sign of the source's degree.
            scale = (-1.0) ** source_l / (
                odd_double_factorial(receiver_l) * odd_double_factorial(source_l)
            )
            total_l = receiver_l + source_l
            polynomial = polynomials.multiply(receivers[a], sources[b])
            for k in range(total_l // 2 + 1):
                order, degree = total_l - k, total_l - 2 * k
                monomials = monomials_of_degree(degree)
                block = table.setdefault(
                    (order, degree), np.zeros((len(monomials), len(receivers), len(sources)))
                )
                factor = scale * (-1.0) ** order / (2.0**k * math.factorial(k))
                for exponents, coefficient in polynomial.items():
                    block[monomials.index(exponents), a, b] += factor * coefficient
                polynomial = polynomials.laplacian(polynomial)
    return table


def _radial_functions(
    squared_distance: Float[Array, "*pairs"], max_order: int, inverse_length_squared: float
) -> list[Float[Array, "*pairs"]]:
    """B_n(r) = (-1/r d/dr)^n erf(βr)/r for n = 0 … max_order, in Å^-(2n+1)."""
    prefactor = 2.0 * math.sqrt(inverse_length_squared / math.pi)
    boys = boys_functions(inverse_length_squared * squared_distance, max_order)
    return [
        prefactor * (2.0 * inverse_length_squared) ** order * value
        for order, value in enumerate(boys)
    ]


def _pair_terms(
    receiver_positions: Float[Array, "receivers 3"],
    source_positions: Float[Array, "sources 3"],
    terms: Iterable[tuple[int, int]],
    inverse_length_squared: float,
) -> dict[tuple[int, int], Float[Array, "monomials receivers sources"]]:
    """B_n times the monomials of a degree for all pairs, by (n, degree)."""
    terms = tuple(terms)
    displacements = receiver_positions[:, None, :] - source_positions[None, :, :]
    radial = _radial_functions(
        jnp.sum(displacements * displacements, axis=-1),
        max(order for order, _ in terms),
        inverse_length_squared,
    )
    monomials = monomials_by_degree(displacements, max(degree for _, degree in terms))
    return {(order, degree): radial[order] * monomials[degree] for order, degree in terms}


def project_potential(
    receiver_positions: Float[Array, "receivers 3"],
    source_positions: Float[Array, "sources 3"],
    multipoles: Float[Array, "sources components"],
    *,
    width: float,
    max_l: int,
    receiver_width: float,
    receiver_max_l: int,
) -> Float[Array, "receivers receiver_components"]:
    """Potential of Gaussian multipoles projected on unit-moment Gaussians at other points.

    Args:
        receiver_positions: centres of the receivers in Å.
        source_positions: atomic positions in Å; may coincide with receivers.
        multipoles: atomic multipoles in e Å^l; zero for padding atoms.
        width: σ of the sources in Å.
        max_l: highest degree of the sources.
        receiver_width: σ of the receivers in Å; 0 gives the potential and its derivatives.
        receiver_max_l: highest degree of the receivers.

    Returns:
        ∫ V φ_lm in V/Å^l.
    """
    table = _interaction_table(receiver_max_l, max_l)
    weights = {
        term: _contract("tab,jb->tja", jnp.asarray(block, dtype=multipoles.dtype), multipoles)
        for term, block in table.items()
    }

    def project(positions: Float[Array, "receivers 3"]) -> Array:
        terms = _pair_terms(
            positions, source_positions, table, 0.5 / (width**2 + receiver_width**2)
        )
        return COULOMB_CONSTANT * sum(
            _contract("tij,tja->ia", terms[term], weights[term]) for term in table
        )

    num_receivers, num_sources = receiver_positions.shape[0], source_positions.shape[0]
    rows = max(1, PAIRS_AT_ONCE // max(num_sources, 1))
    if num_receivers <= rows:
        return project(receiver_positions)
    num_chunks = -(-num_receivers // rows)
    padded = jnp.pad(receiver_positions, ((0, num_chunks * rows - num_receivers), (0, 0)))
    chunks = jax.lax.map(jax.checkpoint(project), padded.reshape(num_chunks, rows, 3))
    return chunks.reshape(num_chunks * rows, -1)[:num_receivers]


def interaction_matrix(
    positions: Float[Array, "atoms 3"],
    *,
    width: float,
    max_l: int,
    receiver_width: float,
    receiver_max_l: int,
) -> Float[Array, "atoms receiver_components atoms components"]:
    """Projections at every atom of the potential of each multipole of every atom.

    Args:
        positions: atomic positions in Å.
        width: σ of the sources in Å.
        max_l: highest degree of the sources.
        receiver_width: σ of the receivers in Å.
        receiver_max_l: highest degree of the receivers.

    Returns:
        What `project_potential` does, as a matrix, in V/Å^l per e Å^l.
    """
    table = _interaction_table(receiver_max_l, max_l)
    terms = _pair_terms(positions, positions, table, 0.5 / (width**2 + receiver_width**2))
    return COULOMB_CONSTANT * sum(
        _contract("tij,tab->iajb", terms[term], jnp.asarray(block, dtype=positions.dtype))
        for term, block in table.items()
    )


def energy(
    positions: Float[Array, "atoms 3"],
    multipoles: Float[Array, "atoms components"],
    *,
    width: float,
    max_l: int,
) -> Float[Array, ""]:
    """Coulomb energy of one system in vacuum, each Gaussian's own energy included.

    Args:
        positions: atomic positions in Å.
        multipoles: atomic multipoles in e Å^l; zero for padding atoms.
        width: σ of the Gaussians in Å.
        max_l: highest degree of the multipoles.

    Returns:
        ½ Σ_ij U_ij in eV.
    """
    potentials = project_potential(
        positions,
        positions,
        multipoles,
        width=width,
        max_l=max_l,
        receiver_width=width,
        receiver_max_l=max_l,
    )
    return 0.5 * jnp.sum(multipoles * potentials)
