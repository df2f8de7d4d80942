"""Derivatives of the root of equations, whichever way the root is found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import Array, ArrayLike, Float

from mace_scf_jax.scf.krylov import LinearSolver, solve_positive_definite


def without_closure(
    function: Callable[..., Any], *examples: Any
) -> tuple[Callable[..., Any], list[ArrayLike]]:
    """A function with what it refers to as an argument.

    A rule of `jax.custom_jvp` is used when derivatives are made, which for the gradient of a
    compiled function is after that has been traced. Whatever the rule refers to has to reach it as
    an argument. `jax.closure_convert` hands over what may have a derivative, and leaves integers
    and masks behind; this hands over everything.

    Args:
        function: of trees of arrays.
        examples: arguments of the structures, shapes and types that the function will be given.

    Returns:
        A function of the references and of the arguments of the original, and the references.
    """
    traced, shape = jax.make_jaxpr(function, return_shape=True)(*examples)
    structure = jax.tree.structure(shape)

    def pure(references: list[ArrayLike], *arguments: Any) -> Any:
        results = jax.core.eval_jaxpr(traced.jaxpr, references, *jax.tree.leaves(arguments))
        return jax.tree.unflatten(structure, results)

    return pure, list(traced.consts)


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
