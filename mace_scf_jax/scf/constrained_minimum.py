"""The minimum of a quadratic function of charges whose sum is fixed.

With the quadratic function ½ q·A q + b·q and the projector P on vectors of zero sum, the minimum is

    q = q₀ + P x,   (P A P + 1 - P) x = -P (A q₀ + b),

where q₀ spreads the total evenly. The operator is symmetric, and positive definite if A is so for
charges of zero sum, as a minimum requires; nothing else is asked of A. At the minimum A q + b is
the same number everywhere, the Lagrange multiplier of the constraint.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mace_scf_jax.scf.linear_solvers import (
    LinearOperator,
    LinearSolver,
    solve_positive_definite,
)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ConstrainedMinimum:
    """The charges that minimise a quadratic function, and how well they do."""

    charges: Float[Array, "size"]
    """The minimum; 0 where masked. Their sum is the given total up to round-off."""
    multiplier: Float[Array, ""]
    """Derivative of the minimum with respect to the total."""
    residual: Float[Array, ""]
    """Largest deviation of a derivative A q + b from the multiplier; 0 at the exact minimum."""


def constrained_minimum(
    curvature: LinearOperator,
    slope: Float[Array, "size"],
    mask: Bool[Array, "size"],
    total: Float[Array, ""],
    *,
    solver: LinearSolver,
) -> ConstrainedMinimum:
    """Minimise ½ q·A q + b·q at fixed sum of q.

    Args:
        curvature: q -> A q, linear and symmetric.
        slope: b.
        mask: False for entries that do not exist; their charge is 0.
        total: sum of the charges.
        solver: how the linear system is solved.

    Returns:
        The minimum, differentiable to any order.
    """
    entries = mask.astype(slope.dtype)
    count = jnp.maximum(jnp.sum(entries), 1.0)

    def projected(values: Array) -> Array:
        return entries * (values - jnp.sum(entries * values) / count)

    def operator(values: Array) -> Array:
        neutral = projected(values)
        return projected(curvature(neutral)) + values - neutral

    even = entries * total / count
    right = -projected(curvature(even) + slope)
    charges = even + projected(solve_positive_definite(operator, right, solver=solver))
    gradient = curvature(charges) + slope
    return ConstrainedMinimum(
        charges=charges,
        multiplier=jnp.sum(entries * gradient) / count,
        residual=jnp.max(jnp.abs(projected(gradient)), initial=0.0),
    )
