"""Charge transfer along edges: what the sender gives, the receiver gets."""

from __future__ import annotations

import math

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from mace_scf_jax.backbones import EdgeFeatures
from mace_scf_jax.backbones.mace.radial import RadialNetwork
from mace_scf_jax.graph import Graph
from mace_scf_jax.layers.couplings import component_slice
from mace_scf_jax.layers.drawn import unit_normal
from mace_scf_jax.layers.features import Features
from mace_scf_jax.layers.linear import EquivariantLinear
from mace_scf_jax.models.families.split_charges.options import TRANSFER_BLOCKS

DIVISOR = 40.0
"""Makes the transfers of random weights small, in e."""


class BondTransfer(nn.Module):
    """Charge that each directed edge carries from its sender j to its receiver i,

        p_ji = 1/40 sum_{l c} w_c R_lc(r) sum_m (W1 h_j + W2 h_i)_lmc Y_lm(r_ji).

    Attributes:
        kind: a name in `TRANSFER_BLOCKS`.
    """

    kind: str

    @nn.compact
    def __call__(
        self,
        features: Features,
        edges: EdgeFeatures,
        graph: Graph,
    ) -> Float[Array, "edges"]:
        """Transfers in e; zero for padding edges.

        Args:
            features: node features, degree -> [atoms, 2l+1, channels], equal channels.
            edges: harmonics and radial basis of the edges.
        """
        block = TRANSFER_BLOCKS[self.kind]
        channels = features[0].shape[-1]
        given = EquivariantLinear(dict.fromkeys(features, channels), name="sender")(features)
        taken = EquivariantLinear(dict.fromkeys(features, channels), name="receiver")(features)

        num_components = edges.harmonics.shape[-1]
        degrees = [degree for degree in features if degree**2 < num_components]
        radial = RadialNetwork((*block.radial_widths, len(degrees) * channels), name="radial")(
            edges.radial_basis
        ).reshape(-1, len(degrees), channels)
        rows = 1 if block.oxidation_dependent else len(degrees)
        weight = self.param("output", unit_normal, (rows, channels))
        radial = radial * (weight / math.sqrt(len(degrees) * channels))

        transfer = jnp.zeros(graph.senders.shape, radial.dtype)
        for row, degree in enumerate(degrees):
            both = given[degree][graph.senders] + graph.at_receivers(taken[degree])
            harmonics = edges.harmonics[:, component_slice(degree)] / math.sqrt(2 * degree + 1)
            transfer += jnp.einsum("em,emc,ec->e", harmonics, both, radial[:, row])
        return jnp.where(graph.edge_mask, transfer / DIVISOR, 0.0)
