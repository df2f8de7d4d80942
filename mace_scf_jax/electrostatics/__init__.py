"""Electrostatics of Gaussian multipoles: energies, field features and potentials.

Everything here is a pure function of arrays, for any degree l ≤ 3 and every boundary condition.
A `System` is one prepared geometry, and `system_…` functions apply to it: its `Summation`, one of
`sums`, and the corrections are one linear operator of the multipoles (`operator`). `batch_…`
functions map them over the graphs of a batch, so atoms of different graphs are never paired.
"""

from typing import TYPE_CHECKING

from mace_scf_jax.late import imported_late

if TYPE_CHECKING:
    from mace_scf_jax.boundary import (
        ALLOWED_PBC,
        BoundaryError,
        BoundaryMode,
        boundary_fault,
        check_pbc,
        check_slab_cell,
        resolve_boundary,
    )
    from mace_scf_jax.electrostatics.features import (
        batch_external_field_features,
        batch_field_features,
        external_field_features,
        features_by_degree,
        system_field_features,
    )
    from mace_scf_jax.electrostatics.gaussians import Receivers
    from mace_scf_jax.electrostatics.mesh_choice import choose_mesh, choose_open_mesh, uses_mesh
    from mace_scf_jax.electrostatics.moments import (
        atomic_dipole_contributions,
        batch_dipole,
        batch_external_field_energy,
        batch_surplus_dipole,
        batch_total_charge,
        dipole_cartesian,
    )
    from mace_scf_jax.electrostatics.operator import (
        batch_atomic_potentials,
        batch_coulomb_energy,
        system_coulomb_gradient,
        system_coulomb_matrix,
        system_energy,
        system_matrix,
        system_potential,
        system_projections,
    )
    from mace_scf_jax.electrostatics.response import Response, prepare_response
    from mace_scf_jax.electrostatics.settings import (
        ElectrostaticsSettings,
        ElectrostaticsSettingsError,
        FieldFeatureSettings,
        SummationMethod,
    )
    from mace_scf_jax.electrostatics.sums import Summation
    from mace_scf_jax.electrostatics.system import (
        ElectrostaticsInputError,
        System,
        check_inputs,
        prepare,
        prepare_batch,
    )
    from mace_scf_jax.mesh import Mesh, MeshError, OpenMesh

__all__ = [
    "ALLOWED_PBC",
    "BoundaryError",
    "BoundaryMode",
    "ElectrostaticsInputError",
    "ElectrostaticsSettings",
    "ElectrostaticsSettingsError",
    "FieldFeatureSettings",
    "Mesh",
    "MeshError",
    "OpenMesh",
    "Receivers",
    "Response",
    "Summation",
    "SummationMethod",
    "System",
    "atomic_dipole_contributions",
    "batch_atomic_potentials",
    "batch_coulomb_energy",
    "batch_dipole",
    "batch_external_field_energy",
    "batch_external_field_features",
    "batch_field_features",
    "batch_surplus_dipole",
    "batch_total_charge",
    "boundary_fault",
    "check_inputs",
    "check_pbc",
    "check_slab_cell",
    "choose_mesh",
    "choose_open_mesh",
    "dipole_cartesian",
    "external_field_features",
    "features_by_degree",
    "prepare",
    "prepare_batch",
    "prepare_response",
    "resolve_boundary",
    "system_coulomb_gradient",
    "system_coulomb_matrix",
    "system_energy",
    "system_field_features",
    "system_matrix",
    "system_potential",
    "system_projections",
    "uses_mesh",
]

__getattr__, __dir__ = imported_late(__name__, __file__)
