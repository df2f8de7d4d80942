"""A preconditioner that brings an iteration to the solution of an affine map in one step.

A fixed-point iteration approximates (1 - ∂F/∂p)⁻¹ by one. Where ∂F/∂p of a system is known as a
matrix without evaluating F, solving with 1 - ∂F/∂p makes the iteration Newton's method, and linear
systems with the Jacobian take a single step of a Krylov method.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mace_scf_jax.scf.krylov import Vectors

SMALLEST_PIVOT = 100.0
"""Relative to the largest, times the precision of numbers; below it a matrix is singular."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SlopePreconditioner:
    """1 - ∂F/∂p of every system, factorised. It has no derivative."""

    factors: Float[Array, "systems unknowns unknowns"]
    """L and U."""
    pivots: Int[Array, "systems unknowns"]
    """Rows that were exchanged."""

    @classmethod
    def of_slopes(cls, slopes: Float[Array, "systems unknowns unknowns"]) -> SlopePreconditioner:
        """The preconditioner of ∂F/∂p; that of no slope where 1 - ∂F/∂p is singular.

        Args:
            slopes: ∂F/∂p, with rows and columns (site of the system, component); zero for unknowns
                that do not exist.
        """
        slopes = jax.lax.stop_gradient(slopes)
        unit = jnp.eye(slopes.shape[-1], dtype=slopes.dtype)
        finite = jnp.all(jnp.isfinite(slopes), axis=(-2, -1), keepdims=True)
        factors, pivots = jax.scipy.linalg.lu_factor(jnp.where(finite, unit - slopes, unit))
        sizes = jnp.abs(jnp.diagonal(factors, axis1=-2, axis2=-1))
        smallest = SMALLEST_PIVOT * float(jnp.finfo(slopes.dtype).eps) * jnp.max(sizes, axis=-1)
        usable = jnp.min(sizes, axis=-1) > smallest
        none = jnp.arange(slopes.shape[-1], dtype=pivots.dtype)
        return cls(
            factors=jnp.where(usable[:, None, None], factors, unit),
            pivots=jnp.where(usable[:, None], pivots, none),
        )

    def solve(self, states: Vectors, *, transposed: bool = False) -> Vectors:
        """(1 - ∂F/∂p)⁻¹ p of every system.

        Args:
            states: p; a single right side each, as many would wake the threads of LAPACK, which
                keep the cores from those of XLA for a while.
            transposed: solve with the transposed matrix.

        Raises:
            ValueError: the matrices are not those of such states.
        """
        if self.pivots.shape != states.shape:
            raise ValueError(
                f"preconditioner: expected matrices for states of shape {states.shape} (systems, "
                f"unknowns), found {self.factors.shape}"
            )

        def of_system(factors: Array, pivots: Array, state: Array) -> Array:
            return jax.scipy.linalg.lu_solve((factors, pivots), state, trans=int(transposed))

        return jax.vmap(of_system)(self.factors, self.pivots, states)
