"""The Chebyshev backbone: invariant descriptors of atoms, and networks per element (ænet)."""

from mace_scf_jax.backbones.backbone import Backbone, Offer
from mace_scf_jax.backbones.chebyshev.network import ChebyshevBackbone
from mace_scf_jax.backbones.chebyshev.options import ChebyshevOptions
from mace_scf_jax.backbones.chebyshev.settings import ChebyshevSettings
from mace_scf_jax.parameter_group import WEIGHT_DECAY, ParameterGroup

BACKBONE = Backbone(
    name="chebyshev",
    module=ChebyshevBackbone,
    settings=ChebyshevSettings,
    options=ChebyshevOptions,
    groups={r"energy/": ParameterGroup("networks", WEIGHT_DECAY)},
    offers=frozenset({Offer.DESCRIPTORS}),
)
