"""The MACE network: many-body equivariant message passing."""

from mace_scf_jax.backbones.backbone import BACKBONES, Backbone, Offer
from mace_scf_jax.backbones.mace.settings import MACEOptions, MACESettings
from mace_scf_jax.late import place
from mace_scf_jax.parameter_group import WEIGHT_DECAY, ParameterGroup

BACKBONE = BACKBONES.add(
    Backbone(
        name="MACE",
        module=place("mace_scf_jax.backbones.mace.network:MACEBackbone"),
        settings=MACESettings,
        options=MACEOptions,
        groups={
            r"(input_)?embedding/": ParameterGroup("embedding"),
            # Weight decay applies to the map of the messages alone.
            r"interaction_\d+/(.*/)?linear(/|$)": ParameterGroup(
                "interactions_decay", WEIGHT_DECAY
            ),
            r"interaction_\d+/": ParameterGroup("interactions_no_decay"),
            r"product_\d+/": ParameterGroup("products", WEIGHT_DECAY),
            r"(readout_\d+|embedding_readout)/": ParameterGroup("readouts"),
        },
        offers=frozenset({Offer.DEGREES, Offer.EDGES, Offer.EMBEDDING, Offer.HEADS}),
        unscaled_by_element=r"product_\d+/contraction/",
    )
)
