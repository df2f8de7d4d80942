"""Newton's method with the explicit Jacobian of every system, for small systems.

Systems are not coupled, so that one application of the linearised equations gives one column of the
Jacobians of all systems at once.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mace_scf_jax.scf.fixed_point import FixedPointProblem, FixedPointSolution
from mace_scf_jax.scf.krylov import LinearOperator
from mace_scf_jax.scf.newton import newton
from mace_scf_jax.scf.solver import Solver, check_settings
from mace_scf_jax.scf.unknowns import Unknowns

COLUMNS_AT_ONCE = 16
"""Columns of Jacobians that are computed together."""


@dataclasses.dataclass(frozen=True)
class Dense(Solver):
    """Settings of Newton's method with explicit Jacobians.

    Raises:
        ValueError: a number is out of range.
    """

    max_steps: int = 20
    """Newton steps after which to give up."""
    tolerance: float = 1e-8
    """Of the mean of |F(p, μ) - p|, and of the error of the charge."""

    def __post_init__(self) -> None:
        check_settings(self)

    def find(
        self,
        problem: FixedPointProblem,
        state: Float[Array, "sites components"],
        level: Float[Array, "systems"],
    ) -> FixedPointSolution:
        """Search by Newton's method, each system by itself."""

        def direction(slope: LinearOperator, right: Array, tolerance: Array) -> tuple[Array, Array]:
            applications = jnp.full(len(right), right.shape[1], jnp.int32)
            return solve_dense(slope, right), applications

        return newton(
            Unknowns.of(problem, state.shape[-1]),
            state,
            level,
            direction=direction,
            max_steps=self.max_steps,
            tolerance=self.tolerance,
        )

    def solve_linear(
        self,
        operator: LinearOperator,
        right: Float[Array, "systems unknowns"],
        precondition: LinearOperator,
    ) -> Float[Array, "systems unknowns"]:
        """Solve a linear system with explicit matrices; they need no preconditioner."""
        return solve_dense(operator, right)


def solve_dense(
    operator: LinearOperator, right: Float[Array, "systems unknowns"]
) -> Float[Array, "systems unknowns"]:
    """Solve A x = b with the matrix of every system.

    Args:
        operator: x -> A x; systems are not coupled.
        right: b.

    Returns:
        x; zero for systems whose matrix is singular.
    """
    count, size = right.shape

    def column(unit: Float[Array, "unknowns"]) -> Float[Array, "systems unknowns"]:
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
