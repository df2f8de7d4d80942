"""Networks from structures to equivariant features of atoms, one folder and one line each."""

from typing import TYPE_CHECKING

from mace_scf_jax.late import imported_late

if TYPE_CHECKING:
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
    from mace_scf_jax.backbones.chebyshev.descriptor import Descriptor
    from mace_scf_jax.backbones.chebyshev.normalisation import FeatureStatistics
    from mace_scf_jax.backbones.chebyshev.settings import ChebyshevSettings
    from mace_scf_jax.backbones.mace.choices import RADIAL_BASES, RadialBasis
    from mace_scf_jax.backbones.mace.network import MACEBackbone
    from mace_scf_jax.backbones.mace.settings import MACESettings

__all__ = [
    "BACKBONES",
    "DEFAULT_BACKBONE",
    "RADIAL_BASES",
    "Backbone",
    "BackboneOutput",
    "BackboneSettings",
    "ChebyshevSettings",
    "Descriptor",
    "EdgeFeatures",
    "FeatureStatistics",
    "MACEBackbone",
    "MACESettings",
    "Offer",
    "RadialBasis",
    "as_tuples",
    "settings_from_dict",
]

__getattr__, __dir__ = imported_late(__name__, __file__)
