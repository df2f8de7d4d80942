"""ChebyshevANN: a neural network per element on invariant descriptors, without charges (ænet)."""

from mace_scf_jax.backbones.backbone import Offer
from mace_scf_jax.late import place
from mace_scf_jax.models.family import Family

FAMILY = Family(
    name="ChebyshevANN",
    module=place("mace_scf_jax.models.families.chebyshev_ann.model:ChebyshevANN"),
    backbone="chebyshev",
    needs=frozenset({Offer.DESCRIPTORS}),
)
