"""Density updates: the change of an atom's multipoles in a potential, Δp(h, z, v).

The potential is embedded as node features m, these give one invariant for each channel of the
atom's own features h, and the invariants scale h into multipoles:

    s = nonlinearity(h · m),    Δp = Linear_z(h ∘ s).

Scaled updates add products of h and m to h ∘ s, and scale Δp by element.
"""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mace_scf_jax.backbones import EdgeFeatures
from mace_scf_jax.backbones.mace.interaction import Interaction
from mace_scf_jax.backbones.mace.messages import Edges
from mace_scf_jax.backbones.mace.network import ProductBasis
from mace_scf_jax.graph import Graph
from mace_scf_jax.layers.features import Features
from mace_scf_jax.layers.linear import ElementLinear, EquivariantLinear
from mace_scf_jax.layers.notation import Multiplicities
from mace_scf_jax.models.families.fixed_point.choices import SCALED_UPDATES
from mace_scf_jax.models.families.fixed_point.invariant_nonlinearities import (
    ChannelDots,
    ChannelProducts,
    ChannelScaling,
    nonlinear,
)
from mace_scf_jax.models.families.fixed_point.potential_embedding import EMBEDDINGS

MAX_EDGE_DEGREE = 2
"""Highest degree of the edge harmonics that many-body blocks see."""
RADIAL_WIDTHS = (64, 64, 64)
"""Hidden widths of the radial network of many-body blocks."""


class InvariantResponse(nn.Module):
    """What an atom's features make of embedded features of its surroundings, Linear_z(h ∘ s).

    Attributes:
        multiplicities: channels per degree of the output.
        num_elements: number of elements.
        nonlinearity: see `nonlinear`.
    """

    multiplicities: Multiplicities
    num_elements: int
    nonlinearity: str

    @nn.compact
    def __call__(
        self, features: Features, embedded: Features, species: Int[Array, "atoms"]
    ) -> Features:
        """Respond to embedded features of the degrees and channels of the node features."""
        invariants = nonlinear(self.nonlinearity, ChannelDots(name="dots")(features, embedded))
        scaled = ChannelScaling(name="scaling")(features, invariants)
        return ElementLinear(self.multiplicities, self.num_elements, name="output")(scaled, species)


class ScaledResponse(nn.Module):
    """The same with products of the features added, and a scale for each element.

    Attributes:
        multiplicities: channels per degree of the output.
        num_elements: number of elements.
        nonlinearity: see `nonlinear`.
        dots: whether its invariants are those of `InvariantResponse`; else the embedded scalars.
        scale: of each element.
    """

    multiplicities: Multiplicities
    num_elements: int
    nonlinearity: str
    dots: bool
    scale: tuple[float, ...]

    @nn.compact
    def __call__(
        self, features: Features, embedded: Features, species: Int[Array, "atoms"]
    ) -> Features:
        """Respond to embedded features of the degrees and channels of the node features."""
        invariants = embedded[0][:, 0]
        if self.dots:
            invariants = ChannelDots(name="dots")(features, embedded)
        scaled = ChannelScaling(name="scaling")(features, nonlinear(self.nonlinearity, invariants))
        products = ChannelProducts(name="products")(features, embedded)
        added = {degree: value + products.get(degree, 0.0) for degree, value in scaled.items()}
        output = ElementLinear(self.multiplicities, self.num_elements, name="output")
        change = output(added, species)
        scale = jnp.asarray(self.scale, features[0].dtype)[species][:, None, None]
        return {degree: scale * value for degree, value in change.items()}


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
            edge_multiplicities=dict.fromkeys(embedded, channels),
            skip_multiplicities=dict.fromkeys(embedded, channels),
            max_edge_degree=MAX_EDGE_DEGREE,
            radial_widths=RADIAL_WIDTHS,
            avg_num_neighbors=1.0,  # not used: this class divides by the neighbour density
            num_elements=self.num_elements,
            name="interaction",
        )(
            embedded,
            graph.species,
            Edges(
                harmonics,
                edges.radial_basis,
                graph.senders,
                graph.receivers,
                graph.neighbours_per_atom,
            ),
        )
        own = EquivariantLinear(dict.fromkeys(messages, channels), bias=True, name="own")(embedded)
        messages = {degree: value + own[degree] for degree, value in messages.items()}
        return ProductBasis(max(embedded), self.correlation, self.num_elements, name="product")(
            messages, skip if self.skip_connection else None, graph.species
        )


class DensityUpdate(nn.Module):
    """Change of the multipoles in a potential.

    Attributes:
        update: ``OneBodyVariableUpdate``, where an atom answers the potential at its own site;
            one of `SCALED_UPDATES`, likewise, with a `ScaledResponse`; or ``ManyBodyUpdate``, where
            it also sees the potentials of its neighbours.
        potential_embedding: name in `EMBEDDINGS`.
        nonlinearity: see `nonlinear`.
        max_l: highest degree of the multipoles.
        num_elements: number of elements.
        correlation: highest order of the products of ``ManyBodyUpdate``.
        skip_connection: whether these have a skip connection.
        scale: of each element, for scaled updates.
    """

    update: str
    potential_embedding: str
    nonlinearity: str
    max_l: int
    num_elements: int
    correlation: int
    skip_connection: bool
    scale: tuple[float, ...] | None = None

    @nn.compact
    def __call__(
        self, features: Features, potential: Features, edges: EdgeFeatures, graph: Graph
    ) -> Float[Array, "atoms components"]:
        """Change of the multipoles in e Å^l.

        Args:
            features: mixed node features.
            potential: normalised field features, degree -> [atoms, 2l+1, widths].
            edges: geometry of the edges.
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
        arguments = (one_of_each, self.num_elements, self.nonlinearity)
        if self.update in SCALED_UPDATES:
            dots = self.update == "OneBodyScaledDPNonLinearUpdate"
            response = ScaledResponse(*arguments, dots, self.scale, name="response")
        else:
            response = InvariantResponse(*arguments, name="response")
        change = response(features, embedded, graph.species)
        return jnp.concatenate([change[degree][..., 0] for degree in one_of_each], axis=-1)
