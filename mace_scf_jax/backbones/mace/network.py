"""The MACE backbone: equivariant features of every layer, and their energy readouts."""

from __future__ import annotations

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array

from mace_scf_jax.backbones.backbone import BackboneOutput, EdgeFeatures
from mace_scf_jax.backbones.mace.interaction import Interaction
from mace_scf_jax.backbones.mace.pair_repulsion import pair_repulsion
from mace_scf_jax.backbones.mace.radial import radial_embedding
from mace_scf_jax.backbones.mace.settings import MACESettings
from mace_scf_jax.backbones.mace.symmetric_contraction import SymmetricContraction
from mace_scf_jax.graph import Graph
from mace_scf_jax.layers.features import Features, concatenate_components
from mace_scf_jax.layers.harmonics import edge_harmonics
from mace_scf_jax.layers.linear import ElementEmbedding, EquivariantLinear
from mace_scf_jax.layers.notation import parse_multiplicities
from mace_scf_jax.layers.readout import LinearReadout, NonlinearReadout

SCALAR = {0: 1}


class ProductBasis(nn.Module):
    """Symmetric contraction, linear map, skip connection.

    Attributes:
        max_degree_out: highest degree of the output.
        correlation: highest order of the products.
        num_elements: number of elements.
    """

    max_degree_out: int
    correlation: int
    num_elements: int

    @nn.compact
    def __call__(self, messages: Features, skip: Features | None, species: Array) -> Features:
        """New node features from messages with equal channels in every degree."""
        channels = messages[0].shape[-1]
        products = SymmetricContraction(
            self.max_degree_out, self.correlation, self.num_elements, name="contraction"
        )(concatenate_components(messages), species)
        features = EquivariantLinear(
            dict.fromkeys(range(self.max_degree_out + 1), channels), name="linear"
        )(products)
        if skip is None:
            return features
        return {degree: value + skip[degree] for degree, value in features.items()}


class MACEBackbone(nn.Module):
    """Element embedding, then interactions and products, with an energy readout per layer.

    Attributes:
        settings: sizes and choices.

    Source:
        Batatia et al., MACE, NeurIPS 2022.
    """

    settings: MACESettings

    @nn.compact
    def __call__(
        self, graph: Graph, *, mix_embedding: Callable[[Features], Features] | None = None
    ) -> BackboneOutput:
        """Features and energies of every atom of the batch.

        Args:
            mix_embedding: what to make of the element embedding before the first layer.
        """
        settings = self.settings
        num_elements = len(settings.elements)
        senders, receivers = graph.senders, graph.receivers
        sender_species, receiver_species = graph.species[senders], graph.species[receivers]

        vectors = graph.edge_vectors()
        lengths = jnp.sqrt(jnp.sum(vectors**2, axis=-1))
        edge_mask = graph.edge_mask.astype(lengths.dtype)
        harmonics = edge_harmonics(vectors, settings.max_ell)
        radial_basis = edge_mask[:, None] * radial_embedding(
            lengths,
            sender_species,
            receiver_species,
            elements=settings.elements,
            radial_type=settings.radial_type,
            distance_transform=settings.distance_transform,
            cutoff=settings.r_max,
            size=settings.num_radial_basis,
            cutoff_exponent=settings.num_cutoff_basis,
        )

        features: Features = {
            0: ElementEmbedding(settings.channels, num_elements, name="embedding")(graph.species)
        }
        if mix_embedding is not None:
            features = mix_embedding(features)
        layers, energies = [], []
        for layer in range(settings.num_interactions):
            first = layer == 0
            kind = settings.interaction_first if first else settings.interaction
            max_degree = settings.layer_max_degree(layer)
            messages, skip = Interaction(
                kind=kind,
                channels=settings.channels,
                skip_multiplicities=dict.fromkeys(range(max_degree + 1), settings.channels),
                max_edge_degree=settings.max_ell,
                radial_widths=settings.radial_MLP,
                avg_num_neighbors=settings.avg_num_neighbors,
                num_elements=num_elements,
                name=f"interaction_{layer}",
            )(
                features,
                graph.species,
                harmonics,
                radial_basis,
                senders,
                receivers,
                graph.neighbours_per_atom,
            )
            features = ProductBasis(
                max_degree, settings.correlation, num_elements, name=f"product_{layer}"
            )(messages, skip, graph.species)
            layers.append(features)
            energies.append(self._readout(layer)(features)[0][:, 0, 0])

        return BackboneOutput(
            layers=tuple(layers),
            layer_energies=jnp.stack(energies),
            pair_energy=self._pair_energy(graph, lengths, edge_mask),
            edges=EdgeFeatures(vectors, harmonics, radial_basis),
        )

    def _readout(self, layer: int) -> nn.Module:
        """Linear in all layers but the last of several, where it is a multilayer perceptron."""
        settings = self.settings
        is_last_of_several = layer == settings.num_interactions - 1 and layer > 0
        name = f"readout_{layer}"
        if is_last_of_several and not settings.use_linear_final_readout:
            hidden = parse_multiplicities(settings.MLP_irreps, option="MLP_irreps")
            return NonlinearReadout(SCALAR, hidden, settings.gate, name=name)
        return LinearReadout(SCALAR, name=name)

    def _pair_energy(self, graph: Graph, lengths: Array, edge_mask: Array) -> Array:
        if not self.settings.pair_repulsion:
            return jnp.zeros(graph.num_atoms, lengths.dtype)
        on_edges = edge_mask * pair_repulsion(
            lengths,
            graph.species[graph.senders],
            graph.species[graph.receivers],
            elements=self.settings.elements,
            cutoff_exponent=self.settings.num_cutoff_basis,
        )
        return jax.ops.segment_sum(
            on_edges, graph.receivers, num_segments=graph.num_atoms, indices_are_sorted=True
        )
