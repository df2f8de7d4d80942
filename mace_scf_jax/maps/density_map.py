"""Charge density of atomic multipoles in space: their Gaussians, summed at points."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mace_scf_jax.electrostatics.gaussians import multipole_norm
from mace_scf_jax.electrostatics.harmonics import degrees, solid_harmonics
from mace_scf_jax.maps.atomic_multipoles import AtomicMultipoles

POINTS_AT_ONCE = 1024
"""Points of one compiled call; fewer are padded, so that no number of points compiles anew."""
REACH = 7.5
"""Widths of a Gaussian beyond which it is left out, where it has fallen by a factor of 10¹²."""


def density_at(
    sources: AtomicMultipoles,
    points: Float[np.ndarray, "*points 3"],
    *,
    points_at_once: int = POINTS_AT_ONCE,
) -> Float[np.ndarray, "*points"]:
    """Charge density of multipoles at any points, periodic images included.

    That is Σ p_lm φ_lm(r), the density whose potential `potential_at` gives, without the charges
    that cause an external field.

    Args:
        sources: multipoles at atoms.
        points: positions in Å.
        points_at_once: points of one compiled call, which bounds memory.

    Returns:
        Density in e/Å³.

    Raises:
        ValueError: the points are not finite positions.
    """
    points = np.asarray(points, dtype=np.float64)
    if points.shape[-1:] != (3,) or not np.all(np.isfinite(points)):
        raise ValueError(
            f"points: found an array of shape {points.shape}, expected finite positions [..., 3]"
        )
    flat = _wrapped(points.reshape(-1, 3), sources)
    positions, shifts = _wrapped(np.asarray(sources.positions), sources), _images(sources)
    width, max_l = sources.settings.smearing_width, sources.settings.max_l
    amplitudes = jnp.asarray(np.asarray(sources.multipoles) * _norms(max_l, width))
    values = np.empty(len(flat))
    for start in range(0, len(flat), points_at_once):
        part = flat[start : start + points_at_once]
        padded = np.zeros((points_at_once, 3))
        padded[: len(part)] = part
        found = _density(amplitudes, positions, shifts, jnp.asarray(padded), jnp.asarray(width))
        values[start : start + len(part)] = np.asarray(found)[: len(part)]
    return values.reshape(points.shape[:-1])


@jax.jit
def _density(
    amplitudes: Float[Array, "atoms components"],
    positions: Float[Array | np.ndarray, "atoms 3"],
    shifts: Float[Array | np.ndarray, "images 3"],
    points: Float[Array, "points 3"],
    width: Float[Array, ""],
) -> Float[Array, "points"]:
    """Σ over images and atoms of amplitudes times R_lm(r) exp(-r²/2σ²)."""
    max_l = int(np.sqrt(amplitudes.shape[1])) - 1

    def add(total: Array, shift: Array) -> tuple[Array, None]:
        vectors = points[:, None] - jnp.asarray(positions) - shift
        falloff = jnp.exp(-0.5 * jnp.sum(vectors**2, axis=-1) / width**2)
        harmonics = solid_harmonics(vectors, max_l)
        return total + jnp.einsum("pac,ac,pa->p", harmonics, amplitudes, falloff), None

    return jax.lax.scan(add, jnp.zeros_like(points[:, 0]), jnp.asarray(shifts))[0]


def _norms(max_l: int, width: float) -> Float[np.ndarray, "components"]:
    """Factors from R_lm exp(-r²/2σ²) to φ_lm, whose harmonics are Y_lm."""
    return np.array(
        [
            multipole_norm(degree, width) * np.sqrt((2 * degree + 1) / (4.0 * np.pi))
            for degree in degrees(max_l)
        ]
    )


def _wrapped(
    positions: Float[np.ndarray, "points 3"], sources: AtomicMultipoles
) -> Float[np.ndarray, "points 3"]:
    """Positions moved into the cell along periodic directions."""
    cell, pbc = np.asarray(sources.cell), np.asarray(sources.pbc)
    cells = np.floor(positions @ np.linalg.inv(cell)) * pbc
    return positions - cells @ cell


def _images(sources: AtomicMultipoles) -> Float[np.ndarray, "images 3"]:
    """Translations that bring images of atoms in the cell within reach of points in the cell."""
    cell, pbc = np.asarray(sources.cell), np.asarray(sources.pbc)
    heights = 1.0 / np.linalg.norm(np.linalg.inv(cell), axis=0)
    most = np.floor(REACH * sources.settings.smearing_width / heights).astype(int) + 1
    ranges = [range(-n, n + 1) if flag else (0,) for n, flag in zip(most, pbc, strict=True)]
    return np.array(list(itertools.product(*ranges)), dtype=np.float64) @ cell
