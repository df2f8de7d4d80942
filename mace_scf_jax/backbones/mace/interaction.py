"""Interaction blocks: from node features to messages of every degree."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mace_scf_jax.backbones.mace.choices import INTERACTIONS
from mace_scf_jax.backbones.mace.messages import aggregate_messages, message_paths
from mace_scf_jax.backbones.mace.radial import RadialNetwork
from mace_scf_jax.layers.features import Features
from mace_scf_jax.layers.linear import ElementLinear, EquivariantLinear
from mace_scf_jax.layers.notation import Multiplicities


class Interaction(nn.Module):
    """One interaction block.

    Attributes:
        kind: a name in `INTERACTIONS`.
        channels: channels of features and messages.
        skip_multiplicities: features returned by the skip connection of residual classes.
        max_edge_degree: highest degree of edge harmonics and messages.
        radial_widths: hidden widths of the radial network.
        avg_num_neighbors: normalisation of the message.
        num_elements: number of elements.
    """

    kind: str
    channels: int
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
        harmonics: Float[Array, "edges components"],
        radial_basis: Float[Array, "edges basis"],
        senders: Int[Array, "edges"],
        receivers: Int[Array, "edges"],
        neighbours_per_atom: int | None = None,
    ) -> tuple[Features, Features | None]:
        """Messages of degrees 0 … max_edge_degree, and the skip connection (None if not residual).

        Args:
            features: node features, degree -> [atoms, 2l+1, channels].
            species: element index of each atom.
            harmonics: edge harmonics.
            radial_basis: radial basis with its envelope; zero for padding edges.
            senders: sending atom of each edge.
            receivers: receiving atom of each edge, non-decreasing.
            neighbours_per_atom: edges of each atom, if padded to the same number.
        """
        properties = INTERACTIONS[self.kind]
        degrees = tuple(features)
        paths = message_paths(degrees, self.max_edge_degree, self.max_edge_degree)
        message_multiplicities = dict.fromkeys(range(self.max_edge_degree + 1), self.channels)

        skip = None
        if properties.residual:
            skip = ElementLinear(self.skip_multiplicities, self.num_elements, name="skip")(
                features, species
            )
        sent = EquivariantLinear(dict.fromkeys(degrees, self.channels), name="linear_up")(features)
        radial = RadialNetwork((*self.radial_widths, len(paths) * self.channels), name="radial")(
            radial_basis
        )
        messages = aggregate_messages(
            sent,
            harmonics,
            radial,
            senders,
            receivers,
            paths=paths,
            neighbours_per_atom=neighbours_per_atom,
        )
        messages = EquivariantLinear(message_multiplicities, name="linear")(messages)

        if properties.density:
            edge_density = jnp.tanh(RadialNetwork((1,), name="density")(radial_basis) ** 2)
            density = jax.ops.segment_sum(
                edge_density, receivers, num_segments=species.shape[0], indices_are_sorted=True
            )
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
