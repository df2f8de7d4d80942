"""Learned conservation of charge: what an atom has too much goes to its neighbours.

With the charge z of its element, what is read off an atom, s_i, goes along edges to the atom itself
and its neighbours j, in proportion to learned positive weights w and the envelope f of the edge,

    t_ij = -s_i w_j f_ij / Z_i,    Z_i = w_i + Σ_j w_j f_ij,
    Q_i = z_i + Σ_j (t_ji - t_ij) + R w_i/Σw.

So atoms that no edges connect to others have the charge Σ z, exactly, whatever is elsewhere. What
compositions do not tell, R = Q - Σ z of the whole structure, all of its atoms share.
"""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from mace_scf_jax.backbones import BackboneOutput
from mace_scf_jax.backbones.mace.radial import polynomial_cutoff
from mace_scf_jax.graph import Graph
from mace_scf_jax.layers.drawn import zeros
from mace_scf_jax.models.families.local_charges.settings import LocalChargesSettings
from mace_scf_jax.models.polarization import (
    net_transfer,
    polarization_of,
)
from mace_scf_jax.models.settings import ModelSettings
from mace_scf_jax.models.variational import read_scalars, unit_softplus

LEAST_WEIGHT = 1e-3
"""Of an atom; weights are 1 more where nothing is learned."""
ENVELOPE_EXPONENT = 6


class LearnedConservation(nn.Module):
    """Charges that add up to the total charge, and their polarization.

    Attributes:
        settings: of the model.
    """

    settings: ModelSettings[LocalChargesSettings]

    @nn.compact
    def __call__(
        self, graph: Graph, backbone: BackboneOutput, surplus: Float[Array, "atoms"]
    ) -> tuple[Float[Array, "atoms"], Float[Array, "graphs 3"]]:
        """Charge of every atom in e, and Σ z r + Σ t r_edge of every graph in e Å (x, y, z).

        Args:
            surplus: s, what is read off the atoms, in e; zero for padding atoms.
        """
        dtype = surplus.dtype
        weights = LEAST_WEIGHT + unit_softplus(
            read_scalars(self.settings, backbone, "surplus_weight")[:, 0]
        )
        weights = jnp.where(graph.atom_mask, weights, 1.0)
        vectors = graph.edge_vectors()
        lengths = jnp.sqrt(jnp.sum(vectors**2, axis=-1))
        envelope = polynomial_cutoff(lengths, self.settings.backbone.r_max, ENVELOPE_EXPONENT)
        envelope = jnp.where(graph.edge_mask, envelope, 0.0)
        all_weights = weights + graph.sum_incoming(envelope * weights[graph.senders])
        given = surplus / all_weights
        transfer = -given[graph.senders] * graph.at_receivers(weights) * envelope

        elements = jnp.where(graph.atom_mask, self._element_charges(dtype)[graph.species], 0.0)
        remainder = jnp.asarray(graph.total_charge) - graph.sum_atoms(elements)
        total = jnp.where(graph.graph_mask, graph.sum_atoms(weights), 1.0)
        carried = elements + weights * (remainder / total)[graph.atom_graph]
        carried = jnp.where(graph.atom_mask, carried, 0.0)
        polarization = polarization_of(graph, carried, transfer, vectors)
        return carried + net_transfer(graph, transfer), polarization

    def _element_charges(self, dtype) -> Float[Array, "elements"]:
        """z of each element: given, and learned where total charges leave it open."""
        own = self.settings.own
        charges = jnp.asarray(own.element_charges, dtype)
        if own.free_charges:
            learned = self.param("element_charges", zeros, (len(own.free_charges),))
            charges += jnp.asarray(own.free_charges, dtype) @ learned
        return charges
