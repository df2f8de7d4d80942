"""The grid of a mesh sum: a static choice, made on the host, that travels with the structures."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float


class MeshError(ValueError):
    """A mesh sum was asked for that cannot be done."""


@dataclasses.dataclass(frozen=True)
class Mesh:
    """Grid of a mesh sum, the order of its splines, and the cells that it serves."""

    shape: tuple[int, int, int]
    """Number of grid points along each lattice vector."""
    order: int
    """Order p of the B-splines: each atom touches p³ grid points."""
    spacing: float = math.inf
    """Largest |a_i|/n_i in Å for which the accuracy holds that the mesh was chosen for."""
    skewness: float = math.inf
    """Largest |a_i| over the distance of the lattice planes that it crosses, likewise."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(int(length) for length in self.shape))
        if len(self.shape) != 3 or min(self.shape) < self.order:
            raise MeshError(
                f"a mesh needs three axes of at least {self.order} points (the order of its "
                f"splines), found shape {self.shape}"
            )
        if self.order < 2:
            raise MeshError(f"the order of the splines must be at least 2, found {self.order}")

    def __str__(self) -> str:
        """The grid in words."""
        points = " x ".join(map(str, self.shape))
        return f"{points} points with splines of order {self.order}"

    @property
    def num_points(self) -> int:
        """Number of grid points."""
        return self.shape[0] * self.shape[1] * self.shape[2]

    def serves(self, cell: Float[Array, "3 3"]) -> Bool[Array, ""]:
        """Whether a cell is one that the accuracy holds for.

        Args:
            cell: lattice vectors in Å (rows).
        """
        cell = jax.lax.stop_gradient(cell)
        lengths = jnp.linalg.norm(cell, axis=1)
        fine = jnp.all(lengths <= (1.0 + _ROUND_OFF) * self.spacing * np.array(self.shape))
        skewness = jnp.max(lengths * jnp.linalg.norm(jnp.linalg.inv(cell), axis=0))
        return fine & (skewness <= (1.0 + _ROUND_OFF) * self.skewness)


def grid_length(least: int) -> int:
    """Smallest of a few lengths that transform fast, not below a number.

    They are 8, 9, 10, 12, 14 and 15 times powers of two: structures of similar cells have the same.
    """
    step = 1
    while least > 16 * step:
        step *= 2
    if step == 1 and least <= 10:
        return least
    return next(length * step for length in (8, 9, 10, 12, 14, 15, 16) if length * step >= least)


@dataclasses.dataclass(frozen=True)
class OpenMesh:
    """Grid for structures without periodic direction, in a box along x, y and z around them."""

    mesh: Mesh
    extent: tuple[float, float, float]
    """Largest differences of coordinates along x, y, z that are served, in Å."""
    diameter: float
    """Of the largest sphere about the middle of the coordinates that is served, in Å."""
    tails: float
    """Length in Å to which Gaussians reach."""

    @classmethod
    def around(
        cls, extent: Iterable[float], diameter: float, tails: float, *, order: int, spacing: float
    ) -> OpenMesh:
        """The smallest grid that serves extents and a diameter.

        Args:
            extent: along x, y, z in Å.
            diameter: Å.
            tails: length in Å to which Gaussians reach.
            order: of the splines.
            spacing: of grid points, Å.
        """
        beside = diameter + 2.0 * tails
        x, y, z = (
            grid_length(max(math.ceil((length + beside) / spacing), order)) for length in extent
        )
        served = (x * spacing - beside, y * spacing - beside, z * spacing - beside)
        return cls(Mesh((x, y, z), order, spacing, 1.0), served, diameter, tails)

    @property
    def cut(self) -> float:
        """Distance in Å at which the interaction is cut off: beyond that of any two Gaussians."""
        return self.diameter + self.tails

    @property
    def lengths(self) -> tuple[float, float, float]:
        """Edges of the box in Å, in which nothing sees a copy."""
        return tuple(extent + self.cut + self.tails for extent in self.extent)

    def serves(
        self, positions: Float[Array, "atoms 3"], atom_mask: Bool[Array, "atoms"]
    ) -> Bool[Array, ""]:
        """Whether atoms lie in the box and the sphere that the grid is for.

        Args:
            positions: Å.
            atom_mask: False for padding atoms.
        """
        positions, mask = jax.lax.stop_gradient(positions), atom_mask[:, None]
        highest = jnp.max(jnp.where(mask, positions, -jnp.inf), axis=0)
        lowest = jnp.min(jnp.where(mask, positions, jnp.inf), axis=0)
        squared = jnp.sum((positions - 0.5 * (highest + lowest)) ** 2, axis=1)
        furthest = jnp.sqrt(jnp.max(jnp.where(atom_mask, squared, 0.0)))
        extent = jnp.asarray(self.extent, positions.dtype)
        fits = jnp.all(highest - lowest <= (1.0 + _ROUND_OFF) * extent)
        return fits & (2.0 * furthest <= (1.0 + _ROUND_OFF) * self.diameter)


_ROUND_OFF = 1e-6


def common_mesh(meshes: Iterable[Mesh | None]) -> Mesh | None:
    """The coarsest grid that is fine enough for each of several structures.

    Args:
        meshes: of structures of one model; None where the sums are direct.

    Raises:
        MeshError: some of the structures have a mesh and others have none.
    """
    found = set(meshes)
    if len(found) <= 1:
        return next(iter(found), None)
    if None in found:
        raise MeshError("found structures with and without a mesh, expected one kind in a batch")
    return Mesh(
        shape=tuple(max(lengths) for lengths in zip(*(mesh.shape for mesh in found), strict=True)),
        order=max(mesh.order for mesh in found),
        spacing=min(mesh.spacing for mesh in found),
        skewness=max(mesh.skewness for mesh in found),
    )


def common_open_mesh(meshes: Iterable[OpenMesh | None]) -> OpenMesh | None:
    """The smallest grid that serves several structures without periodic direction.

    Args:
        meshes: of structures of one model; None where the sum is over pairs.

    Raises:
        MeshError: they are not for the same Gaussians.
    """
    found = {mesh for mesh in meshes if mesh is not None}
    if len(found) <= 1:
        return next(iter(found), None)
    kinds = {(mesh.mesh.order, mesh.mesh.spacing, mesh.tails) for mesh in found}
    if len(kinds) > 1:
        raise MeshError("found grids of several models, expected those of one in a batch")
    ((order, spacing, tails),) = kinds
    diameter = max(mesh.diameter for mesh in found)
    extents = [max(along) for along in zip(*(mesh.extent for mesh in found), strict=True)]
    return OpenMesh.around(extents, diameter, tails, order=order, spacing=spacing)
