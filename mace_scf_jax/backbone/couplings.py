"""Coupling coefficients of SO(3): Wigner 3j symbols and their symmetric powers.

The coefficients come from e3nn-jax. Signs follow the PyTorch package e3nn, so that weights trained
there mean the same here.
"""

from __future__ import annotations

import functools

import e3nn_jax as e3nn
import jax
import numpy as np

_OPPOSITE_SIGN_IN_E3NN_JAX = frozenset(
    {
        (1, 2, 2),
        (1, 3, 3),
        (1, 4, 4),
        (1, 5, 5),
        (1, 6, 6),
        (3, 4, 6),
        (4, 4, 5),
        (4, 5, 6),
        (5, 5, 5),
        (5, 6, 6),
    }
)
"""Degrees (ascending) for which e3nn-jax and e3nn chose opposite signs. All have an odd sum."""


@functools.cache
def wigner_3j(l1: int, l2: int, l3: int) -> np.ndarray:
    """Real Wigner 3j symbol with unit norm, in the sign convention of e3nn.

    Args:
        l1: first degree.
        l2: second degree.
        l3: third degree, |l1 - l2| ≤ l3 ≤ l1 + l2.

    Returns:
        Array of shape [2 l1 + 1, 2 l2 + 1, 2 l3 + 1], float64.
    """
    with jax.ensure_compile_time_eval():
        coefficients = np.asarray(e3nn.clebsch_gordan(l1, l2, l3), dtype=np.float64)
    coefficients = coefficients / np.linalg.norm(coefficients)
    sign = -1.0 if tuple(sorted((l1, l2, l3))) in _OPPOSITE_SIGN_IN_E3NN_JAX else 1.0
    return sign * coefficients


def coupling(l1: int, l2: int, l3: int) -> np.ndarray:
    """Coupling tensor l1 ⊗ l2 → l3 in component normalisation, √(2 l3 + 1) · 3j."""
    return np.sqrt(2 * l3 + 1) * wigner_3j(l1, l2, l3)


@functools.cache
def symmetric_power_coupling(max_degree: int, degree_out: int, order: int) -> np.ndarray:
    """Generalised Clebsch–Gordan coefficients of ``order`` equal factors.

    Each factor holds degrees 0 … max_degree with natural parity. The factors are coupled from left
    to right through every intermediate irrep; one column per coupling path.

    Args:
        max_degree: highest degree of the factors.
        degree_out: degree of the result (natural parity).
        order: number of factors (the correlation order ν).

    Returns:
        Array [2 degree_out + 1, M, …, M, paths], M = (max_degree + 1)², float64; paths in the order
        in which the PyTorch package MACE numbers them, none if the degree cannot be reached.

    Source:
        Batatia et al., MACE, NeurIPS 2022, eq. 10–11.
    """
    width = (max_degree + 1) ** 2
    identity = np.eye(width)
    # couplings of the factors so far: (degree, parity) and tensor [2l + 1, M, ..., M]
    couplings = [
        ((degree, (-1) ** degree), identity[degree**2 : (degree + 1) ** 2])
        for degree in range(max_degree + 1)
    ]
    for _ in range(order - 1):
        extended = []
        for (left, left_parity), tensor in couplings:
            for right in range(max_degree + 1):
                for out in range(abs(left - right), left + right + 1):
                    joined = np.zeros((2 * out + 1, *tensor.shape[1:], width))
                    symbol = np.sqrt(2 * out + 1) * wigner_3j(out, left, right)
                    joined[..., right**2 : (right + 1) ** 2] = np.einsum(
                        "olr,l...->o...r", symbol, tensor
                    )
                    extended.append(((out, left_parity * (-1) ** right), joined))
        couplings = sorted(extended, key=lambda item: item[0])
    natural = (degree_out, (-1) ** degree_out)
    paths = [tensor for irrep, tensor in couplings if irrep == natural]
    if not paths:
        return np.zeros((2 * degree_out + 1, *(width,) * order, 0))
    return np.stack(paths, axis=-1)
