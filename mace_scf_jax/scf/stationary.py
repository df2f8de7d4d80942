"""Values at stationary points: first derivatives need no response of the unknowns."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import jax
from jaxtyping import Array, Float

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
