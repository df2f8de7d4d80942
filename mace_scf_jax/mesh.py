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
