"""Electrostatics of Gaussian multipoles: energies for every boundary condition.

Everything here is a pure function of arrays. Kernels (`reciprocal`, `open_boundary`,
`corrections`, `moments`) treat one system of static shape; `batch_…` functions map them over the
graphs of a batch, so atoms of different graphs are never paired.
"""

from mace_scf_jax.electrostatics.boundary import (
    ALLOWED_PBC,
    BoundaryError,
    BoundaryMode,
    check_pbc,
    resolve_boundary,
)
from mace_scf_jax.electrostatics.energy import batch_coulomb_energy, coulomb_energy
from mace_scf_jax.electrostatics.moments import (
    batch_dipole,
    batch_external_field_energy,
    batch_total_charge,
    dipole_cartesian,
)
from mace_scf_jax.electrostatics.settings import (
    ElectrostaticsSettings,
    ElectrostaticsSettingsError,
    FieldFeatureSettings,
)

__all__ = [
    "ALLOWED_PBC",
    "BoundaryError",
    "BoundaryMode",
    "ElectrostaticsSettings",
    "ElectrostaticsSettingsError",
    "FieldFeatureSettings",
    "batch_coulomb_energy",
    "batch_dipole",
    "batch_external_field_energy",
    "batch_total_charge",
    "check_pbc",
    "coulomb_energy",
    "dipole_cartesian",
    "resolve_boundary",
]
