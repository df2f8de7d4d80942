"""The Chebyshev backbone: invariant descriptors of atoms, and networks per element (ænet)."""

from mace_scf_jax.backbones.backbone import BACKBONES, Backbone, Offer
from mace_scf_jax.backbones.chebyshev.options import ChebyshevOptions
from mace_scf_jax.late import place
from mace_scf_jax.parameter_group import WEIGHT_DECAY, ParameterGroup

BACKBONE = BACKBONES.add(
    Backbone(
        name="chebyshev",
        module=place("mace_scf_jax.backbones.chebyshev.network:ChebyshevBackbone"),
        settings=place("mace_scf_jax.backbones.chebyshev.settings:ChebyshevSettings"),
        options=ChebyshevOptions,
        groups={r"energy/": ParameterGroup("networks", WEIGHT_DECAY)},
        offers=frozenset({Offer.DESCRIPTORS}),
    )
)
