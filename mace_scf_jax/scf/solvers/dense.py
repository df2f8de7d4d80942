"""Newton's method with the explicit Jacobian of every system, for small systems.

Systems are not coupled, so that one application of the linearised equations gives one column of the
Jacobians of all systems at once.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mace_scf_jax.scf.equations import Equations
from mace_scf_jax.scf.krylov import LinearOperator, Vectors
from mace_scf_jax.scf.solvers.newton import Newton

COLUMNS_AT_ONCE = 16
"""Columns of Jacobians that are computed together."""


@dataclasses.dataclass(frozen=True)
class Dense(Newton):
    """Settings of Newton's method with explicit Jacobians.

    Raises:
        ValueError: a number is out of range.
    """

    name = "dense"

    def direction(
        self,
        equations: Equations,
        slope: LinearOperator,
        right: Vectors,
        tolerance: Float[Array, "systems"],
    ) -> tuple[Vectors, Int[Array, "systems"]]:
        """Solve J x = b with the matrix of each system."""
        applications = jnp.full(len(right), right.shape[1], jnp.int32)
        return solve_dense(slope, right), applications

    def solve_linear(
        self, operator: LinearOperator, right: Vectors, precondition: LinearOperator
    ) -> Vectors:
        """Solve a linear system with explicit matrices; they need no preconditioner."""
        return solve_dense(operator, right)


def solve_dense(operator: LinearOperator, right: Vectors) -> Vectors:
    """Solve A x = b with the matrix of every system.

    Args:
        operator: x -> A x; systems are not coupled.
        right: b.

    Returns:
        x; zero for systems whose matrix is singular.
    """
    count, size = right.shape

    def column(unit: Float[Array, "unknowns"]) -> Vectors:
        return operator(jnp.broadcast_to(unit, (count, size)))

    columns = jax.lax.map(column, jnp.eye(size, dtype=right.dtype), batch_size=COLUMNS_AT_ONCE)
    matrices = jnp.moveaxis(columns, 0, -1)
    # entries without a site have no equation
    exists = jnp.any(matrices != 0.0, axis=-1) | jnp.any(matrices != 0.0, axis=-2)
    unit = jnp.eye(size, dtype=right.dtype)
    matrices = jnp.where(exists[:, :, None], matrices, unit)
    solution = jnp.linalg.solve(matrices, right[..., None])[..., 0]
    finite = jnp.all(jnp.isfinite(solution), axis=-1, keepdims=True)
    return jnp.where(finite, solution, 0.0)
