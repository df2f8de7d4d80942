"""Sums of the boundary condition ``exact``: what a structure has of periodic directions decides.

A batch can mix crystals, slabs and open structures. Each has two sums, of which one is nothing: a
structure without periodic direction has no wavevector, and one with some has no open multipoles.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mace_scf_jax.electrostatics.gaussians import Receivers
from mace_scf_jax.electrostatics.sums.direct import DirectSum
from mace_scf_jax.electrostatics.sums.mesh import MeshSum
from mace_scf_jax.electrostatics.sums.open import OpenSum
from mace_scf_jax.mesh import MeshError


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SumByPeriodicity:
    """The sum over wavevectors of a structure with periodic directions, or over pairs of atoms."""

    periodic: DirectSum | MeshSum
    """Of crystals and slabs."""
    unbounded: OpenSum | MeshSum
    """Of open structures: over pairs of their atoms, or on a grid around them."""
    is_open: Bool[Array, ""]
    """Whether the structure has no periodic direction."""
    normal: Float[Array, "3"]
    """Unit vector along the open direction of a slab."""
    heights: Float[Array, "2"]
    """Range along `normal`, in Å, in which the potential of a slab holds; infinite for others."""
    open_slots: int = dataclasses.field(metadata={"static": True})
    """Slots that open structures fill at most."""

    @property
    def has_pair_sums(self) -> bool:
        """Whether `matrix` can be had."""
        return self.periodic.has_pair_sums and self.unbounded.has_pair_sums

    def energy(self, multipoles: Float[Array, "atoms components"]) -> Float[Array, ""]:
        """Coulomb energy in eV; see `Summation`."""
        unbounded = self.unbounded.energy(self._open_part(multipoles))
        return self.periodic.energy(multipoles) + unbounded

    def project(
        self,
        multipoles: Float[Array, "atoms components"],
        receivers: Receivers,
        points: Float[Array, "points 3"] | None = None,
    ) -> Float[Array, "points widths receiver_components"]:
        """Projections ∫ V φ_lm in V/Å^l; see `Summation`.

        They are NaN at points so far from a slab that they would see its copy.

        Raises:
            MeshError: the potential of an open structure on a grid is asked for at other points.
        """
        if points is not None and isinstance(self.unbounded, MeshSum):
            raise MeshError(
                "potential at points around an open structure: found a sum on a mesh, which ends "
                "at the atoms; expected sums 'direct'"
            )
        projections = self.periodic.project(multipoles, receivers, points)
        unbounded = self.unbounded.project(self._open_part(multipoles), receivers, points)
        projections = projections.at[: len(unbounded)].add(unbounded)
        if points is None:
            return projections
        height = points @ self.normal
        holds = (height >= self.heights[0]) & (height <= self.heights[1])
        return jnp.where(holds[:, None, None], projections, jnp.nan)

    def matrix(
        self, receivers: Receivers
    ) -> Float[Array, "atoms widths receiver_components atoms components"]:
        """Projections of every multipole in V/Å^l per e Å^l; see `Summation`."""
        unbounded = jnp.where(self.is_open, self.unbounded.matrix(receivers), 0.0)
        slots = self.open_slots
        return self.periodic.matrix(receivers).at[:slots, :, :, :slots].add(unbounded)

    def _open_part(self, multipoles: Float[Array, "atoms components"]) -> Array:
        return jnp.where(self.is_open, multipoles[: self.open_slots], 0.0)
