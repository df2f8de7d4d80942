"""Minima of convex functions under one linear constraint.

The function is ½ x·A x + f(x), a quadratic part that may be expensive and the rest; the constraint
is a·x = total. With the projector P on vectors orthogonal to a, and x₀ = a total/|a|², the
minimum is x = x₀ + P y with

    P ∇E(x₀ + P y) + (1 - P) y = 0,

whose Jacobian P H P + 1 - P is symmetric, and positive definite if H is so for vectors orthogonal
to a, as a minimum requires; nothing else is asked of H. At the minimum ∇E = λ a, with the Lagrange
multiplier λ of the constraint.

If f is quadratic that is one linear system, solved by `quadratic_minimum`. Else Newton's
method solves it, with steps shortened until the gradient decreases, which converges from anywhere
if the sum of both parts is strictly convex: `convex_minimum`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mace_scf_jax.scf.implicit_root import Equations, implicit_root
from mace_scf_jax.scf.krylov import (
    LinearOperator,
    LinearSolver,
    as_matrix,
    solve_positive_definite,
)
from mace_scf_jax.scf.status import SolverStatus

Unknowns = TypeVar("Unknowns")
Parameters = TypeVar("Parameters")


def stationary_value(
    function: Callable[[Unknowns, Parameters], Float[Array, ""]],
    unknowns: Unknowns,
    parameters: Parameters,
) -> Float[Array, ""]:
    """The value of a function at unknowns that make it stationary.

    Its derivative with respect to the unknowns is zero there and therefore left out: first
    derivatives are those at fixed unknowns (Hellmann–Feynman). Second derivatives contain the
    response of the unknowns, provided that these are differentiable functions.

    Args:
        function: of unknowns and parameters; it must not refer to other traced values.
        unknowns: where the function is stationary, for the given parameters.
        parameters: everything else that the value depends on.
    """

    @jax.custom_jvp
    def value(unknowns: Unknowns, parameters: Parameters) -> Array:
        return function(unknowns, parameters)

    @value.defjvp
    def _at_fixed_unknowns(primals, tangents):
        unknowns, parameters = primals
        _, change = tangents
        _, derivative = jax.jvp(lambda given: function(unknowns, given), (parameters,), (change,))
        return value(unknowns, parameters), derivative

    return value(unknowns, parameters)


MAX_STEPS = 50
"""Newton steps after which a minimisation ends; a handful is usual."""

SHORTEST_STEP = 2.0**-20
"""Fraction of a Newton step below which no progress can be made."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Minimum:
    """The unknowns that minimise a function, and how well they do."""

    unknowns: Float[Array, "size"]
    """The minimum; 0 where masked. The constraint holds up to round-off."""
    multiplier: Float[Array, ""]
    """Derivative of the minimum with respect to the total."""
    residual: Float[Array, ""]
    """Largest component of the projected gradient; 0 at the exact minimum."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ConvexMinimum(Minimum):
    """A minimum that steps have led to."""

    steps: Int[Array, ""]
    """Newton steps taken."""
    status: Int[Array, ""]
    """A `SolverStatus`."""


class _Plane:
    """The vectors x with a·x = total.

    Args:
        normal: a.
        mask: False for unknowns that do not exist; they stay 0.
        total: value of a·x.
    """

    def __init__(
        self, normal: Float[Array, "size"], mask: Bool[Array, "size"], total: Float[Array, ""]
    ) -> None:
        self.entries = mask.astype(normal.dtype)
        self.normal = self.entries * normal
        norm = jnp.sum(self.normal**2)
        self.norm = jnp.where(norm > 0.0, norm, 1.0)
        self.start = self.normal * (total / self.norm)

    def project(self, values: Array) -> Array:
        """P x."""
        along = jnp.sum(self.normal * values) / self.norm
        return self.entries * values - self.normal * along

    def minimum(self, unknowns: Array, gradient: Array) -> Minimum:
        """The minimum, from x and ∇E(x)."""
        return Minimum(
            unknowns=unknowns,
            multiplier=jnp.sum(self.normal * gradient) / self.norm,
            residual=jnp.max(jnp.abs(self.project(gradient)), initial=0.0),
        )


def quadratic_minimum(
    curvature: LinearOperator,
    function: Callable[[Array], Array],
    normal: Float[Array, "size"],
    mask: Bool[Array, "size"],
    total: Float[Array, ""],
    *,
    solver: LinearSolver,
) -> Minimum:
    """Minimise ½ x·A x + f(x) at fixed a·x, for a quadratic f.

    Args:
        curvature: x -> A x, linear and symmetric.
        function: x -> f(x).
        normal: a.
        mask: False for unknowns that do not exist; they stay 0.
        total: value of a·x.

    Returns:
        The minimum, differentiable to any order.
    """
    plane = _Plane(normal, mask, total)
    slope, stiffness = jax.linearize(jax.grad(function), jnp.zeros_like(normal))

    def gradient(values: Array) -> Array:
        return curvature(values) + stiffness(values) + slope

    def operator(values: Array) -> Array:
        feasible = plane.project(values)
        return plane.project(curvature(feasible) + stiffness(feasible)) + values - feasible

    right = -plane.project(gradient(plane.start))
    free = solve_positive_definite(operator, right, solver=solver)
    unknowns = plane.start + plane.project(free)
    return plane.minimum(unknowns, gradient(unknowns))


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
        normal: a.
        mask: False for unknowns that do not exist; they stay 0.
        total: value of a·x.
        solver: how the linear systems are solved; the dense solver also applies A as a matrix.
        max_steps: Newton steps after which the minimisation ends.

    Returns:
        The minimum, differentiable to any order by the implicit-function theorem, whichever way it
        was found. It counts as converged once the projected gradient is below ε^¾ times the
        gradient at the start, with ε the rounding unit of the numbers.
    """
    plane = _Plane(normal, mask, total)
    apply = curvature
    if solver is LinearSolver.DENSE:
        matrix = as_matrix(curvature, plane.start)

        def apply(values: Array) -> Array:
            return matrix @ values

    def gradient(unknowns: Array) -> Array:
        return plane.entries * (apply(unknowns) + jax.grad(function)(unknowns))

    def equations(free: Array) -> Array:
        feasible = plane.project(free)
        return plane.project(gradient(plane.start + feasible)) + free - feasible

    accuracy = float(jnp.finfo(normal.dtype).eps) ** 0.75
    tolerance = accuracy * jnp.max(jnp.abs(gradient(plane.start)), initial=0.0)
    tolerance = jax.lax.stop_gradient(tolerance)
    find = functools.partial(
        _damped_newton,
        guess=jnp.zeros_like(plane.start),
        tolerance=tolerance,
        solver=solver,
        max_steps=max_steps,
    )
    free, found = implicit_root(find, equations, plane.start, solver=solver)
    unknowns = plane.start + plane.project(free)
    minimum = plane.minimum(unknowns, gradient(unknowns))
    return ConvexMinimum(
        **vars(minimum), steps=found.steps, status=_status(found, tolerance, max_steps)
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
