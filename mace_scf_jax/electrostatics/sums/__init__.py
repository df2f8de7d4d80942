"""The ways to sum over a density; each is a `Summation`."""

from __future__ import annotations

from typing import Protocol

from jaxtyping import Array, Float

from mace_scf_jax.electrostatics.gaussians import Receivers
from mace_scf_jax.electrostatics.sums.by_periodicity import SumByPeriodicity
from mace_scf_jax.electrostatics.sums.direct import DirectSum
from mace_scf_jax.electrostatics.sums.displaced import DisplacedSum
from mace_scf_jax.electrostatics.sums.mesh import MeshSum
from mace_scf_jax.electrostatics.sums.open import OpenSum
from mace_scf_jax.electrostatics.sums.truncation import Truncation

__all__ = ["DirectSum", "DisplacedSum", "MeshSum", "OpenSum", "SumByPeriodicity", "Truncation"]


class Summation(Protocol):
    """Sums over Gaussian multipoles in e Å^l of one geometry, own atoms included."""

    @property
    def has_pair_sums(self) -> bool:
        """Whether `matrix` can be had: the sums keep what each pair of atoms needs."""

    def energy(self, multipoles: Float[Array, "atoms components"]) -> Float[Array, ""]:
        """Coulomb energy of the density with itself in eV."""

    def project(
        self,
        multipoles: Float[Array, "atoms components"],
        receivers: Receivers,
        points: Float[Array, "points 3"] | None = None,
    ) -> Float[Array, "points widths receiver_components"]:
        """Potential of the density projected on unit-moment Gaussians, ∫ V φ_lm in V/Å^l.

        Args:
            multipoles: zero for padding atoms.
            receivers: widths (0 gives the potential and its derivatives) and degree.
            points: centres of the receivers in Å; the atoms if not given.
        """

    def matrix(
        self, receivers: Receivers
    ) -> Float[Array, "atoms widths receiver_components atoms components"]:
        """What `project` does at the atoms, as a matrix, in V/Å^l per e Å^l."""
