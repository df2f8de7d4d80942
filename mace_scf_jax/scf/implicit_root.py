"""Derivatives of the root of equations, whichever way the root is found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import Array, Float

from mace_scf_jax.scf.closures import without_closure
from mace_scf_jax.scf.linear_solvers import LinearSolver, solve_positive_definite

Equations = Callable[[Array], Array]
"""F, a function of a vector of unknowns with as many results; the root solves F(x) = 0."""


def implicit_root(
    find: Callable[[Equations], tuple[Array, Any]],
    equations: Equations,
    example: Float[Array, "size"],
    *,
    solver: LinearSolver,
) -> tuple[Float[Array, "size"], Any]:
    """A root of F(x) = 0 as a differentiable function of everything that F refers to.

    By the implicit-function theorem dx = -(∂F/∂x)⁻¹ dF at fixed x. The derivative is itself made
    of differentiable functions, so that all orders are right.

    Args:
        find: F -> a root and further results; not differentiated.
        equations: F; its Jacobian is symmetric and positive definite at the root.
        example: any vector of the size of the root.
        solver: how the linear systems of the derivatives are solved.

    Returns:
        The root and the further results.
    """
    residual, references = jax.closure_convert(equations, example)
    fixed = [jax.lax.stop_gradient(value) for value in references]
    found, further = find(lambda unknowns: residual(unknowns, *fixed))

    def change_of_root(solution: Array, references: list[Array], changes: list[Array]) -> Array:
        _, change = jax.jvp(lambda given: residual(solution, *given), (references,), (changes,))

        def linear(direction: Array) -> Array:
            def at(unknowns: Array) -> Array:
                return residual(unknowns, *references)

            return jax.jvp(at, (solution,), (direction,))[1]

        return solve_positive_definite(linear, -change, solver=solver)

    derivative, constants = without_closure(change_of_root, found, references, references)

    @jax.custom_jvp
    def root(found: Array, references: list[Array], constants: list[Any]) -> Array:
        return found

    @root.defjvp
    def _implicit(primals, tangents):
        found, references, constants = primals
        _, changes, _ = tangents
        solution = root(found, references, constants)
        return solution, derivative(constants, solution, references, changes)

    return root(found, references, constants), further
