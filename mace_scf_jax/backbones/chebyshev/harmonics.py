"""Real spherical harmonics of any degree, as polynomials of the direction."""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def real_harmonics(
    directions: Float[Array, "edges 3"], max_degree: int
) -> Float[Array, "edges components"]:
    """Harmonics Y_lm, l = 0 … max_degree and m = -l … l about z, with Σ_m Y_lm² = 2l + 1.

    Products of Re or Im of (x + iy)^m with normalised Legendre functions Q_l^m of z less their
    factor sin^m. Nothing is divided, so all derivatives exist at the poles. Those of e3nn above
    degree 8 need functions that JAX gives up.

    Args:
        directions: unit vectors.

    Source:
        Drake, Worley and D'Azevedo, ACM Trans. Math. Softw. 35, 23 (2008), for the recurrence in l.
    """
    x, y, z = directions[:, 0], directions[:, 1], directions[:, 2]
    real, imaginary = [jnp.ones_like(x)], [jnp.zeros_like(x)]
    for _ in range(max_degree):
        real, imaginary = (
            [*real, x * real[-1] - y * imaginary[-1]],
            [*imaginary, x * imaginary[-1] + y * real[-1]],
        )
    legendre = _legendre_functions(z, max_degree)
    components = []
    for l in range(max_degree + 1):
        components += [legendre[l, m] * imaginary[m] for m in range(l, 0, -1)]
        components += [legendre[l, m] * real[m] for m in range(l + 1)]
    return jnp.stack(components, axis=-1)


def _legendre_functions(z: Any, max_degree: int) -> dict[tuple[int, int], Any]:
    """Q_l^m(z) by degree and order, 0 ≤ m ≤ l."""
    found: dict[tuple[int, int], Array] = {}
    diagonal = 1.0
    for m in range(max_degree + 1):
        if m > 0:
            diagonal *= math.sqrt((2 * m + 1) / (2 * m) * (2.0 if m == 1 else 1.0))
        found[m, m] = diagonal + 0.0 * z
        for l in range(m + 1, max_degree + 1):
            found[l, m] = math.sqrt((4 * l**2 - 1) / (l**2 - m**2)) * z * found[l - 1, m]
            if l > m + 1:
                ratio = ((l - 1) ** 2 - m**2) / (4 * (l - 1) ** 2 - 1)
                scale = math.sqrt((4 * l**2 - 1) / (l**2 - m**2) * ratio)
                found[l, m] = found[l, m] - scale * found[l - 2, m]
    return found


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def powers_around(
    x: Float[Array, "edges"], y: Float[Array, "edges"], order: int
) -> Float[Array, "edges parts"]:
    """Real parts of (x + iy)^m, m = 0 … order, then imaginary parts."""

    def next_power(power: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], Array]:
        real, imaginary = power
        return (x * real - y * imaginary, x * imaginary + y * real), jnp.stack(power)

    # in a loop: unrolled, XLA would compute every power from the beginning
    first = (jnp.ones_like(x), jnp.zeros_like(x))
    powers = jax.lax.scan(next_power, first, length=order + 1)[1]
    return jnp.moveaxis(powers, 2, 0).swapaxes(1, 2).reshape(len(x), -1)


@powers_around.defjvp
def _change_of_powers(order, primals, tangents):
    powers = powers_around(*primals, order)
    real, imaginary = jnp.split(powers, 2, axis=1)
    real_slope, imaginary_slope = (_slopes_of_powers(part) for part in (real, imaginary))
    dx, dy = (tangent[:, None] for tangent in tangents)
    changes = (real_slope * dx - imaginary_slope * dy, imaginary_slope * dx + real_slope * dy)
    return powers, jnp.concatenate(changes, axis=1)


def _slopes_of_powers(powers: Array) -> Array:
    """m u^(m-1) from u^m."""
    exponents = jnp.arange(1, powers.shape[1], dtype=powers.dtype)
    return jnp.pad(powers[:, :-1] * exponents, ((0, 0), (1, 0)))


@functools.cache
def legendre_factors(order: int) -> np.ndarray:
    """q_vlm of the factors Q_l^m = Σ_v q_vlm T_v of harmonics; zero for m > l, [v, l, m].

    T_v are the Chebyshev polynomials. By interpolation at their nodes, exact up to rounding.
    """
    nodes = np.cos(np.pi * (np.arange(order + 1) + 0.5) / (order + 1))
    polynomials = np.polynomial.chebyshev.chebvander(nodes, order)
    factors = np.zeros((order + 1, order + 1, order + 1))
    for (l, m), values in _legendre_functions(nodes, order).items():
        factors[:, l, m] = np.linalg.solve(polynomials, values)
    return factors
