"""Formal charges as features: their expansion, and how it changes other features."""

from __future__ import annotations

import math

import flax.linen as nn
from jaxtyping import Array, Float

from mace_scf_jax.backbones.mace.radial import chebyshev_basis
from mace_scf_jax.layers.drawn import unit_normal
from mace_scf_jax.layers.features import Features
from mace_scf_jax.layers.linear import EquivariantLinear, FullyConnectedTensorProduct
from mace_scf_jax.models.families.split_charges.options import (
    SUM_MIXER,
)

NUM_POLYNOMIALS = 8


class OxidationStateEmbedding(nn.Module):
    """Linear map, with bias, of the Chebyshev polynomials T_1 … T_8 of the formal charge.

    Attributes:
        channels: number of scalar channels.
        charge_range: lowest and highest formal charge in e, mapped to -1 and 1.
    """

    channels: int
    charge_range: tuple[float, float]

    @nn.compact
    def __call__(self, formal_charges: Float[Array, "atoms"]) -> Float[Array, "atoms 1 channels"]:
        """Scalars of every atom from its formal charge in e."""
        low, high = self.charge_range
        scaled = 2.0 * (formal_charges - low) / (high - low) - 1.0
        polynomials = chebyshev_basis(scaled, 1.0, NUM_POLYNOMIALS)[:, None, :]
        return EquivariantLinear({0: self.channels}, bias=True, name="linear")({0: polynomials})[0]


class OxidationStateMixer(nn.Module):
    """Adds the embedded formal charge to the initial features, or multiplies them by it.

    Attributes:
        kind: `SUM_MIXER` or `PRODUCT_MIXER`.
        charge_range: range of formal charges in e.
    """

    kind: str
    charge_range: tuple[float, float]

    @nn.compact
    def __call__(self, features: Features, formal_charges: Float[Array, "atoms"]) -> Features:
        """New initial features from the element embedding, scalars only."""
        (scalars,) = features.values()
        channels = scalars.shape[-1]
        embedded = OxidationStateEmbedding(channels, self.charge_range, name="embedding")(
            formal_charges
        )
        if self.kind == SUM_MIXER:
            return {0: scalars + embedded}
        product = FullyConnectedTensorProduct({0: channels}, name="product")
        return product(features, {0: embedded})


class OxidationStateGate(nn.Module):
    """Multiplies every channel of every degree by a linear function of the embedded formal charge.

    Attributes:
        charge_range: range of formal charges in e.
    """

    charge_range: tuple[float, float]

    @nn.compact
    def __call__(self, features: Features, formal_charges: Float[Array, "atoms"]) -> Features:
        """Scaled features, degree -> [atoms, 2l+1, channels]."""
        channels = features[0].shape[-1]
        embedded = OxidationStateEmbedding(channels, self.charge_range, name="embedding")(
            formal_charges
        )
        gated: Features = {}
        for degree, value in features.items():
            weight = self.param(f"degree_{degree}", unit_normal, (channels, value.shape[-1]))
            gated[degree] = value * (embedded @ (weight / math.sqrt(channels)))
        return gated
