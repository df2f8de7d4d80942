"""Potential embeddings: node features from the field features of an atom.

Field features hold one channel for each receiver width, multipoles one channel; both may be
embedded.
"""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from mace_scf_jax.layers.features import Features
from mace_scf_jax.layers.linear import ElementLinear, EquivariantLinear
from mace_scf_jax.layers.notation import Multiplicities

TANH_WIDTHS = tuple(np.logspace(0.0, 1.0, 5).tolist())
"""Scales on which `TanhPotentialEmbedding` resolves field features."""


class LinearPotentialEmbedding(nn.Module):
    """Linear map of the field features with weights of the element.

    Attributes:
        multiplicities: channels per degree of the node features.
        num_elements: number of elements.
    """

    multiplicities: Multiplicities
    num_elements: int

    @nn.compact
    def __call__(
        self, potential: Features, features: Features, species: Int[Array, "atoms"]
    ) -> Features:
        """Embed field features [atoms, 2l+1, widths] of atoms with the given node features."""
        return ElementLinear(self.multiplicities, self.num_elements, name="potential")(
            potential, species
        )


class BiasedLinearPotentialEmbedding(nn.Module):
    """Linear map of the field features with weights of the element, plus one of node features.

    Attributes:
        multiplicities: channels per degree of the node features.
        num_elements: number of elements.
    """

    multiplicities: Multiplicities
    num_elements: int

    @nn.compact
    def __call__(
        self, potential: Features, features: Features, species: Int[Array, "atoms"]
    ) -> Features:
        """Embed field features [atoms, 2l+1, widths] of atoms with the given node features."""
        embedded = ElementLinear(self.multiplicities, self.num_elements, name="potential")(
            potential, species
        )
        bias = EquivariantLinear(self.multiplicities, name="features")(features)
        return {degree: value + bias[degree] for degree, value in embedded.items()}


class TanhPotentialEmbedding(nn.Module):
    """Linear map of tanh(v / w) for several scales w, plus a linear map of node features.

    The tanh acts on every component by itself, as in the reference: with field features of degree
    above zero the embedding is **not** equivariant under rotations.

    Attributes:
        multiplicities: channels per degree of the node features.
        num_elements: number of elements; the weights do not depend on the element.
    """

    multiplicities: Multiplicities
    num_elements: int

    @nn.compact
    def __call__(
        self, potential: Features, features: Features, species: Int[Array, "atoms"]
    ) -> Features:
        """Embed field features [atoms, 2l+1, widths] of atoms with the given node features."""
        bounded = {
            degree: jnp.concatenate([jnp.tanh(value / width) for width in TANH_WIDTHS], axis=-1)
            for degree, value in potential.items()
        }
        embedded = EquivariantLinear(self.multiplicities, bias=True, name="potential")(bounded)
        bias = EquivariantLinear(self.multiplicities, name="features")(features)
        return {degree: value + bias[degree] for degree, value in embedded.items()}


EMBEDDINGS: dict[str, type[nn.Module]] = {
    "LinearPotentialEmbedding": LinearPotentialEmbedding,
    "BiasedLinearPotentialEmbedding": BiasedLinearPotentialEmbedding,
    "TanhPotentialEmbedding": TanhPotentialEmbedding,
}
"""Potential embeddings by the name of the option."""
