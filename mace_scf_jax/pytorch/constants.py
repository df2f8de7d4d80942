"""Constants of a model that PyTorch state dicts hold beside the weights, as buffers."""

from __future__ import annotations

import numpy as np

from mace_scf_jax.models.families.fixed_point.density_update import SCALED_UPDATES
from mace_scf_jax.models.families.fixed_point.settings import FixedPointSettings
from mace_scf_jax.models.families.mace.settings import ScaleShiftSettings
from mace_scf_jax.models.formal_charges import FormalChargeSettings
from mace_scf_jax.models.settings import ModelSettings

UPDATE = "field_dependent_charges_map"
"""Name of the density update of FixedPoint."""
FAMILIES_WITH_HEADS = ("MACE", "ScaleShiftMACE", "MACEQEq")
"""Families whose atomic energies have one row per head."""


def state_constants(settings: ModelSettings) -> dict[str, np.ndarray]:
    """Buffers that hold settings of a model, by their state-dict names.

    Args:
        settings: of the model.
    """
    energies = np.array(settings.atomic_energies)
    if settings.family in FAMILIES_WITH_HEADS:
        energies = energies[None, :]
    constants = {
        "atomic_numbers": np.array(settings.elements),
        "r_max": np.array(settings.backbone.r_max),
        "num_interactions": np.array(settings.backbone.num_interactions),
        "atomic_energies_fn.atomic_energies": energies,
    }
    own = settings.own
    if isinstance(own, ScaleShiftSettings):
        constants["scale_shift.scale"] = np.array(own.scale)
        constants["scale_shift.shift"] = np.array(own.shift)
    if isinstance(own, FormalChargeSettings) and own.formal_charges is not None:
        constants["formal_charges.formal_charges"] = np.array(own.formal_charges)
    if isinstance(own, FixedPointSettings):
        constants |= _fixed_point_constants(settings)
    return constants


def _fixed_point_constants(settings: ModelSettings[FixedPointSettings]) -> dict[str, np.ndarray]:
    choices, receivers = settings.own, settings.electrostatics.features
    norms = np.reshape(choices.field_feature_norms, (receivers.max_l + 1, -1))
    constants = {
        "fermi_level_offset": np.array(choices.fermi_level_offset),
        "field_feature_norms": np.concatenate(
            [np.repeat(norms[degree], 2 * degree + 1) for degree in range(receivers.max_l + 1)]
        ),
    }
    if choices.update in SCALED_UPDATES:
        constants[f"{UPDATE}.atom_density_scale"] = np.array(choices.atom_density_scaling)
    if choices.linear_local_multipoles:
        for layer in range(settings.backbone.num_interactions):
            name = f"lr_source_maps.{layer}.atom_density_scale"
            constants[name] = np.array(choices.atom_density_scaling)
    return constants
