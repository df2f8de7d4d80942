"""The MACE backbone: equivariant features of every layer, and their energy readouts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array

from mace_scf_jax.backbones.backbone import BackboneOutput, EdgeFeatures
from mace_scf_jax.backbones.mace.choices import INTERACTIONS
from mace_scf_jax.backbones.mace.input_embedding import InputEmbedding
from mace_scf_jax.backbones.mace.interaction import Interaction
from mace_scf_jax.backbones.mace.messages import Edges
from mace_scf_jax.backbones.mace.nonlinear_interaction import NonlinearInteraction
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
        radial_basis, envelope = radial_embedding(
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
        envelope = edge_mask * envelope
        cut_off = envelope[:, None] * radial_basis
        basis, weight = cut_off, None
        if not settings.apply_cutoff:
            basis, weight = radial_basis, envelope
        elif self._is_biased:
            weight = jnp.where(lengths < settings.r_max, edge_mask, 0.0)
        edges = Edges(harmonics, basis, senders, receivers, graph.neighbours_per_atom, weight)

        features: Features = {
            0: ElementEmbedding(settings.channels, num_elements, name="embedding")(graph.species)
        }
        if settings.embedding_specs:
            features[0] = features[0] + self._embedded_inputs(graph)[:, None]
        own_head = self._own_head(graph, features[0].dtype)
        embedding_energy = None
        if settings.use_embedding_readout:
            read_out = LinearReadout(self._outputs, name="embedding_readout")
            embedding_energy = self._of_own_head(read_out(features), own_head)
        if mix_embedding is not None:
            features = mix_embedding(features)
        product_species = (
            jnp.zeros_like(graph.species) if settings.use_agnostic_product else graph.species
        )
        layers, energies = [], []
        for layer in range(settings.num_interactions):
            messages, skip = self._interaction(layer)(features, graph.species, edges)
            features = ProductBasis(
                settings.layer_max_degree(layer),
                settings.layer_correlation(layer),
                settings.product_elements,
                name=f"product_{layer}",
            )(messages, skip, product_species)
            layers.append(features)
            if layer in settings.readout_layers:
                energies.append(self._read_out(layer, features, own_head))

        return BackboneOutput(
            layers=tuple(layers),
            layer_energies=jnp.stack(energies),
            pair_energy=self._pair_energy(graph, lengths, edge_mask),
            embedding_energy=embedding_energy,
            edges=EdgeFeatures(vectors, harmonics, cut_off),
        )

    def _embedded_inputs(self, graph: Graph) -> Array:
        """Scalars of every atom from inputs of its structure, [atoms, channels]."""
        settings = self.settings
        values = {
            name: jnp.asarray(getattr(graph, name))[graph.atom_graph][:, None]
            for name in settings.inputs
        }
        embedding = InputEmbedding(
            settings.embedding_specs, settings.channels, name="input_embedding"
        )
        return embedding(values)

    @property
    def _is_biased(self) -> bool:
        """Whether what a layer makes of the radial basis is not 0 where the basis is."""
        layers = range(self.settings.num_interactions)
        return any(INTERACTIONS[self.settings.layer_interaction(it)].nonlinear for it in layers)

    def _interaction(self, layer: int) -> nn.Module:
        settings, kind = self.settings, self.settings.layer_interaction(layer)
        sizes: dict[str, Any] = {
            "channels": settings.channels,
            "edge_multiplicities": settings.edge_multiplicities(layer),
            "skip_multiplicities": settings.layer_multiplicities(layer),
            "max_edge_degree": settings.max_ell,
            "radial_widths": settings.radial_MLP,
            "num_elements": len(settings.elements),
            "name": f"interaction_{layer}",
        }
        if INTERACTIONS[kind].nonlinear:
            return NonlinearInteraction(**sizes)
        return Interaction(kind=kind, avg_num_neighbors=settings.avg_num_neighbors, **sizes)

    def _read_out(self, layer: int, features: Features, own_head: Array | None) -> Array:
        """Energies, [atoms]: linear in all layers but the last of several, where the readout is a
        multilayer perceptron, whose hidden channels belong to one head after the other."""
        settings, name = self.settings, f"readout_{layer}"
        depth = settings.hidden_layers_of_readout(layer)
        if depth == 0:
            return self._of_own_head(LinearReadout(self._outputs, name=name)(features), own_head)
        hidden = parse_multiplicities(settings.MLP_irreps, option="MLP_irreps")
        mask = None
        if own_head is not None:
            mask = jnp.repeat(own_head, hidden[0], axis=-1)
            hidden = {0: len(settings.heads) * hidden[0]}
        readout = NonlinearReadout(
            self._outputs, hidden, settings.gate, depth, depth > 1, name=name
        )
        return self._of_own_head(readout(features, mask), own_head)

    @property
    def _outputs(self) -> dict[int, int]:
        """What energy readouts give: one scalar, or one for each of several heads."""
        return {0: max(1, len(self.settings.heads))}

    def _own_head(self, graph: Graph, dtype: Any) -> Array | None:
        """1 for the head of every atom and 0 for the others, [atoms, heads]; None without."""
        heads = len(self.settings.heads)
        return jax.nn.one_hot(graph.head_of_atoms(), heads, dtype=dtype) if heads else None

    @staticmethod
    def _of_own_head(read: Features, own_head: Array | None) -> Array:
        """What is read for the head of every atom, [atoms]."""
        scalars = read[0][:, 0]
        return scalars[:, 0] if own_head is None else jnp.sum(own_head * scalars, axis=-1)

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
        energies = jax.ops.segment_sum(
            on_edges, graph.receivers, num_segments=graph.num_atoms, indices_are_sorted=True
        )
        return self.settings.pair_repulsion_scale * energies
