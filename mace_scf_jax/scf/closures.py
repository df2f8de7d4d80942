"""Functions that refer to nothing but their arguments, as rules of differentiation have to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import ArrayLike


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
