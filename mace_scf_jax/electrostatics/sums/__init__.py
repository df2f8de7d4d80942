"""The ways to sum over a density; each is a `Summation`."""

from mace_scf_jax.electrostatics.sums.direct import DirectSum
from mace_scf_jax.electrostatics.sums.mesh import MeshSum
from mace_scf_jax.electrostatics.sums.open import OpenSum

__all__ = ["DirectSum", "MeshSum", "OpenSum"]
