"""One step of the multipoles of both spins in their potential, and the energy they have in it."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mace_scf_jax.layers.features import Features, add_up
from mace_scf_jax.layers.linear import ElementEmbedding, EquivariantLinear
from mace_scf_jax.layers.normalised_network import NormalisedNetwork
from mace_scf_jax.layers.readout import NonlinearReadout
from mace_scf_jax.models.families.fixed_point.invariant_nonlinearities import (
    ChannelDots,
    ChannelScaling,
)

INVARIANT_WIDTHS = (64, 64, 64)
"""Hidden widths of the network of the invariants."""
READOUT_CHANNELS = 32
"""Channels of every degree in the hidden layers of the readout."""
READOUT_GATE = "silu"
ENERGY_WIDTHS = (128, 128, 128, 1)
"""Widths of the network of the energy."""
SPINS = 2


def _sum(*terms: Features) -> Features:
    """Return the sum of features of the same degrees and channels."""
    return {degree: add_up(term[degree] for term in terms) for degree in terms[0]}


class SpinUpdate(nn.Module):
    """Change of the multipoles, and the Fukui weights that share out what total charges lack.

    Potential v, node features h and multipoles p are embedded together, and compared with h:

        m = Linear(v) + Linear(h) + Linear(p),   g = Network(h · m, element),
        Δp, φ = Readout(h ∘ g).

    Attributes:
        max_l: highest degree of the multipoles.
        num_elements: number of elements.
    """

    max_l: int
    num_elements: int

    @nn.compact
    def __call__(
        self,
        features: Features,
        potential: Features,
        density: Features,
        species: Int[Array, "atoms"],
    ) -> tuple[Features, Float[Array, "atoms 2"]]:
        """Return changes of degrees 0 … max_l, [atoms, 2l+1, 2], and Fukui weights.

        Args:
            features: mixed node features.
            potential: normalised field features; channels: widths, of the first spin, then of the
                second.
            density: multipoles, one channel of each spin.
            species: element index of each atom.
        """
        same = {degree: value.shape[-1] for degree, value in features.items()}
        embedded = _sum(
            EquivariantLinear(same, name="potential")(potential),
            EquivariantLinear(same, name="features")(features),
            EquivariantLinear(same, name="multipoles")(density),
        )
        elements = ElementEmbedding(same[0], self.num_elements, name="element")(
            jnp.arange(self.num_elements)
        )[:, 0]
        gains = NormalisedNetwork((*INVARIANT_WIDTHS, same[0]), name="nonlinearity")(
            ChannelDots(name="dots")(features, embedded), (elements, species)
        )
        degrees = range(self.max_l + 1)
        read = NonlinearReadout(
            {degree: SPINS + (SPINS if degree == 0 else 0) for degree in degrees},
            dict.fromkeys(degrees, READOUT_CHANNELS),
            READOUT_GATE,
            num_hidden=2,
            bias=True,
            name="readout",
        )(ChannelScaling(name="scaling")(features, gains))
        scalars = read[0]
        return {**read, 0: scalars[..., :SPINS]}, scalars[:, 0, SPINS:]


class ElectronEnergy(nn.Module):
    """Energy of an atom's multipoles in their potential, a network of h · Lq and h · Lv."""

    @nn.compact
    def __call__(
        self, features: Features, density: Features, potential: Features
    ) -> Float[Array, "atoms"]:
        """Energy of every atom in eV.

        Args:
            features: node features of the last layer, h.
            density: q, final and local multipoles added up, one channel of each spin.
            potential: v, normalised field features of both spins.
        """
        same = {degree: value.shape[-1] for degree, value in features.items()}
        invariants = [
            ChannelDots(name=f"{name}_dots")(
                features, EquivariantLinear(same, bias=True, name=name)(given)
            )
            for name, given in (("multipoles", density), ("potential", potential))
        ]
        network = NormalisedNetwork(ENERGY_WIDTHS, name="energy")
        return network(jnp.concatenate(invariants, axis=-1))[:, 0]
