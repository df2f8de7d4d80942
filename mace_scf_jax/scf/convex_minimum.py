"""The minimum of a strictly convex function under one linear constraint.

The function is ½ x·A x + f(x), a quadratic part that may be expensive and the rest; the constraint
is a·x = total. With the projector P on vectors orthogonal to a, and x₀ = a total/|a|², the
minimum is x = x₀ + P y with

    P ∇E(x₀ + P y) + (1 - P) y = 0,

whose Jacobian P H P + 1 - P is symmetric and positive definite. Newton's method solves it, with
steps shortened until the gradient decreases, which converges from anywhere.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mace_scf_jax.scf.implicit_root import Equations, implicit_root
from mace_scf_jax.scf.linear_solvers import (
    LinearOperator,
    LinearSolver,
    as_matrix,
    solve_positive_definite,
)
from mace_scf_jax.scf.status import SolverStatus

MAX_STEPS = 50
"""Newton steps after which a minimisation ends; a handful is usual."""

SHORTEST_STEP = 2.0**-20
"""Fraction of a Newton step below which no progress can be made."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ConvexMinimum:
    """The unknowns that minimise a function, and how well they do."""

    unknowns: Float[Array, "size"]
    """The minimum; 0 where masked. The constraint holds up to round-off."""
    multiplier: Float[Array, ""]
    """Derivative of the minimum with respect to the total."""
    residual: Float[Array, ""]
    """Largest component of the projected gradient; 0 at the exact minimum."""
    steps: Int[Array, ""]
    """Newton steps taken."""
    status: Int[Array, ""]
    """A `SolverStatus`."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Iterate:
    unknowns: Float[Array, "size"]
    gradient: Float[Array, "size"]
    steps: Int[Array, ""]
    stalled: Bool[Array, ""]


def convex_minimum(
    curvature: LinearOperator,
    function: Callable[[Array], Array],
    normal: Float[Array, "size"],
    mask: Bool[Array, "size"],
    total: Float[Array, ""],
    *,
    solver: LinearSolver,
    max_steps: int = MAX_STEPS,
) -> ConvexMinimum:
    """Minimise ½ x·A x + f(x) at fixed a·x.

    Args:
        curvature: x -> A x, linear and symmetric.
        function: x -> f(x); the sum of both parts has to be strictly convex.
        normal: a; 0 where masked.
        mask: False for unknowns that do not exist; they stay 0.
        total: value of a·x.
        solver: how the linear systems are solved; the dense solver also applies A as a matrix.
        max_steps: Newton steps after which the minimisation ends.

    Returns:
        The minimum, differentiable to any order by the implicit-function theorem, whichever way it
        was found. It counts as converged once the projected gradient is below ε^¾ times the
        gradient at the start, with ε the rounding unit of the numbers.
    """
    dtype = normal.dtype
    entries = mask.astype(dtype)
    normal = entries * normal
    norm = jnp.sum(normal**2)
    norm = jnp.where(norm > 0.0, norm, 1.0)
    start = normal * (total / norm)
    apply = curvature
    if solver is LinearSolver.DENSE:
        matrix = as_matrix(curvature, start)

        def apply(values: Array) -> Array:
            return matrix @ values

    def projected(values: Array) -> Array:
        return entries * values - normal * (jnp.sum(normal * values) / norm)

    def gradient(unknowns: Array) -> Array:
        return entries * (apply(unknowns) + jax.grad(function)(unknowns))

    def equations(free: Array) -> Array:
        feasible = projected(free)
        return projected(gradient(start + feasible)) + free - feasible

    accuracy = float(jnp.finfo(dtype).eps) ** 0.75
    tolerance = accuracy * jnp.max(jnp.abs(gradient(start)), initial=0.0)
    tolerance = jax.lax.stop_gradient(tolerance)
    find = functools.partial(
        _damped_newton,
        guess=jnp.zeros_like(start),
        tolerance=tolerance,
        solver=solver,
        max_steps=max_steps,
    )
    free, found = implicit_root(find, equations, start, solver=solver)
    unknowns = start + projected(free)
    slope = gradient(unknowns)
    return ConvexMinimum(
        unknowns=unknowns,
        multiplier=jnp.sum(normal * slope) / norm,
        residual=jnp.max(jnp.abs(projected(slope)), initial=0.0),
        steps=found.steps,
        status=_status(found, tolerance, max_steps),
    )


def _status(found: _Iterate, tolerance: Float[Array, ""], max_steps: int) -> Int[Array, ""]:
    converged = jnp.max(jnp.abs(found.gradient), initial=0.0) <= tolerance
    failed = jnp.where(found.steps < max_steps, SolverStatus.SINGULAR, SolverStatus.MAX_STEPS)
    return jnp.where(converged, SolverStatus.CONVERGED, failed)


def _damped_newton(
    equations: Equations,
    *,
    guess: Float[Array, "size"],
    tolerance: Float[Array, ""],
    solver: LinearSolver,
    max_steps: int,
) -> tuple[Float[Array, "size"], _Iterate]:
    """Solve equations with a symmetric positive definite Jacobian."""

    def unfinished(current: _Iterate) -> Array:
        too_large = jnp.max(jnp.abs(current.gradient), initial=0.0) > tolerance
        return too_large & (current.steps < max_steps) & ~current.stalled

    def step(current: _Iterate) -> _Iterate:
        _, linear = jax.linearize(equations, current.unknowns)
        direction = solve_positive_definite(linear, -current.gradient, solver=solver)
        size = jnp.linalg.norm(current.gradient)

        def attempt(fraction: Array) -> tuple[Array, Array, Array]:
            unknowns = current.unknowns + fraction * direction
            return fraction, unknowns, equations(unknowns)

        def too_far(trial: tuple[Array, Array, Array]) -> Array:
            fraction, _, reached = trial
            decreased = jnp.linalg.norm(reached) <= (1.0 - 1e-4 * fraction) * size
            return ~decreased & (fraction > SHORTEST_STEP)

        fraction, unknowns, reached = jax.lax.while_loop(
            too_far, lambda trial: attempt(0.5 * trial[0]), attempt(jnp.ones_like(size))
        )
        stalled = fraction <= SHORTEST_STEP
        return _Iterate(
            unknowns=jnp.where(stalled, current.unknowns, unknowns),
            gradient=jnp.where(stalled, current.gradient, reached),
            steps=current.steps + 1,
            stalled=stalled,
        )

    first = _Iterate(guess, equations(guess), jnp.asarray(0), jnp.asarray(False))
    last = jax.lax.while_loop(unfinished, step, first)
    return last.unknowns, last
