"""Electrostatic potential of atomic multipoles in space: at points, on grids and on planes."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import ase
import jax
import jax.numpy as jnp
import numpy as np
from ase.io.cube import write_cube
from jaxtyping import Array, Float

from mace_scf_jax.boundary import BoundaryMode
from mace_scf_jax.electrostatics import (
    ElectrostaticsSettings,
    Receivers,
    SummationMethod,
    System,
    dipole_cartesian,
    system_projections,
)
from mace_scf_jax.files import write_whole
from mace_scf_jax.maps.atomic_multipoles import AtomicMultipoles, multipoles_of_atoms
from mace_scf_jax.maps.defaults import DEFAULT_MARGIN, DEFAULT_SPACING, MOST_POINTS
from mace_scf_jax.predict.model import Model, Prediction

POINTS_AT_ONCE = 4096
"""Points of one compiled call; fewer are padded, so that no number of points compiles anew."""
PHASES_IN_MEMORY = 2**22
"""Pairs of atom or point and wavevector whose phases are in memory together."""


@dataclasses.dataclass(frozen=True, eq=False)
class Potential:
    """Potential at points, and its gradient."""

    potential: Float[np.ndarray, "*points"]
    """In V."""
    gradient: Float[np.ndarray, "*points 3"]
    """In V/Å (x, y, z); the electric field is minus this."""


@dataclasses.dataclass(frozen=True, eq=False)
class Grid:
    """Points origin + i/n_1 v_1 + j/n_2 v_2 + … along two or three vectors, ends left out."""

    origin: Float[np.ndarray, "3"]
    """First point, Å."""
    vectors: Float[np.ndarray, "axes 3"]
    """What the grid spans, Å (rows)."""
    shape: tuple[int, ...]
    """Number of points along each vector."""

    @property
    def points(self) -> Float[np.ndarray, "*shape 3"]:
        """Every point, in Å."""
        steps = [np.arange(number) / number for number in self.shape]
        fractions = np.stack(np.meshgrid(*steps, indexing="ij"), axis=-1)
        return self.origin + fractions @ self.vectors


def potential_at(
    sources: AtomicMultipoles,
    points: Float[np.ndarray, "*points 3"],
    *,
    points_at_once: int = POINTS_AT_ONCE,
) -> Potential:
    """Potential of multipoles and of their external field at any points.

    Args:
        sources: multipoles at atoms, and the external field, which adds E·r.
        points: positions in Å.
        points_at_once: points of one compiled call, which bounds memory.

    Returns:
        Potential, zero on average over a fully periodic cell without external field.

    Raises:
        ValueError: the points are not finite positions.
    """
    points = np.asarray(points, dtype=np.float64)
    if points.shape[-1:] != (3,) or not np.all(np.isfinite(points)):
        raise ValueError(
            f"points: found an array of shape {points.shape}, expected finite positions [..., 3]"
        )
    flat = points.reshape(-1, 3)
    values = np.empty((len(flat), 4))
    chunk = max(1, PHASES_IN_MEMORY // max(1, len(sources.positions)))
    system = _prepare(sources, chunk=chunk)
    for start in range(0, len(flat), points_at_once):
        part = flat[start : start + points_at_once]
        padded = np.zeros((points_at_once, 3))
        padded[: len(part)] = part
        found = _potential_and_gradient(system, sources.multipoles, padded)
        values[start : start + len(part)] = np.asarray(found)[: len(part)]
    values[:, 0] += flat @ sources.external_field
    values[:, 1:] += sources.external_field
    shape = points.shape[:-1]
    return Potential(values[:, 0].reshape(shape), values[:, 1:].reshape(*shape, 3))


@functools.partial(jax.jit, static_argnames="chunk")
def _prepare(sources: AtomicMultipoles, *, chunk: int) -> System:
    return sources.prepared(chunk=chunk)


@jax.jit
def _potential_and_gradient(
    system: System,
    multipoles: Float[Array | np.ndarray, "atoms components"],
    points: Float[Array | np.ndarray, "points 3"],
) -> Float[Array, "points 4"]:
    """V and its gradient x, y, z: projections on receivers of no width."""
    at_points = Receivers(max_l=1, widths=(0.0,))
    projections = system_projections(
        system, jnp.asarray(multipoles), at_points, jnp.asarray(points)
    )[:, 0]
    return jnp.concatenate([projections[:, :1], dipole_cartesian(projections)], axis=1)


def predicted_multipoles(
    model: Model,
    atoms: ase.Atoms,
    prediction: Prediction,
    *,
    external_field: Float[np.ndarray, "3"] | None = None,
    boundary: BoundaryMode | str | None = None,
) -> AtomicMultipoles:
    """The multipoles that a model predicts, as sources of a potential, which is summed directly.

    Args:
        model: the model, whose Gaussians the density is made of.
        prediction: of the structure.
        external_field: gradient of an external potential in V/Å whose own potential is to be
            added; None for that of the multipoles alone, as they are in the prediction.
        boundary: boundary condition; None for ``exact`` where the model has it, else ``auto``. Both
            sum over pairs of an open structure, which holds everywhere, while the molecule
            correction of a box holds within half a box length.

    Raises:
        ValueError: the model has no multipoles.
        BoundaryError: the periodicity does not fit the boundary condition.
    """
    settings = require_multipoles(model)
    if boundary is None:
        is_exact = settings.boundary.is_by_periodicity
        boundary = BoundaryMode.EXACT if is_exact else BoundaryMode.AUTO
    return multipoles_of_atoms(
        atoms,
        np.asarray(prediction["multipoles"], dtype=np.float64),
        settings=dataclasses.replace(
            settings, boundary=BoundaryMode(boundary), sums=SummationMethod.DIRECT
        ),
        external_field=external_field,
        reach=float(atoms.cell.lengths().max()),
    )


def require_multipoles(model: Model) -> ElectrostaticsSettings:
    """The electrostatics of a model.

    Raises:
        ValueError: the model has none.
    """
    if model.settings.electrostatics is None:
        raise ValueError(
            f"a potential in space: expected a model with charges, found one of the family "
            f"{model.settings.family}"
        )
    return model.settings.electrostatics


def volume_grid(
    atoms: ase.Atoms, *, spacing: float = DEFAULT_SPACING, margin: float = DEFAULT_MARGIN
) -> Grid:
    """A grid in three dimensions around a structure.

    It fills the cell of a periodic structure; of a slab, the cell is moved along its open axis
    until the atoms are in the middle. Around an open structure it is a box with a margin.

    Args:
        spacing: largest distance of neighbouring points along an axis in Å.
        margin: between the atoms of an open structure and the faces of the box, Å.

    Raises:
        ValueError: spacing or margin make no sense, or the grid would be huge.
    """
    _check_lengths(spacing, margin)
    if not np.any(atoms.pbc):
        low, high = atoms.positions.min(axis=0) - margin, atoms.positions.max(axis=0) + margin
        return _checked_grid(low, np.diag(high - low), spacing)
    vectors = np.array(atoms.cell, dtype=np.float64)
    fractional = atoms.positions @ np.linalg.inv(vectors)
    middle = 0.5 * (fractional.min(axis=0) + fractional.max(axis=0))
    first = np.where(atoms.pbc, 0.0, middle - 0.5)
    return _checked_grid(first @ vectors, vectors, spacing)


def plane_grid(
    atoms: ase.Atoms,
    axes: str,
    *,
    height: float | None = None,
    spacing: float = DEFAULT_SPACING,
    margin: float = DEFAULT_MARGIN,
) -> Grid:
    """A rectangular grid on a plane normal to a Cartesian axis.

    Args:
        axes: the axes along the plane: two of x, y and z, such as ``xz``.
        height: position of the plane along the third axis in Å; None for the middle of the atoms.
        spacing: largest distance of neighbouring points in Å.
        margin: around the atoms where a direction is open, Å. Where it is periodic, the grid spans
            the cell.

    Raises:
        ValueError: there are no such axes, spacing or margin make no sense, or the grid would be
            huge.
    """
    _check_lengths(spacing, margin)
    along = plane_axes(axes)
    (normal,) = {0, 1, 2} - set(along)
    low, high = atoms.positions.min(axis=0) - margin, atoms.positions.max(axis=0) + margin
    periodic = np.array(atoms.cell)[np.array(atoms.pbc)]
    for axis in along:
        if atoms.pbc[axis]:
            low[axis] = np.minimum(periodic[:, axis], 0.0).sum()
            high[axis] = np.maximum(periodic[:, axis], 0.0).sum()
    origin = np.zeros(3)
    origin[normal] = 0.5 * (low[normal] + high[normal]) if height is None else height
    origin[list(along)] = low[list(along)]
    return _checked_grid(origin, np.diag(high - low)[list(along)], spacing)


def plane_axes(axes: str) -> tuple[int, int]:
    """Numbers of the two axes that a plane lies along.

    Args:
        axes: such as ``xz``.

    Raises:
        ValueError: these are not two different axes.
    """
    if len(axes) != 2 or len(set(axes) & set("xyz")) != 2:
        raise ValueError(f"plane: found {axes!r}, expected two of x, y and z, such as 'xy'")
    return "xyz".index(axes[0]), "xyz".index(axes[1])


def write_cube_file(
    path: str | Path,
    atoms: ase.Atoms,
    grid: Grid,
    values: Float[np.ndarray, "nx ny nz"],
    *,
    content: str = "electrostatic potential in V",
) -> None:
    """Write a cube file: lengths in bohr, as the format has it, values as they are.

    Args:
        grid: of three dimensions.
        values: on the grid, such as a potential in V.
        content: what the values are, for the first line of the file.
    """
    framed = ase.Atoms(atoms.numbers, positions=atoms.positions, cell=grid.vectors)
    with write_whole(path) as partial, partial.open("w") as file:
        write_cube(
            file,
            framed,
            data=values,
            origin=grid.origin,
            comment=f"{content}, by mace-scf-jax",
        )


def _check_lengths(spacing: float, margin: float) -> None:
    for name, value, valid in (("spacing", spacing, spacing > 0), ("margin", margin, margin >= 0)):
        if not (np.isfinite(value) and valid):
            raise ValueError(f"{name} of the grid: found {value} Å, expected a positive length")


def _checked_grid(origin: np.ndarray, vectors: np.ndarray, spacing: float) -> Grid:
    lengths = np.linalg.norm(vectors, axis=1)
    shape = tuple(max(1, int(np.ceil(length / spacing - 1e-9))) for length in lengths)
    if np.prod(shape, dtype=float) > MOST_POINTS:
        raise ValueError(
            f"grid: spacing {spacing:g} Å makes {' x '.join(map(str, shape))} points, expected at "
            f"most {MOST_POINTS:,}"
        )
    return Grid(origin, vectors, shape)
