"""Mesh sums over the Gaussian multipoles of one periodic system: O(N log N).

Every Gaussian is smooth, so its Fourier transform is all that is needed: there is no short-range
remainder. Point multipoles are derivatives of point charges and are spread on a grid as derivatives
of B-splines; a fast Fourier transform, the Coulomb kernel and the Gaussian factors, and the inverse
transform give the potential on the grid, which is interpolated with the same splines. Everything is
done in fractional coordinates, so any cell will do. Forces and stress are derivatives of the energy
as computed, hence exact for it.

The functions have the names and arguments of those in `reciprocal`, whose sums they approximate
without its cutoff; `mesh_accuracy` chooses grid and splines.

Sources: Essmann et al., J. Chem. Phys. 103, 8577 (1995); for multipoles, Sagui, Pedersen and
Darden, J. Chem. Phys. 120, 73 (2004).
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mace_scf_jax.electrostatics.gaussians import odd_double_factorial
from mace_scf_jax.electrostatics.harmonics import SOLID_HARMONICS
from mace_scf_jax.electrostatics.mesh_settings import Mesh
from mace_scf_jax.electrostatics.polynomials import monomials_of_degree
from mace_scf_jax.electrostatics.reciprocal import cell_volume, dual_cell
from mace_scf_jax.electrostatics.splines import influence
from mace_scf_jax.electrostatics.spreading import interpolate, spread
from mace_scf_jax.units import FIELD_CONSTANT

ComplexPair = tuple[Float[Array, "x y z"], Float[Array, "x y z"]]
"""Real and imaginary part."""

_HIGHEST = jax.lax.Precision.HIGHEST


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class MeshGeometry:
    """What the mesh sums need to know of one geometry."""

    points: Float[Array, "atoms 3"]
    """Positions of the receivers in grid steps."""
    steps_per_length: Float[Array, "3 3"]
    """Derivative of the position in grid steps by the Cartesian one, in 1/Å."""
    squared: Float[Array, "x y z"]
    """k² in 1/Å² of the modes with n_z ≥ 0."""
    kernel: Float[Array, "x y z"]
    """1/(ε₀ Ω k²) in V/e with the splines divided out; 0 for k = 0."""
    mesh: Mesh = dataclasses.field(metadata={"static": True})


def _mode_indices(mesh: Mesh) -> list[np.ndarray]:
    """Integer indices n of the modes along each axis, in the layout of `rfftn`."""
    x, y, z = mesh.shape
    return [np.fft.fftfreq(x, 1 / x), np.fft.fftfreq(y, 1 / y), np.fft.rfftfreq(z, 1 / z)]


def _mode_counts(mesh: Mesh) -> np.ndarray:
    """How many modes each entry along z stands for: n_z and -n_z, or n_z = 0 alone."""
    return np.where(_mode_indices(mesh)[2] == 0.0, 1.0, 2.0)


def prepare(
    positions: Float[Array, "atoms 3"], cell: Float[Array, "3 3"], *, mesh: Mesh
) -> MeshGeometry:
    """Positions on the grid and the Coulomb kernel of one geometry.

    Args:
        positions: atomic positions in Å.
        cell: lattice vectors in Å (rows), of non-zero volume.
        mesh: grid and splines.

    Returns:
        The prepared geometry.
    """
    dtype = positions.dtype
    dual = dual_cell(cell)
    indices = [jnp.asarray(index, dtype=dtype) for index in _mode_indices(mesh)]
    along = [
        index.reshape([-1 if axis == other else 1 for other in range(3)])
        for axis, index in enumerate(indices)
    ]
    metric = (4.0 * math.pi**2) * jnp.matmul(dual, dual.T, precision=_HIGHEST)
    squared = sum(
        metric[i, j] * along[i] * along[j] for i, j in itertools.product(range(3), repeat=2)
    )
    undone = [influence(length, mesh.order) for length in mesh.shape]
    undone[2] = undone[2][: len(indices[2])]
    factor = np.einsum("x,y,z->xyz", *undone)
    factor[0, 0, 0] = 0.0
    not_zero = jnp.asarray(factor != 0.0)
    inverse = jnp.where(not_zero, 1.0 / jnp.where(not_zero, squared, 1.0), 0.0)
    steps_per_length = jnp.asarray(mesh.shape, dtype=dtype)[:, None] * dual
    return MeshGeometry(
        points=jnp.matmul(positions, steps_per_length.T, precision=_HIGHEST),
        steps_per_length=steps_per_length,
        squared=squared,
        kernel=jnp.asarray(FIELD_CONSTANT * factor, dtype=dtype) * inverse / cell_volume(cell),
        mesh=mesh,
    )


def at_points(geometry: MeshGeometry, points: Float[Array, "points 3"]) -> MeshGeometry:
    """The same grid with other receivers.

    Args:
        geometry: prepared geometry.
        points: positions in Å.

    Returns:
        Geometry whose receivers are the points.
    """
    steps = jnp.matmul(points, geometry.steps_per_length.T, precision=_HIGHEST)
    return dataclasses.replace(geometry, points=steps)


def _harmonic_tensors(degree: int) -> np.ndarray:
    """R_lm/(2l-1)!! as tensors [m, 3^l]: their contraction with l equal vectors is R_lm."""
    tensors = np.zeros((2 * degree + 1,) + (3,) * degree)
    for axes in itertools.product(range(3), repeat=degree):
        exponents = tuple(axes.count(axis) for axis in range(3))
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


def structure_factor(
    geometry: MeshGeometry,
    multipoles: Float[Array, "atoms components"],
    *,
    width: float,
    max_l: int,
) -> ComplexPair:
    """Fourier transform of the density on the grid, splines included.

    Args:
        geometry: prepared geometry whose points are the atoms.
        multipoles: atomic multipoles p in e Å^l.
        width: σ of the Gaussians in Å.
        max_l: highest degree of the multipoles.

    Returns:
        Real and imaginary part of S(k) times the transform of the spline, in e, for n_z ≥ 0.
    """
    coefficients = jnp.matmul(
        multipoles, derivative_matrix(geometry.steps_per_length, max_l), precision=_HIGHEST
    )
    grid = spread(
        geometry.points,
        coefficients,
        shape=geometry.mesh.shape,
        order=geometry.mesh.order,
        max_l=max_l,
    )
    modes = jnp.fft.rfftn(grid)
    damping = jnp.exp((-0.5 * width**2) * geometry.squared)
    return damping * modes.real, damping * modes.imag


def energy(geometry: MeshGeometry, structure: ComplexPair) -> Float[Array, ""]:
    """Coulomb energy of a density, each Gaussian's own energy included.

    Args:
        geometry: prepared geometry.
        structure: result of `structure_factor`.

    Returns:
        1/(2 ε₀ Ω) Σ_{k≠0} |S(k)|²/k² in eV.
    """
    counts = jnp.asarray(_mode_counts(geometry.mesh), dtype=geometry.kernel.dtype)
    real, imaginary = structure
    return 0.5 * jnp.sum(counts * geometry.kernel * (real * real + imaginary * imaginary))


def project_potential(
    geometry: MeshGeometry,
    structure: ComplexPair,
    *,
    widths: tuple[float, ...],
    max_l: int,
) -> Float[Array, "points widths components"]:
    """Potential of a density projected on unit-moment Gaussians at the points of a geometry.

    Args:
        geometry: prepared geometry whose points are the receivers.
        structure: structure factor of the density.
        widths: σ of the receivers in Å; 0 gives the potential and its derivatives at the points.
        max_l: highest degree of the receivers.

    Returns:
        ∫ V φ_lm in V/Å^l.
    """
    mesh = geometry.mesh
    real, imaginary = structure
    to_components = derivative_matrix(geometry.steps_per_length, max_l).T
    damping = jnp.stack([jnp.exp((-0.5 * width**2) * geometry.squared) for width in widths])
    factors = damping * geometry.kernel
    modes = jax.lax.complex(factors * real, factors * imaginary)
    # irfftn divides by the number of points, which the sum over modes does not have.
    potentials = jnp.fft.irfftn(modes, s=mesh.shape, axes=(1, 2, 3)) * float(mesh.num_points)
    read = functools.partial(interpolate, order=mesh.order, max_l=max_l)
    values = jax.vmap(read, in_axes=(None, 0), out_axes=1)(geometry.points, potentials)
    return jnp.matmul(values, to_components, precision=_HIGHEST)
