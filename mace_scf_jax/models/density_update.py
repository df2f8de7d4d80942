"""Density updates: the change of an atom's multipoles in a potential, Δp(h, z, v).

The potential is embedded as node features m, these give one invariant for each channel of the
atom's own features h, and the invariants scale h into multipoles:

    s = nonlinearity(h · m),    Δp = Linear_z(h ∘ s).
"""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mace_scf_jax.backbone import EdgeFeatures
from mace_scf_jax.backbone.features import Features, Multiplicities
from mace_scf_jax.backbone.interaction import Interaction
from mace_scf_jax.backbone.linear import ElementLinear, EquivariantLinear
from mace_scf_jax.backbone.mace import ProductBasis
from mace_scf_jax.backbone.radial import RadialNetwork
from mace_scf_jax.graph import Graph
from mace_scf_jax.models.channel_products import ChannelDots, ChannelScaling
from mace_scf_jax.models.potential_embedding import EMBEDDINGS

MAX_EDGE_DEGREE = 2
"""Highest degree of the edge harmonics that many-body blocks see."""
RADIAL_WIDTHS = (64, 64, 64)
"""Hidden widths of the radial network of many-body blocks."""
INVARIANT_WIDTHS = (64, 64)
"""Hidden widths of `MLPNonLinearity`."""


class InvariantResponse(nn.Module):
    """What an atom's features make of embedded features of its surroundings, Linear_z(h ∘ s).

    Attributes:
        multiplicities: channels per degree of the output.
        num_elements: number of elements.
        nonlinearity: ``NoNonLinearity`` or ``MLPNonLinearity``.
    """

    multiplicities: Multiplicities
    num_elements: int
    nonlinearity: str

    @nn.compact
    def __call__(
        self, features: Features, embedded: Features, species: Int[Array, "atoms"]
    ) -> Features:
        """Respond to embedded features of the degrees and channels of the node features."""
        invariants = ChannelDots(name="dots")(features, embedded)
        if self.nonlinearity == "MLPNonLinearity":
            widths = (*INVARIANT_WIDTHS, invariants.shape[-1])
            invariants = RadialNetwork(widths, name="nonlinearity")(invariants)
        scaled = ChannelScaling(name="scaling")(features, invariants)
        return ElementLinear(self.multiplicities, self.num_elements, name="output")(scaled, species)


class ManyBodyEmbedding(nn.Module):
    """Embedded features of an atom and its neighbours: interaction, own embedding, product.

    Attributes:
        correlation: highest order of the products.
        num_elements: number of elements.
        skip_connection: whether the interaction's skip connection is added to the product.
    """

    correlation: int
    num_elements: int
    skip_connection: bool = True

    @nn.compact
    def __call__(self, embedded: Features, edges: EdgeFeatures, graph: Graph) -> Features:
        """Mix embedded features of every atom with those of its neighbours."""
        channels = embedded[0].shape[-1]
        harmonics = edges.harmonics[:, : (MAX_EDGE_DEGREE + 1) ** 2]
        messages, skip = Interaction(
            kind="RealAgnosticDensityResidualInteractionBlock",
            channels=channels,
            skip_multiplicities=dict.fromkeys(embedded, channels),
            max_edge_degree=MAX_EDGE_DEGREE,
            radial_widths=RADIAL_WIDTHS,
            avg_num_neighbors=1.0,  # not used: this class divides by the neighbour density
            num_elements=self.num_elements,
            name="interaction",
        )(
            embedded,
            graph.species,
            harmonics,
            edges.radial_basis,
            graph.senders,
            graph.receivers,
            graph.neighbours_per_atom,
        )
        own = EquivariantLinear(dict.fromkeys(messages, channels), bias=True, name="own")(embedded)
        messages = {degree: value + own[degree] for degree, value in messages.items()}
        return ProductBasis(max(embedded), self.correlation, self.num_elements, name="product")(
            messages, skip if self.skip_connection else None, graph.species
        )


class DensityUpdate(nn.Module):
    """Change of the multipoles in a potential.

    Attributes:
        update: ``OneBodyVariableUpdate``, where an atom answers the potential at its own site, or
            ``ManyBodyUpdate``, where it also sees the potentials of its neighbours.
        potential_embedding: name in `EMBEDDINGS`.
        nonlinearity: ``NoNonLinearity`` or ``MLPNonLinearity``.
        max_l: highest degree of the multipoles.
        num_elements: number of elements.
        correlation: highest order of the products of ``ManyBodyUpdate``.
        skip_connection: whether these have a skip connection.
    """

    update: str
    potential_embedding: str
    nonlinearity: str
    max_l: int
    num_elements: int
    correlation: int
    skip_connection: bool

    @nn.compact
    def __call__(
        self, features: Features, potential: Features, edges: EdgeFeatures, graph: Graph
    ) -> Float[Array, "atoms components"]:
        """Change of the multipoles in e Å^l.

        Args:
            features: mixed node features.
            potential: normalised field features, degree -> [atoms, 2l+1, widths].
            edges: geometry of the edges.
            graph: the batch.
        """
        same = {degree: value.shape[-1] for degree, value in features.items()}
        embedded = EMBEDDINGS[self.potential_embedding](
            same, self.num_elements, name="potential_embedding"
        )(potential, features, graph.species)
        if self.update == "ManyBodyUpdate":
            embedded = ManyBodyEmbedding(
                self.correlation, self.num_elements, self.skip_connection, name="many_body"
            )(embedded, edges, graph)
        one_of_each = dict.fromkeys(range(self.max_l + 1), 1)
        change = InvariantResponse(
            one_of_each, self.num_elements, self.nonlinearity, name="response"
        )(features, embedded, graph.species)
        return jnp.concatenate([change[degree][..., 0] for degree in one_of_each], axis=-1)
