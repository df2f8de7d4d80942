"""How periodic sums are done, and the grid of a mesh sum: static choices, made on the host."""

from __future__ import annotations

import dataclasses
import enum


class MeshError(ValueError):
    """A mesh sum was asked for that cannot be done."""


class SummationMethod(enum.StrEnum):
    """How the sums over reciprocal vectors are done."""

    DIRECT = "direct"
    """Term by term; cost grows as atoms × vectors."""
    MESH = "mesh"
    """On a grid, by fast Fourier transforms; cost grows as atoms × log(atoms)."""
    AUTO = "auto"
    """The cheaper one; resolved on the host."""


@dataclasses.dataclass(frozen=True)
class Mesh:
    """Grid of a mesh sum and the order of its splines."""

    shape: tuple[int, int, int]
    """Number of grid points along each lattice vector."""
    order: int
    """Order p of the B-splines: each atom touches p³ grid points."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(int(length) for length in self.shape))
        if len(self.shape) != 3 or min(self.shape) < self.order:
            raise MeshError(
                f"a mesh needs three axes of at least {self.order} points (the order of its "
                f"splines), found shape {self.shape}"
            )
        if self.order < 2:
            raise MeshError(f"the order of the splines must be at least 2, found {self.order}")

    @property
    def num_points(self) -> int:
        """Number of grid points."""
        return self.shape[0] * self.shape[1] * self.shape[2]
