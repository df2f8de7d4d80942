"""Reciprocal-space sums over the Gaussian multipoles of one periodic system.

Every Gaussian is smooth, so the sum over k = n B with 0 < |k| ≤ k_c is the whole answer: there is
no short-range remainder. One of each pair ±k is visited and counts twice. The k = 0 term is
dropped, which is a neutralising background. Integer indices n are chosen on the host; k is formed
here, so that derivatives with respect to the cell are exact. Padding indices are masked.

`prepare` does the work that depends on the geometry alone (above all the phases exp(-ik·r)); the
other functions are linear in the multipoles and may be applied many times.
"""

from __future__ import annotations

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from mace_scf_jax.electrostatics.gaussians import form_factors
from mace_scf_jax.electrostatics.harmonics import degrees
from mace_scf_jax.electrostatics.trigonometry import cosine_and_sine_of_turns
from mace_scf_jax.units import FIELD_CONSTANT


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ReciprocalGeometry:
    """What the reciprocal sums need to know of one geometry."""

    wavevectors: Float[Array, "kvectors 3"]
    """k in 1/Å; 0 for padding."""
    kernel: Float[Array, "kvectors"]
    """2/(ε₀ Ω k²) in V/e, the 2 counting -k; 0 for padding."""
    cosines: Float[Array, "kvectors atoms"]
    """cos(k·r)."""
    sines: Float[Array, "kvectors atoms"]
    """sin(k·r)."""
    indices: Float[Array, "kvectors 3"]
    """Integer indices n of k; 0 for padding."""
    dual: Float[Array, "3 3"]
    """Rows b with b_i · a_j = δ_ij in 1/Å."""


_product = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
"""Matrix product that keeps full float32 precision on accelerators too."""

ComplexPair = tuple[Float[Array, "kvectors"], Float[Array, "kvectors"]]
"""Real and imaginary part."""


def cell_volume(cell: Float[Array, "3 3"]) -> Float[Array, ""]:
    """Volume of a cell (rows are lattice vectors, either handedness), in Å³."""
    return jnp.abs(jnp.sum(cell[0] * jnp.cross(cell[1], cell[2])))


def dual_cell(cell: Float[Array, "3 3"]) -> Float[Array, "3 3"]:
    """Rows b with b_i · a_j = δ_ij: fractional coordinates are r @ dualᵀ, and k = 2π n @ dual."""
    rows = jnp.stack(
        [jnp.cross(cell[1], cell[2]), jnp.cross(cell[2], cell[0]), jnp.cross(cell[0], cell[1])]
    )
    return rows / jnp.sum(cell[0] * rows[0])


def prepare(
    positions: Float[Array, "atoms 3"],
    cell: Float[Array, "3 3"],
    k_indices: Int[Array, "kvectors 3"],
    k_mask: Bool[Array, "kvectors"],
) -> ReciprocalGeometry:
    """Wavevectors, Coulomb kernel and phases of one geometry.

    Args:
        positions: atomic positions in Å.
        cell: lattice vectors in Å (rows), of non-zero volume.
        k_indices: integer indices n of one half of reciprocal space, without n = 0.
        k_mask: False for padding indices, whose value does not matter.

    Returns:
        The prepared geometry.
    """
    dtype = positions.dtype
    indices = jnp.where(k_mask[:, None], k_indices, 0).astype(dtype)
    dual = dual_cell(cell)
    wavevectors = (2.0 * math.pi) * _product(indices, dual)
    squared = jnp.sum(wavevectors * wavevectors, axis=-1)
    inverse_squared = jnp.where(k_mask, 1.0 / jnp.where(k_mask, squared, 1.0), 0.0)
    cosines, sines = _phases(indices, dual, positions)
    return ReciprocalGeometry(
        wavevectors=wavevectors,
        kernel=(2.0 * FIELD_CONSTANT) * inverse_squared / cell_volume(cell),
        cosines=cosines,
        sines=sines,
        indices=indices,
        dual=dual,
    )


def _phases(
    indices: Float[Array, "kvectors 3"], dual: Float[Array, "3 3"], points: Float[Array, "points 3"]
) -> tuple[Float[Array, "kvectors points"], Float[Array, "kvectors points"]]:
    """cos(k·r) and sin(k·r), with k·r as a number of turns: indices times fractional positions."""
    return cosine_and_sine_of_turns(_product(indices, _product(points, dual.T).T))


def at_points(geometry: ReciprocalGeometry, points: Float[Array, "points 3"]) -> ReciprocalGeometry:
    """The same cell and wavevectors with phases at other points, to receive a potential there.

    Args:
        geometry: prepared geometry.
        points: positions in Å.

    Returns:
        Geometry whose phases belong to the points.
    """
    cosines, sines = _phases(geometry.indices, geometry.dual, points)
    return dataclasses.replace(geometry, cosines=cosines, sines=sines)


def _quarter_turns(max_l: int, dtype) -> tuple[Array, Array]:
    """Real part and minus the imaginary part of (-i)^l, per component."""
    quarters = np.array(degrees(max_l)) % 4
    real = np.array([1.0, 0.0, -1.0, 0.0])[quarters]
    minus_imaginary = np.array([0.0, 1.0, 0.0, -1.0])[quarters]
    return jnp.asarray(real, dtype=dtype), jnp.asarray(minus_imaginary, dtype=dtype)


def structure_factor(
    geometry: ReciprocalGeometry,
    multipoles: Float[Array, "atoms components"],
    *,
    width: float,
    max_l: int,
) -> ComplexPair:
    """Fourier transform of the density, S(k) = Σ p_ilm φ̃_lm(k) exp(-ik·r_i).

    Args:
        geometry: prepared geometry.
        multipoles: atomic multipoles p in e Å^l.
        width: σ of the Gaussians in Å.
        max_l: highest degree of the multipoles.

    Returns:
        Real and imaginary part of S in e.
    """
    factors = form_factors(geometry.wavevectors, width, max_l)
    real_phase, minus_imaginary_phase = _quarter_turns(max_l, multipoles.dtype)
    even = factors * _product(geometry.cosines, multipoles)
    odd = factors * _product(geometry.sines, multipoles)
    return (
        _product(even, real_phase) - _product(odd, minus_imaginary_phase),
        -_product(even, minus_imaginary_phase) - _product(odd, real_phase),
    )


def energy(geometry: ReciprocalGeometry, structure: ComplexPair) -> Float[Array, ""]:
    """Coulomb energy of a density, each Gaussian's own energy included.

    Args:
        geometry: prepared geometry.
        structure: structure factor in e.

    Returns:
        1/(2 ε₀ Ω) Σ_{k≠0} |S(k)|²/k² in eV.
    """
    real, imaginary = structure
    return 0.5 * jnp.sum(geometry.kernel * (real * real + imaginary * imaginary))


def project_potential(
    geometry: ReciprocalGeometry,
    structure: ComplexPair,
    *,
    widths: tuple[float, ...],
    max_l: int,
) -> Float[Array, "atoms widths components"]:
    """Potential of a density projected on unit-moment Gaussians at the points of a geometry.

    Args:
        geometry: prepared geometry whose phases belong to the receivers.
        structure: structure factor of the density in e.
        widths: σ of the receivers in Å; 0 gives the potential and its derivatives at the points.
        max_l: highest degree of the receivers.

    Returns:
        ∫ V φ_lm = 1/Ω Σ_{k≠0} V(k) [φ̃_lm(k) exp(-ik·r)]* in V/Å^l.
    """
    real, imaginary = (geometry.kernel * part for part in structure)
    real_phase, minus_imaginary_phase = _quarter_turns(max_l, real.dtype)
    # The conjugate of (-i)^l is real_phase + i minus_imaginary_phase.
    even = real[:, None] * real_phase - imaginary[:, None] * minus_imaginary_phase
    odd = real[:, None] * minus_imaginary_phase + imaginary[:, None] * real_phase
    factors = jnp.stack(
        [form_factors(geometry.wavevectors, width, max_l) for width in widths], axis=1
    )
    num_k, num_points = geometry.cosines.shape
    in_phase = (factors * even[:, None, :]).reshape(num_k, -1)
    out_of_phase = (factors * odd[:, None, :]).reshape(num_k, -1)
    projections = _product(in_phase.T, geometry.cosines) - _product(out_of_phase.T, geometry.sines)
    return projections.T.reshape(num_points, len(widths), -1)
