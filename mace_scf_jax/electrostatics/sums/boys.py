"""Boys functions F_n(x) = ∫₀¹ t^(2n) exp(-x t²) dt: what erf(r)/r and its derivatives are made of.

They are entire functions of x = (βr)², so potentials of Gaussians and all their derivatives stay
finite and accurate at r = 0.
"""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_SWITCH = 8.0
"""Below: series and downward recursion; above: error function and upward recursion."""

_SERIES_TERMS = 40
"""Terms of the series at x = `_SWITCH` until they fall below 1e-17 of the sum."""


def _small_argument(x: Array, max_order: int) -> list[Array]:
    """F_0 … F_max from the series of the highest order, F_n = (2x F_{n+1} + e^-x)/(2n+1)."""
    exponential = jnp.exp(-x)
    series = jnp.ones_like(x)
    for term in range(_SERIES_TERMS, 0, -1):
        series = 1.0 + series * x * (2.0 / (2 * max_order + 2 * term + 1))
    values = [series * exponential / (2 * max_order + 1)]
    for order in range(max_order - 1, -1, -1):
        values.append((2.0 * x * values[-1] + exponential) / (2 * order + 1))
    return values[::-1]


def _large_argument(x: Array, max_order: int) -> list[Array]:
    """F_0 … F_max from the error function, F_{n+1} = ((2n+1) F_n - e^-x)/(2x)."""
    exponential = jnp.exp(-x)
    root = jnp.sqrt(x)
    values = [0.5 * math.sqrt(math.pi) * jax.lax.erf(root) / root]
    for order in range(max_order):
        values.append(((2 * order + 1) * values[-1] - exponential) / (2.0 * x))
    return values


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def boys_functions(x: Float[Array, "*shape"], max_order: int) -> tuple[Float[Array, "*shape"], ...]:
    """Boys functions of all orders up to a highest one.

    Args:
        x: argument, not negative.
        max_order: highest order, up to about 12.

    Returns:
        F_0(x), …, F_max(x). Their derivatives are F_n' = -F_{n+1}, at any depth.
    """
    small = _small_argument(jnp.minimum(x, _SWITCH), max_order)
    large = _large_argument(jnp.maximum(x, _SWITCH), max_order)
    return tuple(
        jnp.where(x < _SWITCH, below, above) for below, above in zip(small, large, strict=True)
    )


@boys_functions.defjvp
def _boys_functions_jvp(max_order, primals, tangents):
    values = boys_functions(primals[0], max_order + 1)
    return values[:-1], tuple(-value * tangents[0] for value in values[1:])
