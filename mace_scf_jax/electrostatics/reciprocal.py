"""Reciprocal-space sums over the Gaussian multipoles of one periodic system.

Every Gaussian is smooth, so the sum over k = n B with 0 < |k| ≤ k_c is the whole answer: there is
no short-range remainder. One of each pair ±k is visited and counts twice. The k = 0 term is
dropped, which is a neutralising background. Integer indices n are chosen on the host; k is formed
here, so that derivatives with respect to the cell are exact. Padding indices are masked.

`prepare` does the work that depends on the geometry alone (above all the phases exp(-ik·r)); the
other functions are linear in the multipoles and may be applied many times. Phases that would not
fit in memory are formed chunk by chunk of k, each time they are needed.

With sharp cutoff the energy is a smooth function of the cell as long as the indices stay the same,
and jumps when they are chosen anew. With a `Fade`, terms vanish smoothly before they are dropped.
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
from mace_scf_jax.electrostatics.harmonics import degrees, num_components
from mace_scf_jax.electrostatics.trigonometry import cosine_and_sine_of_turns
from mace_scf_jax.units import FIELD_CONSTANT

PHASES_IN_MEMORY = 2**26
"""Pairs of atom and wavevector whose phases are kept in memory; above, they are formed anew."""

_product = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
"""Matrix product that keeps full float32 precision on accelerators too."""

ComplexPair = tuple[Float[Array, "kvectors"], Float[Array, "kvectors"]]
"""Real and imaginary part."""


@dataclasses.dataclass(frozen=True)
class Fade:
    """Range of |k| in 1/Å over which terms go from fully counted to absent."""

    start: float
    end: float

    def weight(self, squared: Float[Array, "kvectors"]) -> Float[Array, "kvectors"]:
        """1 below `start`, 0 above `end`, twice continuously differentiable in k²."""
        x = (squared - self.start**2) / (self.end**2 - self.start**2)
        x = jnp.clip(x, 0.0, 1.0)
        return 1.0 - x * x * x * (10.0 - x * (15.0 - 6.0 * x))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ReciprocalGeometry:
    """What the reciprocal sums need to know of one geometry."""

    indices: Float[Array, "kvectors 3"]
    """Integer indices n of k; 0 for padding."""
    wavevectors: Float[Array, "kvectors 3"]
    """k in 1/Å; 0 for padding."""
    kernel: Float[Array, "kvectors"]
    """2/(ε₀ Ω k²) in V/e, the 2 counting -k; 0 for padding."""
    dual: Float[Array, "3 3"]
    """Rows b with b_i · a_j = δ_ij in 1/Å."""
    fractional: Float[Array, "atoms 3"]
    """Fractional positions of the sources or receivers."""
    phases: tuple[Float[Array, "kvectors atoms"], Float[Array, "kvectors atoms"]] | None
    """cos(k·r) and sin(k·r); None if they are formed chunk by chunk."""
    chunk: int = dataclasses.field(metadata={"static": True})
    """Wavevectors whose phases are in memory together."""


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
    *,
    fade: Fade | None = None,
    chunk: int | None = None,
) -> ReciprocalGeometry:
    """Wavevectors, Coulomb kernel and phases of one geometry.

    Args:
        positions: atomic positions in Å.
        cell: lattice vectors in Å (rows), of non-zero volume.
        k_indices: integer indices n of one half of reciprocal space, without n = 0.
        k_mask: False for padding indices, whose value does not matter.
        fade: where terms fade out; None counts every index fully.
        chunk: wavevectors whose phases are in memory together; None chooses by size.

    Returns:
        The prepared geometry.
    """
    dtype = positions.dtype
    indices = jnp.where(k_mask[:, None], k_indices, 0).astype(dtype)
    dual = dual_cell(cell)
    wavevectors = (2.0 * math.pi) * _product(indices, dual)
    squared = jnp.sum(wavevectors * wavevectors, axis=-1)
    kernel = jnp.where(k_mask, 1.0 / jnp.where(k_mask, squared, 1.0), 0.0)
    if fade is not None:
        kernel = kernel * fade.weight(squared)
    if chunk is None:
        chunk = max(1, PHASES_IN_MEMORY // max(1, positions.shape[0]))
    return _with_points(
        ReciprocalGeometry(
            indices=indices,
            wavevectors=wavevectors,
            kernel=(2.0 * FIELD_CONSTANT) * kernel / cell_volume(cell),
            dual=dual,
            fractional=positions,
            phases=None,
            chunk=chunk,
        ),
        positions,
    )


def _with_points(
    geometry: ReciprocalGeometry, points: Float[Array, "points 3"]
) -> ReciprocalGeometry:
    fractional = _product(points, geometry.dual.T)
    phases = None
    if len(geometry.indices) <= geometry.chunk:
        phases = _phases(geometry.indices, fractional)
    return dataclasses.replace(geometry, fractional=fractional, phases=phases)


def _phases(
    indices: Float[Array, "kvectors 3"], fractional: Float[Array, "points 3"]
) -> tuple[Float[Array, "kvectors points"], Float[Array, "kvectors points"]]:
    """cos(k·r) and sin(k·r), with k·r as a number of turns: indices times fractional positions."""
    return cosine_and_sine_of_turns(_product(indices, fractional.T))


def at_points(geometry: ReciprocalGeometry, points: Float[Array, "points 3"]) -> ReciprocalGeometry:
    """The same cell and wavevectors with phases at other points, to receive a potential there.

    Args:
        geometry: prepared geometry.
        points: positions in Å.

    Returns:
        Geometry whose phases belong to the points.
    """
    phases_at_once = geometry.chunk * max(1, geometry.fractional.shape[0])
    chunk = max(1, phases_at_once // max(1, points.shape[0]))
    return _with_points(dataclasses.replace(geometry, chunk=chunk), points)


def _chunks(geometry: ReciprocalGeometry, values: tuple[Array, ...]) -> tuple[Array, ...]:
    """Per-k arrays, and those of the geometry, as [chunks, chunk, …], padded with zeros."""
    count = -(-len(geometry.indices) // geometry.chunk)
    missing = count * geometry.chunk - len(geometry.indices)

    def split(array: Array) -> Array:
        padded = jnp.pad(array, ((0, missing),) + ((0, 0),) * (array.ndim - 1))
        return padded.reshape(count, geometry.chunk, *array.shape[1:])

    return tuple(map(split, (geometry.indices, geometry.wavevectors, geometry.kernel, *values)))


def _chunk_of(
    geometry: ReciprocalGeometry, indices: Array, wavevectors: Array, kernel: Array
) -> ReciprocalGeometry:
    """The geometry restricted to some wavevectors, with their phases."""
    return dataclasses.replace(
        geometry,
        indices=indices,
        wavevectors=wavevectors,
        kernel=kernel,
        phases=_phases(indices, geometry.fractional),
    )


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
    if geometry.phases is None:

        @jax.checkpoint
        def of_chunk(terms):
            chunk = _chunk_of(geometry, *terms)
            return structure_factor(chunk, multipoles, width=width, max_l=max_l)

        real, imaginary = jax.lax.map(of_chunk, _chunks(geometry, ()))
        count = len(geometry.indices)
        return real.reshape(-1)[:count], imaginary.reshape(-1)[:count]
    cosines, sines = geometry.phases
    factors = form_factors(geometry.wavevectors, width, max_l)
    real_phase, minus_imaginary_phase = _quarter_turns(max_l, multipoles.dtype)
    even = factors * _product(cosines, multipoles)
    odd = factors * _product(sines, multipoles)
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
    if geometry.phases is None:

        @jax.checkpoint
        def of_chunk(terms):
            *own, real, imaginary = terms
            chunk = _chunk_of(geometry, *own)
            return project_potential(chunk, (real, imaginary), widths=widths, max_l=max_l)

        def add(total, terms):
            return total + of_chunk(terms), None

        shape = (len(geometry.fractional), len(widths), num_components(max_l))
        zero = jnp.zeros(shape, dtype=geometry.fractional.dtype)
        return jax.lax.scan(add, zero, _chunks(geometry, structure))[0]
    cosines, sines = geometry.phases
    real, imaginary = (geometry.kernel * part for part in structure)
    real_phase, minus_imaginary_phase = _quarter_turns(max_l, real.dtype)
    # The conjugate of (-i)^l is real_phase + i minus_imaginary_phase.
    even = real[:, None] * real_phase - imaginary[:, None] * minus_imaginary_phase
    odd = real[:, None] * minus_imaginary_phase + imaginary[:, None] * real_phase
    factors = jnp.stack(
        [form_factors(geometry.wavevectors, width, max_l) for width in widths], axis=1
    )
    num_k, num_points = cosines.shape
    num_receivers = len(widths) * num_components(max_l)
    in_phase = (factors * even[:, None, :]).reshape(num_k, num_receivers)
    out_of_phase = (factors * odd[:, None, :]).reshape(num_k, num_receivers)
    projections = _product(in_phase.T, cosines) - _product(out_of_phase.T, sines)
    return projections.T.reshape(num_points, len(widths), num_components(max_l))


def interaction_matrix(
    geometry: ReciprocalGeometry,
    *,
    width: float,
    max_l: int,
    receiver_widths: tuple[float, ...],
    receiver_max_l: int,
) -> Float[Array, "atoms widths receiver_components atoms components"]:
    """Projections at every atom of the potential of each multipole of every atom.

    Args:
        geometry: prepared geometry with phases in memory.
        width: σ of the sources in Å.
        max_l: highest degree of the sources.
        receiver_widths: σ of the receivers in Å.
        receiver_max_l: highest degree of the receivers.

    Returns:
        What `project_potential` of `structure_factor` does, as a matrix, in V/Å^l per e Å^l.
    """
    source_real, source_imaginary = _waves(geometry, width, max_l)
    blocks = []
    for receiver_width in receiver_widths:
        real, imaginary = _waves(geometry, receiver_width, receiver_max_l)
        kernel = geometry.kernel[:, None]
        matrix = _product((kernel * real).T, source_real)
        blocks.append(matrix + _product((kernel * imaginary).T, source_imaginary))
    num_atoms = len(geometry.fractional)
    shape = (-1, num_atoms, num_components(receiver_max_l), num_atoms, num_components(max_l))
    return jnp.swapaxes(jnp.stack(blocks).reshape(shape), 0, 1)


def _waves(
    geometry: ReciprocalGeometry, width: float, max_l: int
) -> tuple[Float[Array, "kvectors columns"], Float[Array, "kvectors columns"]]:
    """Real and imaginary part of φ̃_lm(k) exp(-ik·r_i), with columns (i, lm)."""
    cosines, sines = (phase[:, :, None] for phase in geometry.phases)
    factors = form_factors(geometry.wavevectors, width, max_l)[:, None, :]
    real_phase, minus_imaginary_phase = _quarter_turns(max_l, factors.dtype)
    real = factors * (cosines * real_phase - sines * minus_imaginary_phase)
    imaginary = factors * (-cosines * minus_imaginary_phase - sines * real_phase)
    # Not -1: a small cell may have no wavevector at all.
    flat = (real.shape[0], real.shape[1] * real.shape[2])
    return real.reshape(flat), imaginary.reshape(flat)
