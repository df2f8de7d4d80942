"""ChebyshevANN: a neural network per element on invariant descriptors, without charges (ænet)."""

from mace_scf_jax.backbones import Offer
from mace_scf_jax.models.families.chebyshev_ann.model import ChebyshevANN
from mace_scf_jax.models.family import Family

FAMILY = Family(
    name="ChebyshevANN",
    module=ChebyshevANN,
    backbone="chebyshev",
    needs=frozenset({Offer.DESCRIPTORS}),
)
