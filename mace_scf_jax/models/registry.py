"""The model families by name."""

from __future__ import annotations

import flax.linen as nn

from mace_scf_jax.hints import unknown_name
from mace_scf_jax.models.local_charges import LocalCharges
from mace_scf_jax.models.mace import MACE, ScaleShiftMACE
from mace_scf_jax.models.settings import ModelSettings

FAMILIES: dict[str, type[nn.Module]] = {
    "MACE": MACE,
    "ScaleShiftMACE": ScaleShiftMACE,
    "LocalCharges": LocalCharges,
}

CHARGED_FAMILIES = ("LocalCharges",)
"""Families that need electrostatic settings."""


def build(settings: ModelSettings) -> nn.Module:
    """The Flax module of a model.

    Args:
        settings: what defines the model.

    Raises:
        ValueError: an unknown family, or electrostatic settings missing or superfluous.
    """
    if settings.family not in FAMILIES:
        raise ValueError(unknown_name("model", settings.family, FAMILIES))
    needs_charges = settings.family in CHARGED_FAMILIES
    if needs_charges != (settings.electrostatics is not None):
        problem = "needs electrostatic settings" if needs_charges else "has no electrostatics"
        raise ValueError(f"model {settings.family} {problem}")
    return FAMILIES[settings.family](settings)
