"""The model families by name."""

from __future__ import annotations

import flax.linen as nn

from mace_scf_jax.hints import unknown_name
from mace_scf_jax.models.families.energy_functional.model import EnergyFunctional
from mace_scf_jax.models.families.fixed_charges.model import FixedChargeBaselinedMACE
from mace_scf_jax.models.families.fixed_point.model import FixedPoint, check_fixed_point
from mace_scf_jax.models.families.local_charges.model import LocalCharges
from mace_scf_jax.models.families.mace.model import MACE, ScaleShiftMACE
from mace_scf_jax.models.families.qeq.model import MACEQEq
from mace_scf_jax.models.families.split_charges.model import LocalSplitCharges
from mace_scf_jax.models.settings import ModelSettings

FAMILIES: dict[str, type[nn.Module]] = {
    "MACE": MACE,
    "ScaleShiftMACE": ScaleShiftMACE,
    "LocalCharges": LocalCharges,
    "LocalSplitCharges": LocalSplitCharges,
    "FixedChargeBaselinedMACE": FixedChargeBaselinedMACE,
    "MACEQEq": MACEQEq,
    "EnergyFunctional": EnergyFunctional,
    "FixedPoint": FixedPoint,
}

SELF_CONSISTENT_FAMILIES = ("FixedPoint",)
"""Families whose multipoles have to be solved for: `evaluate_self_consistent` gives their outputs,
while the module itself computes a single step."""

CHARGED_FAMILIES = (
    "LocalCharges",
    "LocalSplitCharges",
    "FixedChargeBaselinedMACE",
    "MACEQEq",
    "EnergyFunctional",
    "FixedPoint",
)
"""Families that need electrostatic settings."""

FORMAL_CHARGE_FAMILIES = ("LocalSplitCharges", "FixedChargeBaselinedMACE")
"""Families that take formal charges, by element or from the data."""

SPLIT_CHARGE_FAMILIES = ("LocalSplitCharges",)
"""Families that need split-charge settings."""

CHARGE_EQUILIBRATION_FAMILIES = ("MACEQEq",)
"""Families that need settings of charge equilibration."""

ENERGY_FUNCTIONAL_FAMILIES = ("EnergyFunctional",)
"""Families that need settings of a learned energy functional."""

VARIATIONAL_FAMILIES = CHARGE_EQUILIBRATION_FAMILIES + ENERGY_FUNCTIONAL_FAMILIES
"""Families whose multipoles minimise an energy, and therefore respond to a field."""

CHARGES_ONLY_FAMILIES = ("FixedChargeBaselinedMACE", "MACEQEq")
"""Families whose multipoles are charges."""


def build(settings: ModelSettings) -> nn.Module:
    """The Flax module of a model.

    Args:
        settings: what defines the model.

    Raises:
        ValueError: an unknown family, or settings that are missing or do not belong to it.
    """
    if settings.family not in FAMILIES:
        raise ValueError(unknown_name("model", settings.family, FAMILIES))
    _check_belongs(settings, CHARGED_FAMILIES, settings.electrostatics, "electrostatic")
    _check_belongs(settings, SPLIT_CHARGE_FAMILIES, settings.split_charges, "split-charge")
    _check_belongs(
        settings,
        CHARGE_EQUILIBRATION_FAMILIES,
        settings.charge_equilibration,
        "charge-equilibration",
    )
    _check_belongs(
        settings, ENERGY_FUNCTIONAL_FAMILIES, settings.energy_functional, "energy-functional"
    )
    _check_belongs(settings, SELF_CONSISTENT_FAMILIES, settings.fixed_point, "fixed-point")
    if settings.fixed_point is not None:
        check_fixed_point(settings)
    if (
        settings.family in ENERGY_FUNCTIONAL_FAMILIES
        and not settings.electrostatics.include_self_interaction
    ):
        raise ValueError(
            f"model {settings.family}: expected include_electrostatic_self_interaction: true, "
            "because the energy has no minimum for certain without it"
        )
    if settings.formal_charges is not None and settings.family not in FORMAL_CHARGE_FAMILIES:
        raise ValueError(f"model {settings.family} has no formal charges")
    if settings.family in CHARGES_ONLY_FAMILIES and settings.electrostatics.max_l != 0:
        raise ValueError(
            f"model {settings.family}: expected charges only (max_l 0), "
            f"found max_l {settings.electrostatics.max_l}"
        )
    return FAMILIES[settings.family](settings)


def _check_belongs(
    settings: ModelSettings, families: tuple[str, ...], part: object | None, name: str
) -> None:
    """Refuse settings that a family needs and lacks, or has and does not need."""
    if settings.family in families and part is None:
        raise ValueError(f"model {settings.family} needs {name} settings")
    if settings.family not in families and part is not None:
        raise ValueError(f"model {settings.family} has no {name} settings")
