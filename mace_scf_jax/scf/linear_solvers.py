"""Linear systems with a symmetric positive definite operator.

The solution is differentiated implicitly, by one more solve with the same operator, whichever way
it was found; the derivative can be differentiated again, to any order.
"""

from __future__ import annotations

import enum
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

LinearOperator = Callable[[Array], Array]
"""A linear function of one vector."""


class LinearSolver(enum.StrEnum):
    """How a linear system is solved."""

    DENSE = "dense"
    """Write out the matrix and factorise it: memory size², time size³."""
    CONJUGATE_GRADIENTS = "conjugate_gradients"
    """Apply the operator until the residual has vanished: no matrix."""


def as_matrix(operator: LinearOperator, example: Float[Array, "size"]) -> Float[Array, "size size"]:
    """The matrix of a symmetric linear operator.

    Args:
        operator: the operator.
        example: any vector that it applies to.
    """
    return jax.vmap(operator)(jnp.eye(example.shape[0], dtype=example.dtype))


def solve_positive_definite(
    operator: LinearOperator, right: Float[Array, "size"], *, solver: LinearSolver
) -> Float[Array, "size"]:
    """Solve A x = b for a symmetric positive definite operator A.

    Args:
        operator: x -> A x.
        right: b.
        solver: how; conjugate gradients stop once |A x - b| is below ε^¾ |b|, with ε the rounding
            unit of the numbers (2e-12 in double precision), or after 10 steps per unknown.

    Returns:
        x. Where A is not positive definite, the dense solver returns NaN and conjugate gradients
        leave a residual or find a saddle point.
    """
    if solver is LinearSolver.DENSE:
        return jax.scipy.linalg.solve(as_matrix(operator, right), right, assume_a="pos")
    tolerance = float(jnp.finfo(right.dtype).eps) ** 0.75

    def iterate(operator: LinearOperator, right: Array) -> Array:
        return jax.scipy.sparse.linalg.cg(operator, right, tol=tolerance)[0]

    # cg alone cannot be transposed where only the right-hand side is differentiated
    return jax.lax.custom_linear_solve(operator, right, iterate, symmetric=True)
