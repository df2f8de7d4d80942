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

import dataclasses
import functools
import math
from collections.abc import Iterable, Iterator
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mace_scf_jax.electrostatics import polynomials
from mace_scf_jax.electrostatics.gaussians import Receivers, odd_double_factorial
from mace_scf_jax.electrostatics.harmonics import SOLID_HARMONICS, degrees
from mace_scf_jax.electrostatics.polynomials import monomials_by_degree, monomials_of_degree
from mace_scf_jax.electrostatics.sums.boys import boys_functions
from mace_scf_jax.units import COULOMB_CONSTANT

_contract = functools.partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)
"""Contraction that keeps full float32 precision on accelerators too."""

PAIRS_AT_ONCE = 2**17
"""Receiver–source pairs whose intermediates are in memory together."""


Table = dict[tuple[int, int], Float[np.ndarray, "terms receivers sources"]]


@functools.cache
def _interaction_table(receiver_max_l: int, source_max_l: int) -> Table:
    """Hobson's theorem for every pair of components.

    Returns:
        For each order n of B_n and degree of the monomials that multiply it, their coefficients.
    """
    receivers = [harmonic for block in SOLID_HARMONICS[: receiver_max_l + 1] for harmonic in block]
    sources = [harmonic for block in SOLID_HARMONICS[: source_max_l + 1] for harmonic in block]
    table: Table = {}
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


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class OpenSum:
    """The sum over all pairs of atoms of one system."""

    positions: Float[Array, "atoms 3"]
    """Atomic positions in Å."""
    width: float = dataclasses.field(metadata={"static": True})
    """σ of the density in Å."""
    max_l: int = dataclasses.field(metadata={"static": True})
    """Highest degree of the density."""

    has_pair_sums: ClassVar[bool] = True

    def energy(self, multipoles: Float[Array, "atoms components"]) -> Float[Array, ""]:
        """Coulomb energy ½ Σ_ij U_ij in eV; see `Summation`."""
        potentials = self.project(multipoles, Receivers(self.max_l, (self.width,)))[:, 0]
        return 0.5 * jnp.sum(multipoles * potentials)

    def project(
        self,
        multipoles: Float[Array, "atoms components"],
        receivers: Receivers,
        points: Float[Array, "points 3"] | None = None,
    ) -> Float[Array, "points widths receiver_components"]:
        """Projections ∫ V φ_lm in V/Å^l; see `Summation`."""
        table = self._table(receivers)
        weights = {
            term: _contract("tab,jb->tja", jnp.asarray(block, dtype=multipoles.dtype), multipoles)
            for term, block in table.items()
        }

        def received(positions: Float[Array, "receivers 3"]) -> Array:
            of_widths = [
                COULOMB_CONSTANT
                * sum(_contract("tij,tja->ia", terms[term], weights[term]) for term in table)
                for terms in self._terms(positions, table, receivers)
            ]
            return jnp.stack(of_widths, axis=1)

        centres = self.positions if points is None else points
        rows = max(1, PAIRS_AT_ONCE // max(len(self.positions), 1))
        if len(centres) <= rows:
            return received(centres)
        num_chunks = -(-len(centres) // rows)
        padded = jnp.pad(centres, ((0, num_chunks * rows - len(centres)), (0, 0)))
        chunks = jax.lax.map(jax.checkpoint(received), padded.reshape(num_chunks, rows, 3))
        return chunks.reshape(num_chunks * rows, *chunks.shape[2:])[: len(centres)]

    def matrix(
        self, receivers: Receivers
    ) -> Float[Array, "atoms widths receiver_components atoms components"]:
        """Projections of every multipole in V/Å^l per e Å^l; see `Summation`."""
        table = self._table(receivers)
        dtype = self.positions.dtype
        of_widths = [
            COULOMB_CONSTANT
            * sum(
                _contract("tij,tab->iajb", terms[term], jnp.asarray(block, dtype=dtype))
                for term, block in table.items()
            )
            for terms in self._terms(self.positions, table, receivers)
        ]
        return jnp.stack(of_widths, axis=1)

    def _table(self, receivers: Receivers) -> Table:
        """Coefficients of every term of the interaction of two components."""
        return _interaction_table(receivers.max_l, self.max_l)

    def _terms(
        self,
        centres: Float[Array, "receivers 3"],
        terms: Iterable[tuple[int, int]],
        receivers: Receivers,
    ) -> Iterator[dict[tuple[int, int], Float[Array, "monomials receivers sources"]]]:
        """B_n times the monomials of a degree for all pairs, by (n, degree), for each width."""
        displacements = centres[:, None, :] - self.positions[None, :, :]
        squared = jnp.sum(displacements * displacements, axis=-1)
        monomials = monomials_by_degree(displacements, max(degree for _, degree in terms))
        highest = max(order for order, _ in terms)
        for width in receivers.widths:
            radial = _radial_functions(squared, highest, 0.5 / (self.width**2 + width**2))
            yield {(order, degree): radial[order] * monomials[degree] for order, degree in terms}
