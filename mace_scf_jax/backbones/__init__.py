"""The MACE layers in Flax: equivariant features of atoms from their neighbourhoods."""

from mace_scf_jax.backbones.mace.network import BackboneOutput, EdgeFeatures, MACEBackbone
from mace_scf_jax.backbones.mace.settings import BackboneSettings

__all__ = ["BackboneOutput", "BackboneSettings", "EdgeFeatures", "MACEBackbone"]
