"""Model families: backbone and electrostatics put together, and their observables."""

from typing import TYPE_CHECKING

from mace_scf_jax.late import imported_late

if TYPE_CHECKING:
    from mace_scf_jax.data.training_set import TrainingSet
    from mace_scf_jax.models import families
    from mace_scf_jax.models.energies import density_outputs, energy_outputs, layer_terms
    from mace_scf_jax.models.families.energy_functional.settings import EnergyFunctionalSettings
    from mace_scf_jax.models.families.fixed_point.choices import (
        FIELD_READOUTS,
        FieldReadout,
        InitialDensity,
        InitialFermiLevel,
    )
    from mace_scf_jax.models.families.fixed_point.model import FixedPoint, LocalState
    from mace_scf_jax.models.families.fixed_point.self_consistency import SCFState
    from mace_scf_jax.models.families.fixed_point.settings import FixedPointSettings
    from mace_scf_jax.models.families.fixed_point.solved_state import DirectStep, SelfConsistency
    from mace_scf_jax.models.families.local_charges.settings import LocalChargesSettings
    from mace_scf_jax.models.families.mace.model import ScaleShiftSettings
    from mace_scf_jax.models.families.polar_mace.settings import PolarMACESettings
    from mace_scf_jax.models.families.qeq.settings import ChargeEquilibrationSettings
    from mace_scf_jax.models.families.split_charges.settings import SplitChargeSettings
    from mace_scf_jax.models.family import FAMILIES, Family, FamilySettings, families_with
    from mace_scf_jax.models.forces_and_stress import evaluate
    from mace_scf_jax.models.formal_charges import FormalChargeSettings
    from mace_scf_jax.models.outputs import OUTPUTS, Output, Use
    from mace_scf_jax.models.response import (
        DipoleResponse,
        NoDipoleError,
        dipole_response,
        infrared_intensities,
    )
    from mace_scf_jax.models.settings import ModelSettings, build, check_inputs, required_inputs
    from mace_scf_jax.parameter_group import ParameterGroup

__all__ = [
    "FAMILIES",
    "FIELD_READOUTS",
    "OUTPUTS",
    "ChargeEquilibrationSettings",
    "DipoleResponse",
    "DirectStep",
    "EnergyFunctionalSettings",
    "Family",
    "FamilySettings",
    "FieldReadout",
    "FixedPoint",
    "FixedPointSettings",
    "FormalChargeSettings",
    "InitialDensity",
    "InitialFermiLevel",
    "LocalChargesSettings",
    "LocalState",
    "ModelSettings",
    "NoDipoleError",
    "Output",
    "ParameterGroup",
    "PolarMACESettings",
    "SCFState",
    "ScaleShiftSettings",
    "SelfConsistency",
    "SplitChargeSettings",
    "TrainingSet",
    "Use",
    "build",
    "check_inputs",
    "density_outputs",
    "dipole_response",
    "energy_outputs",
    "evaluate",
    "families",
    "families_with",
    "infrared_intensities",
    "layer_terms",
    "required_inputs",
]

__getattr__, __dir__ = imported_late(__name__, __file__)
