"""The nonlinear interaction block, which knows elements by their embeddings alone."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from mace_scf_jax.backbones.mace.messages import Edges, aggregate_messages, message_paths
from mace_scf_jax.layers.drawn import constant, zeros
from mace_scf_jax.layers.features import Features
from mace_scf_jax.layers.linear import ElementEmbedding, EquivariantLinear
from mace_scf_jax.layers.normalised_network import NormalisedNetwork
from mace_scf_jax.layers.notation import Multiplicities
from mace_scf_jax.layers.readout import GatedNonlinearity

DENSITY_WIDTHS = (64, 1)
"""Widths of the network of the neighbour density."""
FIRST_DIVISOR = 20.0
"""Of messages in new models."""
EMBEDDING_RANGE = 0.001
"""Largest element embedding in new models."""


def _small(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float_) -> Array:
    return jax.random.uniform(key, shape, dtype, -EMBEDDING_RANGE, EMBEDDING_RANGE)


class NonlinearInteraction(nn.Module):
    """Interaction whose radial functions know the elements, and whose messages are gated.

    With radial functions w of the basis b and embeddings a, c of sender and receiver, and a density
    ρ of the neighbours of another such network,

        m_i = Σ_j w(b_ij, a_j, c_i) Up(h_j) ⊗ Y_ij,
        u_i = Linear1(m_i) / (α + β ρ_i) + LinearRes(Up(h_i)),
        message_i = Linear2(gate(u_i)),     skip connection = Skip(h_i).

    Attributes:
        channels: channels of the messages.
        edge_multiplicities: channels per degree of the features that are sent along edges.
        skip_multiplicities: features returned by the skip connection.
        max_edge_degree: highest degree of edge harmonics and messages.
        radial_widths: hidden widths of the radial network.
        num_elements: number of elements.
    """

    channels: int
    edge_multiplicities: Multiplicities
    skip_multiplicities: Multiplicities
    max_edge_degree: int
    radial_widths: tuple[int, ...]
    num_elements: int

    @nn.compact
    def __call__(
        self, features: Features, species: Int[Array, "atoms"], edges: Edges
    ) -> tuple[Features, Features]:
        """Messages of degrees 0 … max_edge_degree, and the skip connection.

        Args:
            features: node features, degree -> [atoms, 2l+1, channels].
            species: element index of each atom.
            edges: geometry and weights of the edges.
        """
        paths = message_paths(
            tuple(self.edge_multiplicities), self.max_edge_degree, self.max_edge_degree
        )
        messages = dict.fromkeys(range(self.max_edge_degree + 1), self.channels)
        gated = GatedNonlinearity(messages, "silu")
        elements = (
            (self._embedding("source_embedding"), species[edges.senders]),
            (self._embedding("target_embedding"), species[edges.receivers]),
        )

        def network(*widths: int, name: str) -> Array:
            return NormalisedNetwork(widths, name=name)(edges.radial_basis, *elements)

        sent = EquivariantLinear(self.edge_multiplicities, name="linear_up")(features)
        num_radial = len(paths) * self.edge_multiplicities[0]
        radial = network(*self.radial_widths, num_radial, name="radial")
        collected = aggregate_messages(sent, edges.weigh(radial), edges, paths=paths)
        of_edges = jnp.tanh(network(*DENSITY_WIDTHS, name="density") ** 2)
        density = edges.sum_incoming(edges.weigh(of_edges), species.shape[0])
        alpha = self.param("alpha", constant(FIRST_DIVISOR), ())
        beta = self.param("beta", zeros, ())
        divisor = (alpha + beta * density)[:, :, None]

        wide = gated.with_gates(messages)
        of_neighbours = EquivariantLinear(wide, name="linear_1")(collected)
        own = EquivariantLinear(wide, name="linear_res")(sent)
        mixed = {degree: of_neighbours[degree] / divisor + own[degree] for degree in wide}
        skip = EquivariantLinear(self.skip_multiplicities, name="skip")(features)
        return EquivariantLinear(messages, name="linear_2")(gated(mixed)), skip

    def _embedding(self, name: str) -> Array:
        """Scalars of every element, [elements, channels]."""
        embedding = ElementEmbedding(self.channels, self.num_elements, _small, name=name)
        return embedding(jnp.arange(self.num_elements))[:, 0]
