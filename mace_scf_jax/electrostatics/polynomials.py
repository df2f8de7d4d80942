"""Polynomials in x, y, z with constant coefficients: built on the host, evaluated on arrays."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import jax.numpy as jnp
from jaxtyping import Array, Float

Exponents = tuple[int, int, int]
"""Powers of x, y and z in one monomial."""

Polynomial = Mapping[Exponents, float]
"""Monomial -> coefficient."""


def multiply(first: Polynomial, second: Polynomial) -> Polynomial:
    """Product of two polynomials."""
    product: dict[Exponents, float] = {}
    for (a, b, c), left in first.items():
        for (d, e, f), right in second.items():
            exponents = (a + d, b + e, c + f)
            product[exponents] = product.get(exponents, 0.0) + left * right
    return product


def laplacian(polynomial: Polynomial) -> Polynomial:
    """Sum of the second derivatives in x, y and z."""
    result: dict[Exponents, float] = {}
    for exponents, coefficient in polynomial.items():
        for axis, power in enumerate(exponents):
            if power < 2:
                continue
            lowered = list(exponents)
            lowered[axis] -= 2
            key = (lowered[0], lowered[1], lowered[2])
            result[key] = result.get(key, 0.0) + power * (power - 1) * coefficient
    return result


def monomials(
    vectors: Float[Array, "*shape 3"], exponents: Iterable[Exponents]
) -> dict[Exponents, Float[Array, "*shape"]]:
    """Values of monomials, as products only, so that every derivative at 0 is finite.

    Args:
        vectors: points (x, y, z).
        exponents: the monomials wanted.

    Returns:
        Monomial -> its value at every point.
    """
    values = {(0, 0, 0): jnp.ones_like(vectors[..., 0])}

    def value(key: Exponents) -> Array:
        if key not in values:
            axis = next(axis for axis in range(3) if key[axis] > 0)
            lowered = list(key)
            lowered[axis] -= 1
            values[key] = vectors[..., axis] * value((lowered[0], lowered[1], lowered[2]))
        return values[key]

    return {key: value(key) for key in exponents}


def evaluate(
    polynomials: Iterable[Polynomial], vectors: Float[Array, "*shape 3"]
) -> Float[Array, "*shape polynomials"]:
    """Values of several polynomials at the same points.

    Args:
        polynomials: the polynomials.
        vectors: points (x, y, z).

    Returns:
        One value per point and polynomial.
    """
    polynomials = tuple(polynomials)
    values = monomials(vectors, {key for polynomial in polynomials for key in polynomial})
    return jnp.stack(
        [
            sum(coefficient * values[key] for key, coefficient in polynomial.items())
            for polynomial in polynomials
        ],
        axis=-1,
    )


def monomials_of_degree(degree: int) -> tuple[Exponents, ...]:
    """All monomials of one degree, in the order of `monomials_by_degree`: powers of x first."""
    return tuple(
        (a, b, degree - a - b) for a in range(degree, -1, -1) for b in range(degree - a, -1, -1)
    )


def monomials_by_degree(
    vectors: Float[Array, "*shape 3"], max_degree: int
) -> list[Float[Array, "monomials *shape"]]:
    """Values of all monomials, degree by degree, with few operations.

    In the order used, the monomials of degree d without x are the last d + 1, and the one without
    x and y is the last; so each degree is x, y and z times tails of the one before.

    Args:
        vectors: points (x, y, z).
        max_degree: highest degree.

    Returns:
        For each degree d, the values of its (d + 1)(d + 2)/2 monomials.
    """
    x, y, z = (vectors[None, ..., axis] for axis in range(3))
    blocks = [jnp.ones_like(x)]
    for degree in range(1, max_degree + 1):
        lower = blocks[-1]
        blocks.append(jnp.concatenate([x * lower, y * lower[-degree:], z * lower[-1:]]))
    return blocks
