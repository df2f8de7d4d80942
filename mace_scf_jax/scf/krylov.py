"""Linear systems A x = b of many independent systems at once, by GMRES without matrices.

Vectors are [systems, unknowns], and A does not couple systems. Every system has a Krylov space of
its own: one application of A extends all of them, which takes fewer steps than one space for all,
and makes the solution of a system independent of the others.
"""

from __future__ import annotations

import enum
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

Vectors = Float[Array, "systems unknowns"]
"""One row of unknowns for each system."""
LinearOperator = Callable[[Array], Array]
"""A linear function of vectors [systems, unknowns] that does not couple systems, or of one."""


def identity(vectors: Vectors) -> Vectors:
    """The vectors themselves: no preconditioner."""
    return vectors


def smallest_tolerance(dtype: jnp.dtype) -> float:
    """Relative residual that the precision of numbers allows to reach."""
    return 10.0 * float(jnp.finfo(dtype).eps)


def gmres(
    operator: LinearOperator,
    right: Vectors,
    *,
    max_steps: int,
    tolerance: float | Float[Array, "systems"],
    precondition: LinearOperator = identity,
) -> tuple[Vectors, Int[Array, "systems"], Float[Array, "systems"]]:
    """Solve A x = b, minimising |A x - b| of every system over its Krylov space.

    A system whose residual is small enough stops changing while the others go on. One whose space
    is exhausted, or whose A gives numbers that are not finite, gets the best of what it holds.

    Args:
        operator: x -> A x.
        right: b; systems with b = 0 cost nothing.
        max_steps: largest dimension of the Krylov spaces.
        tolerance: of |A x - b| relative to |b|, for all or for each system; not taken below
            `smallest_tolerance`.
        precondition: y -> x = M⁻¹ y, such that A M⁻¹ is near the identity.

    Returns:
        x, the number of applications of A, and an estimate of |A x - b| / |b|.

    Source:
        Saad and Schultz, SIAM J. Sci. Stat. Comput. 7, 856 (1986). The norm of the residual is that
        of the component of b along the one vector orthogonal to all columns of the Hessenberg
        matrix, which needs no factorisation in every step.
    """
    count, size = right.shape
    max_steps = min(max_steps, size)
    tolerance = jnp.maximum(tolerance, smallest_tolerance(right.dtype))
    scale = jnp.linalg.norm(right, axis=-1)
    active = jnp.isfinite(scale) & (scale > 0.0)
    scale = jnp.where(active, scale, 0.0)
    first = jnp.where(active[:, None], right, 0.0) / jnp.where(active, scale, 1.0)[:, None]
    basis = jnp.zeros((count, max_steps + 1, size), right.dtype).at[:, 0].set(first)
    hessenberg = jnp.zeros((count, max_steps + 1, max_steps), right.dtype)
    orthogonal = jnp.zeros((count, max_steps + 1), right.dtype).at[:, 0].set(1.0)

    def unfinished(carry) -> Array:
        return (carry[0] < max_steps) & jnp.any(carry[1])

    def extend(carry):
        step, active, basis, hessenberg, orthogonal, residual, applications = carry
        vectors = jnp.where(active[:, None], operator(precondition(basis[:, step])), 0.0)
        column, direction, norm = orthogonalised(vectors, basis)
        good = active & jnp.all(jnp.isfinite(column), axis=-1) & jnp.isfinite(norm)
        column = (
            jnp.where(good[:, None], column, 0.0).at[:, step + 1].set(jnp.where(good, norm, 0.0))
        )
        exhausted = ~(norm > 0.0)
        overlap = -jnp.einsum("si,si->s", column, orthogonal)
        entry = overlap / jnp.where(exhausted, 1.0, norm)
        new_residual = jnp.where(
            exhausted,
            jnp.where(overlap == 0.0, residual, 0.0),
            1.0 / jnp.linalg.norm(orthogonal.at[:, step + 1].set(entry), axis=-1),
        )
        residual = jnp.where(good, new_residual, residual)
        going = good & ~exhausted & (residual > tolerance)
        return (
            step + 1,
            going,
            basis.at[:, step + 1].set(jnp.where(going[:, None], direction, 0.0)),
            hessenberg.at[:, :, step].set(column),
            orthogonal.at[:, step + 1].set(jnp.where(going, entry, 0.0)),
            residual,
            applications + active.astype(jnp.int32),
        )

    start = (
        jnp.zeros((), jnp.int32),
        active,
        basis,
        hessenberg,
        orthogonal,
        jnp.where(active, jnp.ones_like(scale), 0.0),
        jnp.zeros(count, jnp.int32),
    )
    end = jax.lax.while_loop(unfinished, extend, start)
    _, _, basis, hessenberg, _, residual, applications = end
    target = jnp.zeros((count, max_steps + 1), right.dtype).at[:, 0].set(scale)
    weights = _least_squares(hessenberg, target)
    solution = precondition(jnp.einsum("si,siu->su", weights, basis[:, :-1]))
    return solution, applications, residual


def restarted_gmres(
    operator: LinearOperator,
    right: Vectors,
    *,
    max_steps: int,
    tolerance: float,
    precondition: LinearOperator = identity,
    max_cycles: int = 10,
) -> Vectors:
    """Solve A x = b to a tight tolerance, with Krylov spaces of bounded size.

    Args:
        operator: x -> A x.
        right: b.
        max_steps: largest dimension of a Krylov space; systems that need more start a new one from
            where they are.
        tolerance: of |A x - b| relative to |b|; not taken below `smallest_tolerance`.
        precondition: as for `gmres`.
        max_cycles: largest number of spaces.
    """
    tolerance = max(tolerance, smallest_tolerance(right.dtype))
    scale = jnp.linalg.norm(right, axis=-1)

    def unfinished(carry) -> Array:
        return (carry[0] < max_cycles) & jnp.any(carry[2])

    def cycle(carry):
        index, solution, going, rest = carry
        size = jnp.linalg.norm(rest, axis=-1)
        wanted = tolerance * scale / jnp.where(size > 0.0, size, 1.0)
        change, _, residual = gmres(
            operator, rest, max_steps=max_steps, tolerance=wanted, precondition=precondition
        )
        solution = solution + change
        # no further space for systems that are done, or whose space brought them no nearer
        going = going & (residual > wanted) & (residual < 0.5)
        rest = jax.lax.cond(
            jnp.any(going), lambda: right - operator(solution), lambda: jnp.zeros_like(right)
        )
        return index + 1, solution, going, jnp.where(going[:, None], rest, 0.0)

    start = (jnp.zeros((), jnp.int32), jnp.zeros_like(right), scale > 0.0, right)
    return jax.lax.while_loop(unfinished, cycle, start)[1]


def arnoldi(
    operator: LinearOperator, start: Vectors, *, max_steps: int
) -> Float[Array, "systems rank rank"]:
    """The matrix of A in an orthonormal basis of each system's Krylov space.

    Args:
        operator: x -> A x.
        start: first vector of the spaces.
        max_steps: largest dimension. Rows and columns beyond the dimension of a space are zero.
    """
    count, size = start.shape
    max_steps = min(max_steps, size)
    norm = jnp.linalg.norm(start, axis=-1, keepdims=True)
    first = start / jnp.where(norm > 0.0, norm, 1.0)
    basis = jnp.zeros((count, max_steps + 1, size), start.dtype).at[:, 0].set(first)

    def extend(step: Int[Array, ""], carry: tuple[Array, Array]) -> tuple[Array, Array]:
        basis, matrices = carry
        column, direction, norm = orthogonalised(operator(basis[:, step]), basis)
        column = column.at[:, step + 1].set(norm)
        return basis.at[:, step + 1].set(direction), matrices.at[:, :, step].set(column)

    matrices = jnp.zeros((count, max_steps + 1, max_steps), start.dtype)
    _, matrices = jax.lax.fori_loop(0, max_steps, extend, (basis, matrices))
    return matrices[:, :-1]


def orthogonalised(
    vectors: Vectors, basis: Float[Array, "systems rank unknowns"]
) -> tuple[Float[Array, "systems rank"], Vectors, Float[Array, "systems"]]:
    """Split vectors into parts along orthonormal ones and a new direction.

    Args:
        vectors: the vectors.
        basis: orthonormal for every system, or zero.

    Returns:
        Components along the basis; the direction of the rest, and its norm; both zero if the rest
        is no more than round-off.
    """
    norm_before = jnp.linalg.norm(vectors, axis=-1)
    column = jnp.zeros(basis.shape[:2], basis.dtype)
    for _ in range(2):  # twice is enough to be orthogonal to round-off
        overlap = jnp.einsum("siu,su->si", basis, vectors)
        vectors = vectors - jnp.einsum("si,siu->su", overlap, basis)
        column = column + overlap
    norm = jnp.linalg.norm(vectors, axis=-1)
    independent = norm > 10.0 * float(jnp.finfo(basis.dtype).eps) * norm_before
    norm = jnp.where(independent, norm, 0.0)
    direction = jnp.where(independent[:, None], vectors, 0.0)
    return column, direction / jnp.where(independent, norm, 1.0)[:, None], norm


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
    unit = jnp.eye(triangular.shape[-1], dtype=right.dtype)
    safe = jnp.where(keep, triangular, unit)
    rotated = jnp.where(counts, rotated, 0.0)
    return jax.scipy.linalg.solve_triangular(safe, rotated[..., None])[..., 0]


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
