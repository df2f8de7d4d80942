"""The factors of spherical harmonics that depend on the polar angle, in Chebyshev polynomials."""

from __future__ import annotations

import functools

import numpy as np

from mace_scf_jax.layers.harmonics import legendre_functions


@functools.cache
def legendre_factors(order: int) -> np.ndarray:
    """q_vlm of the factors Q_l^m = Σ_v q_vlm T_v of harmonics; zero for m > l, [v, l, m].

    T_v are the Chebyshev polynomials. By interpolation at their nodes, exact up to rounding.
    """
    nodes = np.cos(np.pi * (np.arange(order + 1) + 0.5) / (order + 1))
    polynomials = np.polynomial.chebyshev.chebvander(nodes, order)
    factors = np.zeros((order + 1, order + 1, order + 1))
    for (l, m), values in legendre_functions(nodes, order).items():
        factors[:, l, m] = np.linalg.solve(polynomials, np.broadcast_to(values, nodes.shape))
    return factors
