"""Reciprocal-space sums over the Gaussian multipoles of one periodic system.

Every Gaussian is smooth, so the sum over k = n B with 0 < |k| ≤ k_c is the whole answer: there is
no short-range remainder. One of each pair ±k is visited and counts twice. The k = 0 term is
dropped, which is a neutralising background. Integer indices n are chosen on the host; k is formed
here, so that derivatives with respect to the cell are exact. Padding indices are masked.

`DirectSum.of` does the work that depends on the geometry alone (above all the phases exp(-ik·r)).
Phases that would not fit in memory are formed chunk by chunk of k, each time they are needed.

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

from mace_scf_jax.electrostatics.cells import cell_volume, dual_cell
from mace_scf_jax.electrostatics.gaussians import Receivers, form_factors
from mace_scf_jax.electrostatics.harmonics import degrees, num_components
from mace_scf_jax.electrostatics.sums.truncation import Truncation
from mace_scf_jax.units import FIELD_CONSTANT

_COSINE_SERIES = tuple((-1.0) ** n / math.factorial(2 * n) for n in range(9))
_SINE_SERIES = tuple((-1.0) ** n / math.factorial(2 * n + 1) for n in range(8))
"""Taylor coefficients: below half a unit in the last place of float64 on |angle| ≤ π/4."""


def _horner(coefficients: tuple[float, ...], variable: Array) -> Array:
    result = jnp.full_like(variable, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        result = result * variable + coefficient
    return result


@jax.custom_jvp
def cosine_and_sine_of_turns(
    turns: Float[Array, "*shape"],
) -> tuple[Float[Array, "*shape"], Float[Array, "*shape"]]:
    """Cosine and sine of 2π · turns.

    Args:
        turns: angle as a multiple of the full circle.

    Returns:
        cos(2π t), sin(2π t).
    """
    quarters = jnp.round(4.0 * turns)
    angle = (2.0 * math.pi) * (turns - 0.25 * quarters)
    quadrant = quarters - 4.0 * jnp.floor(0.25 * quarters)
    square = angle * angle
    cosine = _horner(_COSINE_SERIES, square)
    sine = angle * _horner(_SINE_SERIES, square)
    swapped = (quadrant == 1.0) | (quadrant == 3.0)
    cosine_negative = (quadrant == 1.0) | (quadrant == 2.0)
    sine_negative = (quadrant == 2.0) | (quadrant == 3.0)
    rotated_cosine = jnp.where(swapped, sine, cosine)
    rotated_sine = jnp.where(swapped, cosine, sine)
    return (
        jnp.where(cosine_negative, -rotated_cosine, rotated_cosine),
        jnp.where(sine_negative, -rotated_sine, rotated_sine),
    )


@cosine_and_sine_of_turns.defjvp
def _cosine_and_sine_of_turns_jvp(primals, tangents):
    cosine, sine = cosine_and_sine_of_turns(*primals)
    angle_tangent = (2.0 * math.pi) * tangents[0]
    return (cosine, sine), (-sine * angle_tangent, cosine * angle_tangent)


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
class DirectSum:
    """The sum over the wavevectors of one geometry, term by term."""

    indices: Float[Array, "kvectors 3"]
    """Integer indices n of k; 0 for padding."""
    wavevectors: Float[Array, "kvectors 3"]
    """k in 1/Å; 0 for padding."""
    kernel: Float[Array, "kvectors"]
    """2/(ε₀ Ω k²) in V/e, the 2 counting -k; 0 for padding. Of a slab it is that of `truncation`,
    which has a value at k = 0."""
    dual: Float[Array, "3 3"]
    """Rows b with b_i · a_j = δ_ij in 1/Å."""
    fractional: Float[Array, "points 3"]
    """Fractional positions of the atoms, or of other receivers."""
    phases: tuple[Float[Array, "kvectors points"], Float[Array, "kvectors points"]] | None
    """cos(k·r) and sin(k·r); None if they are formed chunk by chunk."""
    width: float = dataclasses.field(metadata={"static": True})
    """σ of the density in Å."""
    max_l: int = dataclasses.field(metadata={"static": True})
    """Highest degree of the density."""
    chunk: int = dataclasses.field(metadata={"static": True})
    """Wavevectors whose phases are in memory together."""

    @classmethod
    def of(
        cls,
        positions: Float[Array, "atoms 3"],
        cell: Float[Array, "3 3"],
        k_indices: Int[Array, "kvectors 3"],
        k_mask: Bool[Array, "kvectors"],
        *,
        width: float,
        max_l: int,
        truncation: Truncation | None = None,
        fade: Fade | None = None,
        chunk: int | None = None,
    ) -> DirectSum:
        """Wavevectors, Coulomb kernel and phases of one geometry.

        Args:
            positions: atomic positions in Å.
            cell: lattice vectors in Å (rows), of non-zero volume.
            k_indices: integer indices n of one half of reciprocal space, without n = 0; with it
                for a slab whose interaction is cut off.
            k_mask: False for padding indices, whose value does not matter.
            width: σ of the density in Å.
            max_l: highest degree of the density.
            truncation: cuts the interaction off along open directions; None for none.
            fade: where terms fade out; None counts every index fully.
            chunk: wavevectors whose phases are in memory together; None chooses by size.
        """
        indices = jnp.where(k_mask[:, None], k_indices, 0).astype(positions.dtype)
        dual = dual_cell(cell)
        wavevectors = (2.0 * math.pi) * _product(indices, dual)
        squared = jnp.sum(wavevectors * wavevectors, axis=-1)
        if truncation is None:
            kernel = jnp.where(k_mask, 1.0 / jnp.where(k_mask, squared, 1.0), 0.0)
        else:
            is_zero = jnp.all(indices == 0.0, axis=1)
            kernel = jnp.where(k_mask, truncation.inverse_square(list(indices.T), dual), 0.0)
            kernel = jnp.where(is_zero, 0.5, 1.0) * kernel  # k = 0 has no -k beside it
        if fade is not None:
            kernel = kernel * fade.weight(squared)
        if chunk is None:
            chunk = max(1, PHASES_IN_MEMORY // max(1, positions.shape[0]))
        prepared = cls(
            indices=indices,
            wavevectors=wavevectors,
            kernel=(2.0 * FIELD_CONSTANT) * kernel / cell_volume(cell),
            dual=dual,
            fractional=positions,
            phases=None,
            width=width,
            max_l=max_l,
            chunk=chunk,
        )
        return prepared._with_points(positions)

    @property
    def has_pair_sums(self) -> bool:
        """Whether the phases are in memory, of which `matrix` is made."""
        return self.phases is not None

    def energy(self, multipoles: Float[Array, "atoms components"]) -> Float[Array, ""]:
        """Coulomb energy 1/(2 ε₀ Ω) Σ_{k≠0} |S(k)|²/k² in eV; see `Summation`."""
        real, imaginary = self.structure_factor(multipoles)
        return 0.5 * jnp.sum(self.kernel * (real * real + imaginary * imaginary))

    def project(
        self,
        multipoles: Float[Array, "atoms components"],
        receivers: Receivers,
        points: Float[Array, "points 3"] | None = None,
    ) -> Float[Array, "points widths receiver_components"]:
        """Projections 1/Ω Σ_{k≠0} V(k) [φ̃_lm(k) exp(-ik·r)]* in V/Å^l; see `Summation`."""
        structure = self.structure_factor(multipoles)
        return (self if points is None else self._at(points))._receive(structure, receivers)

    def matrix(
        self, receivers: Receivers
    ) -> Float[Array, "atoms widths receiver_components atoms components"]:
        """Projections of every multipole in V/Å^l per e Å^l; see `Summation`."""
        source_real, source_imaginary = self._waves(self.width, self.max_l)
        kernel = self.kernel[:, None]
        blocks = []
        for width in receivers.widths:
            real, imaginary = self._waves(width, receivers.max_l)
            matrix = _product((kernel * real).T, source_real)
            blocks.append(matrix + _product((kernel * imaginary).T, source_imaginary))
        num_atoms = len(self.fractional)
        components = num_components(receivers.max_l), num_components(self.max_l)
        shape = (-1, num_atoms, components[0], num_atoms, components[1])
        return jnp.swapaxes(jnp.stack(blocks).reshape(shape), 0, 1)

    def structure_factor(self, multipoles: Float[Array, "atoms components"]) -> ComplexPair:
        """Fourier transform of the density, S(k) = Σ p_ilm φ̃_lm(k) exp(-ik·r_i), in e.

        Args:
            multipoles: atomic multipoles p in e Å^l.
        """
        if self.phases is None:

            @jax.checkpoint
            def of_chunk(terms):
                return self._chunk_of(*terms).structure_factor(multipoles)

            real, imaginary = jax.lax.map(of_chunk, self._chunks(()))
            count = len(self.indices)
            return real.reshape(-1)[:count], imaginary.reshape(-1)[:count]
        cosines, sines = self.phases
        factors = form_factors(self.wavevectors, self.width, self.max_l)
        real_phase, minus_imaginary_phase = _quarter_turns(self.max_l, multipoles.dtype)
        even = factors * _product(cosines, multipoles)
        odd = factors * _product(sines, multipoles)
        return (
            _product(even, real_phase) - _product(odd, minus_imaginary_phase),
            -_product(even, minus_imaginary_phase) - _product(odd, real_phase),
        )

    def _receive(
        self, structure: ComplexPair, receivers: Receivers
    ) -> Float[Array, "points widths receiver_components"]:
        """Project the potential of a structure factor at the points that the phases belong to."""
        shape = (len(self.fractional), len(receivers.widths), num_components(receivers.max_l))
        if self.phases is None:

            @jax.checkpoint
            def of_chunk(terms):
                *own, real, imaginary = terms
                return self._chunk_of(*own)._receive((real, imaginary), receivers)

            def add(total, terms):
                return total + of_chunk(terms), None

            zero = jnp.zeros(shape, dtype=self.fractional.dtype)
            return jax.lax.scan(add, zero, self._chunks(structure))[0]
        cosines, sines = self.phases
        real, imaginary = (self.kernel * part for part in structure)
        real_phase, minus_imaginary_phase = _quarter_turns(receivers.max_l, real.dtype)
        # The conjugate of (-i)^l is real_phase + i minus_imaginary_phase.
        even = real[:, None] * real_phase - imaginary[:, None] * minus_imaginary_phase
        odd = real[:, None] * minus_imaginary_phase + imaginary[:, None] * real_phase
        factors = jnp.stack(
            [form_factors(self.wavevectors, width, receivers.max_l) for width in receivers.widths],
            axis=1,
        )
        flat = (len(self.kernel), shape[1] * shape[2])
        in_phase = (factors * even[:, None, :]).reshape(flat)
        out_of_phase = (factors * odd[:, None, :]).reshape(flat)
        projections = _product(in_phase.T, cosines) - _product(out_of_phase.T, sines)
        return projections.T.reshape(shape)

    def _waves(
        self, width: float, max_l: int
    ) -> tuple[Float[Array, "kvectors columns"], Float[Array, "kvectors columns"]]:
        """Real and imaginary part of φ̃_lm(k) exp(-ik·r_i), with columns (i, lm)."""
        if self.phases is None:
            raise ValueError("expected phases in memory, found sums in chunks of wavevectors")
        cosines, sines = (phase[:, :, None] for phase in self.phases)
        factors = form_factors(self.wavevectors, width, max_l)[:, None, :]
        real_phase, minus_imaginary_phase = _quarter_turns(max_l, factors.dtype)
        real = factors * (cosines * real_phase - sines * minus_imaginary_phase)
        imaginary = factors * (-cosines * minus_imaginary_phase - sines * real_phase)
        # Not -1: a small cell may have no wavevector at all.
        flat = (real.shape[0], real.shape[1] * real.shape[2])
        return real.reshape(flat), imaginary.reshape(flat)

    def _at(self, points: Float[Array, "points 3"]) -> DirectSum:
        """The same cell and wavevectors with phases at other points, as many at once as before."""
        phases_at_once = self.chunk * max(1, self.fractional.shape[0])
        chunk = max(1, phases_at_once // max(1, points.shape[0]))
        return dataclasses.replace(self, chunk=chunk)._with_points(points)

    def _with_points(self, points: Float[Array, "points 3"]) -> DirectSum:
        fractional = _product(points, self.dual.T)
        all_at_once = len(self.indices) <= self.chunk
        phases = _phases(self.indices, fractional) if all_at_once else None
        return dataclasses.replace(self, fractional=fractional, phases=phases)

    def _chunks(self, values: tuple[Array, ...]) -> tuple[Array, ...]:
        """Per-k arrays, own ones and others, as [chunks, chunk, …], padded with zeros."""
        count = -(-len(self.indices) // self.chunk)
        missing = count * self.chunk - len(self.indices)

        def split(array: Array) -> Array:
            padded = jnp.pad(array, ((0, missing),) + ((0, 0),) * (array.ndim - 1))
            return padded.reshape(count, self.chunk, *array.shape[1:])

        return tuple(map(split, (self.indices, self.wavevectors, self.kernel, *values)))

    def _chunk_of(self, indices: Array, wavevectors: Array, kernel: Array) -> DirectSum:
        """The sum restricted to some wavevectors, with their phases."""
        return dataclasses.replace(
            self,
            indices=indices,
            wavevectors=wavevectors,
            kernel=kernel,
            phases=_phases(indices, self.fractional),
        )


def _phases(
    indices: Float[Array, "kvectors 3"], fractional: Float[Array, "points 3"]
) -> tuple[Float[Array, "kvectors points"], Float[Array, "kvectors points"]]:
    """cos(k·r) and sin(k·r), with k·r as a number of turns: indices times fractional positions."""
    return cosine_and_sine_of_turns(_product(indices, fractional.T))


def _quarter_turns(max_l: int, dtype) -> tuple[Array, Array]:
    """Real part and minus the imaginary part of (-i)^l, per component."""
    quarters = np.array(degrees(max_l)) % 4
    real = np.array([1.0, 0.0, -1.0, 0.0])[quarters]
    minus_imaginary = np.array([0.0, 1.0, 0.0, -1.0])[quarters]
    return jnp.asarray(real, dtype=dtype), jnp.asarray(minus_imaginary, dtype=dtype)
