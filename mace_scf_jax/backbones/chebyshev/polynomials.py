"""Chebyshev polynomials, powers around an axis and the cutoff, as lists of arrays of any shape.

Lists, not arrays with one axis more: XLA on CPU computes each element of such an array from the
beginning of the recurrence.
"""

from __future__ import annotations

import functools
import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

COSINE_SERIES = tuple(
    (-1) ** power * (math.pi / 2) ** (2 * power) / math.factorial(2 * power) for power in range(12)
)
"""Coefficients of cos(π x/2) in x², which give it to rounding for |x| ≤ 1."""


def chebyshev_polynomials(x: Array, order: int) -> list[Array]:
    """T_0(x) … T_order(x), by T_{n+1} = 2x T_n - T_{n-1}."""
    values = [jnp.ones_like(x), x]
    while len(values) <= order:
        values.append(2.0 * x * values[-1] - values[-2])
    return values[: order + 1]


@functools.cache
def orders_of_products(low: int, order: int) -> np.ndarray:
    """T_n as sums of products T_a T_{b·low} with a < low, for n up to the order, [n, a, b].

    By T_{b·low + a} = 2 T_a T_{b·low} - T_{b·low - a}.
    """
    found = np.zeros((order + 1, low, order // low + 1))
    for n in range(order + 1):
        b, a = divmod(n, low)
        if a and b:
            found[n] = -found[n - 2 * a]
        found[n, a, b] += 2.0 if a and b else 1.0
    return found


def powers_around(x: Array, y: Array, order: int) -> tuple[list[Array], list[Array]]:
    """Real and imaginary parts of (x + iy)^m, m = 0 … order."""
    real, imaginary = [jnp.ones_like(x)], [jnp.zeros_like(x)]
    for _ in range(order):
        real, imaginary = (
            [*real, x * real[-1] - y * imaginary[-1]],
            [*imaginary, x * imaginary[-1] + y * real[-1]],
        )
    return real, imaginary


def cosine_cutoff(lengths: Float[Array, "*edges"], cutoff: float) -> Float[Array, "*edges"]:
    """f(r; R) = ½ (cos(π r/R) + 1) within the cutoff, and 0 beyond it.

    The square of cos(π r/2R), by its series: XLA's cosine takes ten times as long on CPU.
    """
    squared = (lengths / cutoff) ** 2
    root = jnp.full_like(lengths, COSINE_SERIES[-1])
    for coefficient in COSINE_SERIES[-2::-1]:
        root = root * squared + coefficient
    return jnp.where(lengths < cutoff, root**2, 0.0)
