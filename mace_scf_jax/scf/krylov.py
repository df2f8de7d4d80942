"""Linear systems A x = b of many independent systems in one vector, by GMRES without a matrix.

The entries of the vector belong to systems that A does not couple. Every system has a Krylov space
of its own: one application of A extends all of them, which takes fewer steps than one space for
the whole vector, and makes the solution of a system independent of the others.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

LinearOperator = Callable[[Array], Array]
"""A linear function of one vector."""


@dataclasses.dataclass(frozen=True)
class Systems:
    """Which system each entry of a vector belongs to."""

    owner: Int[Array, "size"]
    num_systems: int

    def dots(self, left: Float[Array, "size"], right: Float[Array, "size"]) -> Array:
        """Scalar product of each system's entries, [systems]."""
        return jax.ops.segment_sum(left * right, self.owner, num_segments=self.num_systems)

    def norms(self, vector: Float[Array, "size"]) -> Array:
        """Euclidean norm of each system's entries, [systems]."""
        return jnp.sqrt(self.dots(vector, vector))

    def scaled(self, factors: Float[Array, "systems"], vector: Float[Array, "size"]) -> Array:
        """The entries of each system times its factor."""
        return factors[self.owner] * vector


def gmres(
    operator: LinearOperator,
    right: Float[Array, "size"],
    systems: Systems,
    *,
    max_steps: int,
    tolerance: float,
) -> tuple[Float[Array, "size"], Int[Array, ""]]:
    """Solve A x = b, minimising |A x - b| of every system over its Krylov space.

    A system whose residual is small enough stops changing while the others go on. One whose space
    is exhausted gets the best of what it holds, and nothing is ever divided by zero.

    Args:
        operator: x -> A x, without coupling between systems.
        right: b.
        systems: which system each entry belongs to.
        max_steps: largest dimension of the Krylov spaces.
        tolerance: of |A x - b| relative to |b|.

    Returns:
        x, and the number of applications of A.

    Source:
        Saad and Schultz, SIAM J. Sci. Stat. Comput. 7, 856 (1986).
    """
    size, count = right.shape[0], systems.num_systems
    start_norm = systems.norms(right)
    round_off = float(jnp.finfo(right.dtype).eps)

    def unit(vector: Array, norm: Array, scale: Array) -> tuple[Array, Array]:
        norm = jnp.where(norm > round_off * scale, norm, 0.0)
        inverse = jnp.where(norm > 0.0, 1.0 / jnp.where(norm > 0.0, norm, 1.0), 0.0)
        return systems.scaled(inverse, vector), norm

    first, _ = unit(right, start_norm, jnp.zeros_like(start_norm))
    basis = jnp.zeros((max_steps + 1, size), right.dtype).at[0].set(first)
    hessenberg = jnp.zeros((count, max_steps + 1, max_steps), right.dtype)
    target = jnp.zeros((count, max_steps + 1), right.dtype).at[:, 0].set(start_norm)

    def unfinished(carry) -> Array:
        step, _, _, _, residual = carry
        return (step < max_steps) & jnp.any(residual > tolerance * start_norm)

    def extend(carry):
        step, basis, hessenberg, weights, residual = carry
        vector = operator(basis[step])
        scale = systems.norms(vector)
        column = jnp.zeros((max_steps + 1, count), right.dtype)
        for _ in range(2):  # twice is enough to be orthogonal to round-off
            overlap = jax.vmap(systems.dots, in_axes=(0, None))(basis, vector)
            vector = vector - jnp.sum(overlap[:, systems.owner] * basis, axis=0)
            column = column + overlap
        direction, norm = unit(vector, systems.norms(vector), scale)
        hessenberg = hessenberg.at[:, :, step].set(column.T).at[:, step + 1, step].set(norm)
        basis = basis.at[step + 1].set(direction)
        fitted = _least_squares(hessenberg, target)
        fitted = jnp.where((residual > tolerance * start_norm)[:, None], fitted, weights)
        misfit = jnp.einsum("sij,sj->si", hessenberg, fitted) - target
        return step + 1, basis, hessenberg, fitted, jnp.linalg.norm(misfit, axis=-1)

    start = (
        jnp.zeros((), jnp.int32),
        basis,
        hessenberg,
        jnp.zeros((count, max_steps), right.dtype),
        start_norm,
    )
    steps, basis, _, weights, _ = jax.lax.while_loop(unfinished, extend, start)
    return jnp.sum(weights.T[:, systems.owner] * basis[:-1], axis=0), steps


def _least_squares(
    matrices: Float[Array, "systems rows columns"], right: Float[Array, "systems rows"]
) -> Float[Array, "systems columns"]:
    """Minimise |M y - b|; columns that depend on those before them get no weight."""
    orthogonal, triangular = jnp.linalg.qr(matrices)
    rotated = jnp.einsum("sij,si->sj", orthogonal, right)
    diagonal = jnp.abs(jnp.diagonal(triangular, axis1=-2, axis2=-1))
    smallest = 10.0 * float(jnp.finfo(right.dtype).eps) * jnp.max(diagonal, axis=-1, keepdims=True)
    counts = diagonal > smallest
    keep = counts[:, :, None] & counts[:, None, :]
    identity = jnp.eye(triangular.shape[-1], dtype=right.dtype)
    safe = jnp.where(keep, triangular, identity)
    rotated = jnp.where(counts, rotated, 0.0)
    return jax.scipy.linalg.solve_triangular(safe, rotated[..., None])[..., 0]
