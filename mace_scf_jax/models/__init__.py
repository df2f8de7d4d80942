"""Model families: backbone and electrostatics put together, and their observables."""

from mace_scf_jax.models.families.energy_functional.settings import EnergyFunctionalSettings
from mace_scf_jax.models.families.fixed_point.model import FixedPoint, LocalState
from mace_scf_jax.models.families.fixed_point.self_consistency import (
    SCFState,
    evaluate_direct,
    evaluate_self_consistent,
)
from mace_scf_jax.models.families.fixed_point.self_consistency_settings import (
    DirectStep,
    InitialDensity,
    InitialFermiLevel,
    SelfConsistency,
)
from mace_scf_jax.models.families.fixed_point.settings import FixedPointSettings
from mace_scf_jax.models.families.qeq.settings import ChargeEquilibrationSettings
from mace_scf_jax.models.families.split_charges.settings import SplitChargeSettings
from mace_scf_jax.models.inputs import check_inputs, required_inputs
from mace_scf_jax.models.observables import evaluate
from mace_scf_jax.models.registry import (
    CHARGE_EQUILIBRATION_FAMILIES,
    CHARGED_FAMILIES,
    CHARGES_ONLY_FAMILIES,
    ENERGY_FUNCTIONAL_FAMILIES,
    FAMILIES,
    FORMAL_CHARGE_FAMILIES,
    SELF_CONSISTENT_FAMILIES,
    SPLIT_CHARGE_FAMILIES,
    VARIATIONAL_FAMILIES,
    build,
)
from mace_scf_jax.models.response import (
    DipoleResponse,
    NoDipoleError,
    dipole_response,
    infrared_intensities,
)
from mace_scf_jax.models.settings import ModelSettings

__all__ = [
    "CHARGED_FAMILIES",
    "CHARGES_ONLY_FAMILIES",
    "CHARGE_EQUILIBRATION_FAMILIES",
    "ENERGY_FUNCTIONAL_FAMILIES",
    "FAMILIES",
    "FORMAL_CHARGE_FAMILIES",
    "SELF_CONSISTENT_FAMILIES",
    "SPLIT_CHARGE_FAMILIES",
    "VARIATIONAL_FAMILIES",
    "ChargeEquilibrationSettings",
    "DipoleResponse",
    "DirectStep",
    "EnergyFunctionalSettings",
    "FixedPoint",
    "FixedPointSettings",
    "InitialDensity",
    "InitialFermiLevel",
    "LocalState",
    "ModelSettings",
    "NoDipoleError",
    "SCFState",
    "SelfConsistency",
    "SplitChargeSettings",
    "build",
    "check_inputs",
    "dipole_response",
    "evaluate",
    "evaluate_direct",
    "evaluate_self_consistent",
    "infrared_intensities",
    "required_inputs",
]
