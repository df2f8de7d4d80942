"""Real solid harmonics R_lm(r) = √(4π/(2l+1)) r^l Y_lm(r̂): polynomials, smooth everywhere.

This fixes the order of multipoles in the whole project: by l, then m = -l … l. The l = 1 block is
(y, z, x). R_00 = 1 and R_1m are the Cartesian components, so a multipole moment ∫ ρ R_lm is the
charge for l = 0 and the dipole for l = 1. There is no Condon–Shortley sign.
"""

from __future__ import annotations

import math

from jaxtyping import Array, Float

from mace_scf_jax.electrostatics import polynomials
from mace_scf_jax.electrostatics.polynomials import Polynomial

SOLID_HARMONICS: tuple[tuple[Polynomial, ...], ...] = (
    ({(0, 0, 0): 1.0},),
    ({(0, 1, 0): 1.0}, {(0, 0, 1): 1.0}, {(1, 0, 0): 1.0}),
    (
        {(1, 1, 0): math.sqrt(3.0)},
        {(0, 1, 1): math.sqrt(3.0)},
        {(0, 0, 2): 1.0, (2, 0, 0): -0.5, (0, 2, 0): -0.5},
        {(1, 0, 1): math.sqrt(3.0)},
        {(2, 0, 0): 0.5 * math.sqrt(3.0), (0, 2, 0): -0.5 * math.sqrt(3.0)},
    ),
    (
        {(2, 1, 0): 3.0 * math.sqrt(0.625), (0, 3, 0): -math.sqrt(0.625)},
        {(1, 1, 1): math.sqrt(15.0)},
        {
            (0, 1, 2): 4.0 * math.sqrt(0.375),
            (2, 1, 0): -math.sqrt(0.375),
            (0, 3, 0): -math.sqrt(0.375),
        },
        {(0, 0, 3): 1.0, (2, 0, 1): -1.5, (0, 2, 1): -1.5},
        {
            (1, 0, 2): 4.0 * math.sqrt(0.375),
            (3, 0, 0): -math.sqrt(0.375),
            (1, 2, 0): -math.sqrt(0.375),
        },
        {(2, 0, 1): 0.5 * math.sqrt(15.0), (0, 2, 1): -0.5 * math.sqrt(15.0)},
        {(3, 0, 0): math.sqrt(0.625), (1, 2, 0): -3.0 * math.sqrt(0.625)},
    ),
)
"""``SOLID_HARMONICS[l][m + l]``: R_lm as a polynomial."""


def num_components(max_l: int) -> int:
    """Number of components (l, m) with l ≤ max_l."""
    return (max_l + 1) ** 2


def degrees(max_l: int) -> tuple[int, ...]:
    """The degree l of each component, in storage order."""
    return tuple(l for l in range(max_l + 1) for _ in range(2 * l + 1))


def solid_harmonics(
    vectors: Float[Array, "*shape 3"], max_l: int
) -> Float[Array, "*shape components"]:
    """R_lm at points, for all l ≤ max_l.

    Args:
        vectors: points (x, y, z), any unit.
        max_l: highest degree, at most 3.

    Returns:
        (max_l + 1)² values per point, in units of length^l.
    """
    return polynomials.evaluate(
        [harmonic for block in SOLID_HARMONICS[: max_l + 1] for harmonic in block], vectors
    )
