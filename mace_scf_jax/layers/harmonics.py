"""Real spherical harmonics of any degree, as polynomials of the direction."""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float


def edge_harmonics(
    vectors: Float[Array, "edges 3"], max_degree: int
) -> Float[Array, "edges components"]:
    """Real spherical harmonics of the directions, component-normalised (mean square one).

    Components are m = -l … l about z: for l = 1 the order y, z, x. Those of e3nn are about y.

    Args:
        vectors: edge vectors in Å, none of zero length.
        max_degree: highest degree.

    Returns:
        Degrees 0 … max_degree one after the other, (max_degree + 1)² components.
    """
    lengths = jnp.sqrt(jnp.sum(vectors**2, axis=-1, keepdims=True))
    return real_harmonics(vectors / lengths, max_degree)


def real_harmonics(
    directions: Float[Array, "edges 3"], max_degree: int
) -> Float[Array, "edges components"]:
    """Harmonics Y_lm, l = 0 … max_degree and m = -l … l about z, with Σ_m Y_lm² = 2l + 1.

    Products of Re or Im of (x + iy)^m with normalised Legendre functions Q_l^m of z less their
    factor sin^m. Nothing is divided, so all derivatives exist at the poles.

    Args:
        directions: unit vectors.

    Source:
        Drake, Worley and D'Azevedo, ACM Trans. Math. Softw. 35, 23 (2008), for the recurrence in l.
    """
    x, y, z = directions[:, 0], directions[:, 1], directions[:, 2]
    real, imaginary = [jnp.ones_like(x), x], [jnp.zeros_like(y), y]
    for _ in range(1, max_degree):
        real, imaginary = (
            [*real, x * real[-1] - y * imaginary[-1]],
            [*imaginary, x * imaginary[-1] + y * real[-1]],
        )
    legendre = legendre_functions(z, max_degree)
    components = []
    for l in range(max_degree + 1):
        components += [legendre[l, m] * imaginary[m] for m in range(l, 0, -1)]
        components += [legendre[l, m] * real[m] for m in range(l + 1)]
    return jnp.stack(components, axis=-1)


def legendre_functions(z: Any, max_degree: int) -> dict[tuple[int, int], Any]:
    """Q_l^m(z) by degree and order, 0 ≤ m ≤ l; those of m = l are numbers."""
    found: dict[tuple[int, int], Any] = {}
    diagonal = 1.0
    for m in range(max_degree + 1):
        if m > 0:
            diagonal *= math.sqrt((2 * m + 1) / (2 * m) * (2.0 if m == 1 else 1.0))
        found[m, m] = diagonal
        for l in range(m + 1, max_degree + 1):
            found[l, m] = math.sqrt((4 * l**2 - 1) / (l**2 - m**2)) * z * found[l - 1, m]
            if l > m + 1:
                ratio = ((l - 1) ** 2 - m**2) / (4 * (l - 1) ** 2 - 1)
                scale = math.sqrt((4 * l**2 - 1) / (l**2 - m**2) * ratio)
                found[l, m] = found[l, m] - scale * found[l - 2, m]
    return found
