"""Wigner 3j symbols of real components, from a table that e3nn-jax filled.

Signs follow the PyTorch package e3nn, so that weights trained there mean the same here. The table
makes a start of the program half a second shorter, which is what e3nn-jax takes to import.
"""

from __future__ import annotations

import functools
from pathlib import Path

import jax
import numpy as np

TABLE = Path(__file__).with_name("wigner_3j.npz")
HIGHEST = 6
"""Highest degree in the table."""
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

Degrees = tuple[int, int, int]


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
    degrees = (l1, l2, l3)
    if max(degrees) > HIGHEST:
        return computed_3j(l1, l2, l3)
    order = sorted(range(3), key=lambda place: degrees[place])
    inversions = sum(order[i] > order[j] for i in range(3) for j in range(i + 1, 3))
    sign = -1.0 if inversions % 2 and sum(degrees) % 2 else 1.0
    first, second, third = (degrees[place] for place in order)
    return sign * np.transpose(_table()[first, second, third], np.argsort(order))


def computed_3j(l1: int, l2: int, l3: int) -> np.ndarray:
    """Return what `wigner_3j` does, computed by e3nn-jax."""
    import e3nn_jax as e3nn  # slow to import

    with jax.ensure_compile_time_eval():
        coefficients = np.asarray(e3nn.clebsch_gordan(l1, l2, l3), dtype=np.float64)
    coefficients = coefficients / np.linalg.norm(coefficients)
    sign = -1.0 if tuple(sorted((l1, l2, l3))) in _OPPOSITE_SIGN_IN_E3NN_JAX else 1.0
    return sign * coefficients


def write_table(path: str | Path = TABLE) -> None:
    """Write the table anew."""
    np.savez_compressed(path, **{_name(degrees): computed_3j(*degrees) for degrees in tabulated()})


def tabulated() -> list[Degrees]:
    """Return the degrees, ascending, of the symbols in the table."""
    return [
        (l1, l2, l3)
        for l1 in range(HIGHEST + 1)
        for l2 in range(l1, HIGHEST + 1)
        for l3 in range(l2, min(l1 + l2, HIGHEST) + 1)
    ]


def _name(degrees: Degrees) -> str:
    return "{}_{}_{}".format(*degrees)


@functools.cache
def _table() -> dict[Degrees, np.ndarray]:
    with np.load(TABLE, allow_pickle=False) as archive:
        return {degrees: archive[_name(degrees)] for degrees in tabulated()}
