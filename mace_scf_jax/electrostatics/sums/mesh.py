"""Mesh sums over the Gaussian multipoles of one periodic system: O(N log N).

Every Gaussian is smooth, so its Fourier transform is all that is needed: there is no short-range
remainder. Point multipoles are derivatives of point charges and are spread on a grid as derivatives
of B-splines; a fast Fourier transform, the Coulomb kernel and the Gaussian factors, and the inverse
transform give the potential on the grid, which is interpolated with the same splines. Everything is
done in fractional coordinates, so any cell will do. Forces and stress are derivatives of the energy
as computed, hence exact for it.

The sums of `direct` are approximated without its cutoff; `mesh_choice` chooses the grid.

Sources: Essmann et al., J. Chem. Phys. 103, 8577 (1995); for multipoles, Sagui, Pedersen and
Darden, J. Chem. Phys. 120, 73 (2004).
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mace_scf_jax.electrostatics.cells import cell_volume, dual_cell
from mace_scf_jax.electrostatics.gaussians import Receivers, odd_double_factorial
from mace_scf_jax.electrostatics.harmonics import SOLID_HARMONICS
from mace_scf_jax.electrostatics.polynomials import monomials_of_degree
from mace_scf_jax.electrostatics.sums.splines import influence
from mace_scf_jax.electrostatics.sums.spreading import interpolate, spread
from mace_scf_jax.electrostatics.sums.truncation import SphericalTruncation, Truncation
from mace_scf_jax.mesh import Mesh, MeshError, OpenMesh
from mace_scf_jax.units import FIELD_CONSTANT

ComplexPair = tuple[Float[Array, "x y z"], Float[Array, "x y z"]]
"""Real and imaginary part."""

_HIGHEST = jax.lax.Precision.HIGHEST


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class MeshSum:
    """The sum over all wavevectors of a grid, of one geometry."""

    points: Float[Array, "atoms 3"]
    """Positions of the atoms in grid steps."""
    steps_per_length: Float[Array, "3 3"]
    """Derivative of the position in grid steps by the Cartesian one, in 1/Å."""
    squared: Float[Array, "x y z"]
    """k² in 1/Å² of the modes with n_z ≥ 0."""
    kernel: Float[Array, "x y z"]
    """1/(ε₀ Ω k²) in V/e with the splines divided out; 0 for k = 0. Of a slab it is that of
    `truncation`, which has a value at k = 0."""
    width: float = dataclasses.field(metadata={"static": True})
    """σ of the density in Å."""
    max_l: int = dataclasses.field(metadata={"static": True})
    """Highest degree of the density."""
    mesh: Mesh = dataclasses.field(metadata={"static": True})

    has_pair_sums: ClassVar[bool] = False

    @classmethod
    def of(
        cls,
        positions: Float[Array, "atoms 3"],
        cell: Float[Array, "3 3"],
        *,
        width: float,
        max_l: int,
        mesh: Mesh,
        truncation: Truncation | SphericalTruncation | None = None,
    ) -> MeshSum:
        """Positions on the grid and the Coulomb kernel of one geometry.

        Args:
            positions: atomic positions in Å.
            cell: lattice vectors in Å (rows), of non-zero volume.
            width: σ of the density in Å.
            max_l: highest degree of the density.
            mesh: grid and splines.
            truncation: cuts the interaction off along open directions; None for none.
        """
        dtype = positions.dtype
        dual = dual_cell(cell)
        indices = [jnp.asarray(index, dtype=dtype) for index in _mode_indices(mesh)]
        along = [
            index.reshape([-1 if axis == other else 1 for other in range(3)])
            for axis, index in enumerate(indices)
        ]
        metric = (4.0 * math.pi**2) * jnp.matmul(dual, dual.T, precision=_HIGHEST)
        squared = jnp.zeros((), dtype)
        for i, j in itertools.product(range(3), repeat=2):
            squared += metric[i, j] * along[i] * along[j]
        undone = [influence(length, mesh.order) for length in mesh.shape]
        undone[2] = undone[2][: len(indices[2])]
        factor = np.einsum("x,y,z->xyz", *undone)
        if truncation is None:
            factor[0, 0, 0] = 0.0
            not_zero = jnp.asarray(factor != 0.0)
            inverse = jnp.where(not_zero, 1.0 / jnp.where(not_zero, squared, 1.0), 0.0)
        else:
            inverse = truncation.inverse_square(along, dual)
        steps_per_length = jnp.asarray(mesh.shape, dtype=dtype)[:, None] * dual
        return cls(
            points=jnp.matmul(positions, steps_per_length.T, precision=_HIGHEST),
            steps_per_length=steps_per_length,
            squared=squared,
            kernel=jnp.asarray(FIELD_CONSTANT * factor, dtype=dtype) * inverse / cell_volume(cell),
            width=width,
            max_l=max_l,
            mesh=mesh,
        )

    @classmethod
    def of_open(
        cls, positions: Float[Array, "atoms 3"], *, mesh: OpenMesh, width: float, max_l: int
    ) -> MeshSum:
        """The sum over a structure without periodic direction, in the box of its mesh; see `of`."""
        return cls.of(
            positions,
            jnp.diag(jnp.asarray(mesh.lengths, positions.dtype)),
            mesh=mesh.mesh,
            truncation=SphericalTruncation(mesh.cut),
            width=width,
            max_l=max_l,
        )

    def energy(self, multipoles: Float[Array, "atoms components"]) -> Float[Array, ""]:
        """Coulomb energy 1/(2 ε₀ Ω) Σ_{k≠0} |S(k)|²/k² in eV; see `Summation`."""
        counts = jnp.asarray(_mode_counts(self.mesh), dtype=self.kernel.dtype)
        real, imaginary = self.structure_factor(multipoles)
        return 0.5 * jnp.sum(counts * self.kernel * (real * real + imaginary * imaginary))

    def project(
        self,
        multipoles: Float[Array, "atoms components"],
        receivers: Receivers,
        points: Float[Array, "points 3"] | None = None,
    ) -> Float[Array, "points widths receiver_components"]:
        """Projections ∫ V φ_lm in V/Å^l, interpolated from the grid; see `Summation`."""
        mesh, max_l = self.mesh, receivers.max_l
        steps = self.points
        if points is not None:
            steps = jnp.matmul(points, self.steps_per_length.T, precision=_HIGHEST)
        real, imaginary = self.structure_factor(multipoles)
        to_components = derivative_matrix(self.steps_per_length, max_l).T
        damping = jnp.stack([self._damping(width) for width in receivers.widths])
        factors = damping * self.kernel
        modes = jax.lax.complex(factors * real, factors * imaginary)
        # irfftn divides by the number of points, which the sum over modes does not have.
        potentials = jnp.fft.irfftn(modes, s=mesh.shape, axes=(1, 2, 3)) * float(mesh.num_points)
        read = functools.partial(interpolate, order=mesh.order, max_l=max_l)
        values = jax.vmap(read, in_axes=(None, 0), out_axes=1)(steps, potentials)
        return jnp.matmul(values, to_components, precision=_HIGHEST)

    def matrix(self, receivers: Receivers) -> Array:
        """None: a grid does not see pairs.

        Raises:
            MeshError: always.
        """
        raise MeshError("a mesh sum has no matrix of pairs of atoms")

    def structure_factor(self, multipoles: Float[Array, "atoms components"]) -> ComplexPair:
        """Fourier transform of the density on the grid, splines included.

        Args:
            multipoles: atomic multipoles p in e Å^l.

        Returns:
            Real and imaginary part of S(k) times the transform of the spline, in e, for n_z ≥ 0.
        """
        grid = spread(
            self.points,
            jnp.matmul(
                multipoles, derivative_matrix(self.steps_per_length, self.max_l), precision=_HIGHEST
            ),
            shape=self.mesh.shape,
            order=self.mesh.order,
            max_l=self.max_l,
        )
        modes = jnp.fft.rfftn(grid)
        damping = self._damping(self.width)
        return damping * modes.real, damping * modes.imag

    def _damping(self, width: float) -> Float[Array, "x y z"]:
        """Transform exp(-k²σ²/2) of a Gaussian of unit charge."""
        return jnp.exp((-0.5 * width**2) * self.squared)


def _mode_indices(mesh: Mesh) -> list[np.ndarray]:
    """Integer indices n of the modes along each axis, in the layout of `rfftn`."""
    x, y, z = mesh.shape
    return [np.fft.fftfreq(x, 1 / x), np.fft.fftfreq(y, 1 / y), np.fft.rfftfreq(z, 1 / z)]


def _mode_counts(mesh: Mesh) -> np.ndarray:
    """How many modes each entry along z stands for: n_z and -n_z, or n_z = 0 alone."""
    return np.where(_mode_indices(mesh)[2] == 0.0, 1.0, 2.0)


def _harmonic_tensors(degree: int) -> np.ndarray:
    """R_lm/(2l-1)!! as tensors [m, 3^l]: their contraction with l equal vectors is R_lm."""
    tensors = np.zeros((2 * degree + 1,) + (3,) * degree)
    for axes in itertools.product(range(3), repeat=degree):
        exponents = (axes.count(0), axes.count(1), axes.count(2))
        ways = math.factorial(degree) / math.prod(math.factorial(power) for power in exponents)
        for m, harmonic in enumerate(SOLID_HARMONICS[degree]):
            tensors[(m, *axes)] = harmonic.get(exponents, 0.0) / ways
    return tensors.reshape(2 * degree + 1, -1) / odd_double_factorial(degree)


def _monomial_of_axes(degree: int) -> np.ndarray:
    """Matrix [3^l, monomials] from a sequence of axes to the monomial that it stands for."""
    monomials = monomials_of_degree(degree)
    matrix = np.zeros((3**degree, len(monomials)))
    for row, axes in enumerate(itertools.product(range(3), repeat=degree)):
        exponents = (axes.count(0), axes.count(1), axes.count(2))
        matrix[row, monomials.index(exponents)] = 1.0
    return matrix


def derivative_matrix(
    steps_per_length: Float[Array, "3 3"], max_l: int
) -> Float[Array, "components monomials"]:
    """R_lm(∂/∂r)/(2l-1)!! as a combination of derivatives by grid coordinates.

    Args:
        steps_per_length: derivative of grid coordinates by Cartesian ones, in 1/Å.
        max_l: highest degree.

    Returns:
        Factor of each monomial of derivatives, for every component.
    """
    dtype = steps_per_length.dtype
    blocks = []
    # Product of l Jacobians: one row per sequence of Cartesian axes, one column per grid axes.
    product = jnp.ones((1, 1), dtype=dtype)
    for degree in range(max_l + 1):
        tensors = jnp.asarray(_harmonic_tensors(degree), dtype=dtype)
        monomials = jnp.asarray(_monomial_of_axes(degree), dtype=dtype)
        blocks.append(
            jnp.matmul(
                jnp.matmul(tensors, product, precision=_HIGHEST), monomials, precision=_HIGHEST
            )
        )
        product = jnp.kron(product, steps_per_length.T)
    return jax.scipy.linalg.block_diag(*blocks)
