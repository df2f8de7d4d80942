"""Interaction blocks: from node features to messages of every degree."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Int

from mace_scf_jax.backbones.mace.choices import INTERACTIONS
from mace_scf_jax.backbones.mace.messages import Edges, aggregate_messages, message_paths
from mace_scf_jax.backbones.mace.radial import RadialNetwork
from mace_scf_jax.layers.features import Features
from mace_scf_jax.layers.linear import ElementLinear, EquivariantLinear
from mace_scf_jax.layers.notation import Multiplicities


class Interaction(nn.Module):
    """One interaction block of the linear classes.

    Attributes:
        kind: a name in `INTERACTIONS`.
        channels: channels of the messages.
        edge_multiplicities: channels per degree of the features that are sent along edges.
        skip_multiplicities: features returned by the skip connection of residual classes.
        max_edge_degree: highest degree of edge harmonics and messages.
        radial_widths: hidden widths of the radial network.
        avg_num_neighbors: normalisation of the message.
        num_elements: number of elements.
    """

    kind: str
    channels: int
    edge_multiplicities: Multiplicities
    skip_multiplicities: Multiplicities
    max_edge_degree: int
    radial_widths: tuple[int, ...]
    avg_num_neighbors: float
    num_elements: int

    @nn.compact
    def __call__(
        self,
        features: Features,
        species: Int[Array, "atoms"],
        edges: Edges,
    ) -> tuple[Features, Features | None]:
        """Messages of degrees 0 … max_edge_degree, and the skip connection (None if not residual).

        Args:
            features: node features, degree -> [atoms, 2l+1, channels].
            species: element index of each atom.
            edges: geometry and weights of the edges.
        """
        properties = INTERACTIONS[self.kind]
        paths = message_paths(
            tuple(self.edge_multiplicities), self.max_edge_degree, self.max_edge_degree
        )
        message_multiplicities = dict.fromkeys(range(self.max_edge_degree + 1), self.channels)

        skip = None
        if properties.residual:
            skip = ElementLinear(self.skip_multiplicities, self.num_elements, name="skip")(
                features, species
            )
        sent = EquivariantLinear(self.edge_multiplicities, name="linear_up")(features)
        num_radial = len(paths) * self.edge_multiplicities[0]
        radial = RadialNetwork((*self.radial_widths, num_radial), name="radial")(edges.radial_basis)
        messages = aggregate_messages(sent, edges.weigh(radial), edges, paths=paths)
        messages = EquivariantLinear(message_multiplicities, name="linear")(messages)

        if properties.density:
            of_edges = jnp.tanh(RadialNetwork((1,), name="density")(edges.radial_basis) ** 2)
            density = edges.sum_incoming(edges.weigh(of_edges), species.shape[0])
            divisor = 1.0 + density[:, :, None]
            messages = {degree: value / divisor for degree, value in messages.items()}
        else:
            messages = {
                degree: value / self.avg_num_neighbors for degree, value in messages.items()
            }
        if not properties.residual:
            messages = ElementLinear(message_multiplicities, self.num_elements, name="skip")(
                messages, species
            )
        return messages, skip
