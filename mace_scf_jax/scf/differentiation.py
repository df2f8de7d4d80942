"""Solved states as differentiable functions, whichever way they are found.

The solution z* of R(z, θ) = 0 depends on everything θ that the map refers to, on the charges, and
on the levels where these are given. How it is found and how it is differentiated are independent:

`IMPLICIT` solves ∂R/∂z dz = -∂R/∂θ dθ at the solution. This rule is made of differentiable
functions of z* itself, so that all orders of derivatives are right.

`LINEARIZE_SOLVE` takes the solution found, z₀, as a constant, and a differentiable Newton step
from there, z₁ = z₀ - (∂R/∂z)⁻¹ R(z₀, θ). With z₀ at the solution for one θ, the error of z₁ as a
function of θ is of second order in the change of θ: first derivatives are right, and second ones
only if R is affine in z. A second step makes the error of fourth order, and derivatives right up
to the third. The steps also remove what the search left over.

`UNROLL` differentiates the search itself.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mace_scf_jax.scf.equations import Equations
from mace_scf_jax.scf.implicit_root import without_closure
from mace_scf_jax.scf.iterate import UnrolledSolver
from mace_scf_jax.scf.jacobian_memory import JacobianMemory
from mace_scf_jax.scf.krylov import LinearOperator, Vectors
from mace_scf_jax.scf.problem import FixedPointProblem, FixedPointSolution, State
from mace_scf_jax.scf.solver import Solver
from mace_scf_jax.scf.solvers.auto import Auto
from mace_scf_jax.scf.status import SolverStatus

NEWTON_STEPS = 2
"""Differentiable steps of `LINEARIZE_SOLVE`; see above."""


class Differentiation(enum.StrEnum):
    """How a solved state is differentiated."""

    UNROLL = "unroll"
    """Through the steps of the solver."""
    IMPLICIT = "implicit"
    """By the implicit-function theorem."""
    LINEARIZE_SOLVE = "linearize_solve"
    """Through Newton steps that start from the solution."""


def solve(
    problem: FixedPointProblem,
    state: State,
    level: Float[Array, "systems"],
    *,
    solver: Solver = Auto(),  # noqa: B008 - frozen
    differentiation: Differentiation = Differentiation.IMPLICIT,
    memory: JacobianMemory | None = None,
) -> FixedPointSolution:
    """Find fixed points, each by itself, as differentiable functions of all that defines them.

    State and level of the result may be differentiated to any order, in reverse. A system that did
    not converge has no solution to differentiate: its state gets the derivative of F(p, μ) at fixed
    p and μ (none if F is not finite there), its level none; its status tells. So derivatives are
    finite wherever those of F are, and always those of the other systems.
    `UNROLL` differentiates what was done, converged or not.

    Args:
        state: initial p; zero at masked sites.
        level: initial μ, or the given one.
        solver: how solutions are found.
        differentiation: how they are differentiated.
        memory: of earlier searches nearby; the solution has the one for the next. Unrolled
            searches do without.

    Returns:
        The solutions, and how well they solve the equations.

    Raises:
        ValueError: the search of the solver cannot be differentiated.
    """
    if differentiation is Differentiation.UNROLL:
        if not isinstance(solver, UnrolledSolver):
            raise ValueError(
                f"differentiation: expected {Differentiation.IMPLICIT.value!r} or "
                f"{Differentiation.LINEARIZE_SOLVE.value!r} with the solver "
                f"{type(solver).__name__}, whose number of steps depends on the values, found "
                f"{Differentiation.UNROLL.value!r} (which LinearMixing offers)"
            )
        return solver.find(problem, state, level, memory)

    function, references = jax.closure_convert(problem.map, state, problem.at_sites(level))
    parameters = (references, problem.charge, level if problem.charge is None else None)

    def given(parameters: Any) -> Equations:
        references, charge, given_level = parameters
        at_parameters = dataclasses.replace(
            problem, map=lambda p, m: function(p, m, *references), charge=charge
        )
        return Equations(at_parameters, level if given_level is None else given_level)

    fixed = jax.lax.stop_gradient(parameters)
    start = jax.lax.stop_gradient((state, level))
    found = solver.find(given(fixed).problem, *start, jax.lax.stop_gradient(memory))
    found = jax.lax.stop_gradient(found)
    vectors = given(fixed).pack(found.state, found.level)
    if differentiation is Differentiation.IMPLICIT:
        vectors = _implicit(given, vectors, found, parameters, solver)
    else:
        vectors, found = _linearised(given(parameters), vectors, found, solver)
    state, level = given(parameters).unpack(vectors)
    return dataclasses.replace(
        found, state=state, level=level, argument=state, argument_level=level
    )


def _solve_linear(
    slope: LinearOperator,
    right: Vectors,
    solved: Bool[Array, "systems"],
    equations: Equations,
    solver: Solver,
) -> Vectors:
    """J⁻¹ b as a differentiable function; b itself, without level, of systems that are not solved.

    The Jacobian of such systems meets zeros only, in derivatives too.
    """
    at = solved[:, None]

    def operator(vectors: Array) -> Array:
        return jnp.where(at, slope(jnp.where(at, vectors, 0.0)), vectors)

    elimination = equations.elimination_at(slope, right)

    def inverse(precondition: LinearOperator) -> LinearOperator:
        return lambda vectors: jnp.where(at, precondition(vectors), vectors)

    if equations.has_level:
        right = right.at[:, -1].set(jnp.where(solved, right[:, -1], 0.0))
    return jax.lax.custom_linear_solve(
        operator,
        right,
        solve=lambda matrix, b: solver.solve_linear(matrix, b, inverse(elimination.apply)),
        transpose_solve=lambda matrix, b: solver.solve_linear(
            matrix, b, inverse(elimination.transpose)
        ),
    )


def _implicit(
    given: Callable[[Any], Equations],
    vectors: Vectors,
    found: FixedPointSolution,
    parameters: Any,
    solver: Solver,
) -> Vectors:
    """The root as a function of the parameters of the equations."""
    solved = found.status == SolverStatus.CONVERGED
    finite = jnp.isfinite(found.residual)[:, None]

    def change_of_root(solution: Array, parameters: Any, changes: Any) -> Array:
        def residual(values: Any) -> Array:
            return given(values).residual(solution)

        _, change = jax.jvp(residual, (parameters,), (changes,))
        equations = given(parameters)
        _, slope = jax.linearize(equations.residual, solution)
        right = jnp.where(finite, -change, 0.0)
        return _solve_linear(slope, right, solved, equations, solver)

    derivative, references = without_closure(change_of_root, vectors, parameters, parameters)

    @jax.custom_jvp
    def root(vectors: Array, parameters: Any, references: list[Any]) -> Array:
        return vectors

    @root.defjvp
    def _of_parameters(primals, tangents):
        vectors, parameters, references = primals
        _, changes, _ = tangents
        solution = root(vectors, parameters, references)
        return solution, derivative(references, solution, parameters, changes)

    return root(vectors, parameters, references)


def _linearised(
    equations: Equations, vectors: Vectors, found: FixedPointSolution, solver: Solver
) -> tuple[Vectors, FixedPointSolution]:
    """Newton steps from what was found, and how well they solve the equations.

    Where they lead away from the solution, what was found stays.
    """
    first, _ = jax.linearize(equations.residual, vectors)
    finite = jnp.all(jnp.isfinite(first), axis=-1)
    moved = vectors
    for _ in range(NEWTON_STEPS):
        residual, slope = jax.linearize(equations.residual, moved)
        moved = moved - _solve_linear(slope, residual, finite, equations, solver)
    residual, first_value = jax.lax.stop_gradient((equations.residual(moved), first))
    is_solved = equations.is_solved(jax.lax.stop_gradient(moved), residual, solver.tolerance)
    nearer = jnp.linalg.norm(residual, axis=-1) <= jnp.linalg.norm(first_value, axis=-1)
    good = is_solved | (finite & nearer)
    # the value of what was found, with the derivative of F
    change = jnp.where(finite[:, None], first - first_value, 0.0)
    if equations.has_level:
        change = change.at[:, -1].set(0.0)
    residual = jnp.where(good[:, None], residual, first_value)
    solution = jnp.where(good[:, None], moved, vectors - change)
    state, _ = equations.unpack(jax.lax.stop_gradient(solution))
    found = dataclasses.replace(
        found,
        status=jnp.where(is_solved, SolverStatus.CONVERGED, found.status).astype(jnp.int32),
        residual=equations.error(residual),
        charge_error=jax.lax.stop_gradient(equations.charge_error(state)),
    )
    return solution, found
