"""Networks from structures to equivariant features of atoms, one folder and one line each."""

from mace_scf_jax.backbones import mace
from mace_scf_jax.backbones.backbone import (
    BACKBONES,
    DEFAULT_BACKBONE,
    Backbone,
    BackboneOutput,
    BackboneSettings,
    EdgeFeatures,
    Offer,
    as_tuples,
    settings_from_dict,
)
from mace_scf_jax.backbones.mace.network import MACEBackbone
from mace_scf_jax.backbones.mace.radial import RADIAL_BASES, RadialBasis
from mace_scf_jax.backbones.mace.settings import MACESettings

for backbone in (mace.BACKBONE,):
    BACKBONES.add(backbone)

__all__ = [
    "BACKBONES",
    "DEFAULT_BACKBONE",
    "RADIAL_BASES",
    "Backbone",
    "BackboneOutput",
    "BackboneSettings",
    "EdgeFeatures",
    "MACEBackbone",
    "MACESettings",
    "Offer",
    "RadialBasis",
    "as_tuples",
    "settings_from_dict",
]
