"""Field readouts: the energy of an atom's multipoles in their potential, learned.

Each maps the last layer's node features h, local multipoles p_local, multipoles p and normalised
field features v to one energy per atom in eV.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from mace_scf_jax.backbones import EdgeFeatures
from mace_scf_jax.backbones.mace.radial import RadialNetwork
from mace_scf_jax.graph import Graph
from mace_scf_jax.layers.features import Features
from mace_scf_jax.layers.linear import EquivariantLinear, FullyConnectedTensorProduct
from mace_scf_jax.models.families.fixed_point.choices import FIELD_READOUTS, FieldReadout
from mace_scf_jax.models.families.fixed_point.density_update import (
    InvariantResponse,
    ManyBodyEmbedding,
)
from mace_scf_jax.models.families.fixed_point.invariant_nonlinearities import ChannelDots
from mace_scf_jax.models.families.fixed_point.potential_embedding import (
    BiasedLinearPotentialEmbedding,
)

SCALAR = {0: 1}
PRODUCT_CHANNELS = {0: 32, 1: 32}
"""Channels per degree in which quadratic readouts multiply."""
POTENTIAL_SCALE = 0.01
"""What `StrictQuadraticFieldEnergyReadout` multiplies field features by."""
ENERGY_WIDTHS = (128, 128, 128, 1)
"""Widths of the network of `OneBodyMLPFieldReadout`."""
MANY_BODY_CORRELATION = 2
"""Highest order of the products of many-body readouts."""


class SolvedDensity(NamedTuple):
    """What a field readout reads: features of each degree, [atoms, 2l+1, channels]."""

    features: Features
    """Node features of the last layer."""
    local_multipoles: Features
    """p_local, one channel."""
    multipoles: Features
    """p, one channel."""
    potential: Features
    """v, one channel for each receiver width."""


def _sum(left: Features, right: Features) -> Features:
    return {degree: value + right[degree] for degree, value in left.items()}


class NullFieldReadout(nn.Module):
    """No energy.

    Attributes:
        num_elements: number of elements.
    """

    num_elements: int

    def __call__(
        self, density: SolvedDensity, edges: EdgeFeatures, graph: Graph
    ) -> Float[Array, "atoms"]:
        """Energy of every atom in eV."""
        return jnp.zeros_like(density.features[0][:, 0, 0])


class StrictQuadraticFieldEnergyReadout(nn.Module):
    """Bilinear in p - p_local and in v: a product of both, contracted with the scalars of h.

    Attributes:
        num_elements: number of elements.
    """

    num_elements: int

    @nn.compact
    def __call__(
        self, density: SolvedDensity, edges: EdgeFeatures, graph: Graph
    ) -> Float[Array, "atoms"]:
        """Energy of every atom in eV."""
        induced = {
            degree: value - density.local_multipoles[degree]
            for degree, value in density.multipoles.items()
        }
        scaled = {degree: POTENTIAL_SCALE * value for degree, value in density.potential.items()}
        product = FullyConnectedTensorProduct({0: PRODUCT_CHANNELS[0]}, name="product")(
            EquivariantLinear(PRODUCT_CHANNELS, name="multipoles")(induced),
            EquivariantLinear(PRODUCT_CHANNELS, name="potential")(scaled),
        )
        energy = FullyConnectedTensorProduct(SCALAR, name="energy")(product, density.features)
        return energy[0][:, 0, 0]


class OneBodyMLPFieldReadout(nn.Module):
    """A network of the invariants h · Linear(p + p_local) + h · Linear(v).

    Attributes:
        num_elements: number of elements.
    """

    num_elements: int

    @nn.compact
    def __call__(
        self, density: SolvedDensity, edges: EdgeFeatures, graph: Graph
    ) -> Float[Array, "atoms"]:
        """Energy of every atom in eV."""
        same = {degree: value.shape[-1] for degree, value in density.features.items()}
        both = _sum(density.multipoles, density.local_multipoles)
        of_multipoles = EquivariantLinear(same, bias=True, name="multipoles")(both)
        of_potential = EquivariantLinear(same, bias=True, name="potential")(density.potential)
        invariants = ChannelDots(name="multipole_dots")(density.features, of_multipoles)
        invariants += ChannelDots(name="potential_dots")(density.features, of_potential)
        return RadialNetwork(ENERGY_WIDTHS, name="energy")(invariants)[:, 0]


class LinearChargesEnergyReadout(nn.Module):
    """Linear in p: a product of p and h.

    Attributes:
        num_elements: number of elements.
    """

    num_elements: int

    @nn.compact
    def __call__(
        self, density: SolvedDensity, edges: EdgeFeatures, graph: Graph
    ) -> Float[Array, "atoms"]:
        """Energy of every atom in eV."""
        energy = FullyConnectedTensorProduct(SCALAR, name="energy")(
            density.multipoles, density.features
        )
        return energy[0][:, 0, 0]


class QuadraticChargesEnergyReadout(nn.Module):
    """Quadratic in an affine map of p and p_local, contracted with h.

    Attributes:
        num_elements: number of elements.
    """

    num_elements: int

    @nn.compact
    def __call__(
        self, density: SolvedDensity, edges: EdgeFeatures, graph: Graph
    ) -> Float[Array, "atoms"]:
        """Energy of every atom in eV."""
        charges = _sum(
            EquivariantLinear(PRODUCT_CHANNELS, bias=True, name="multipoles")(density.multipoles),
            EquivariantLinear(PRODUCT_CHANNELS, bias=True, name="local_multipoles")(
                density.local_multipoles
            ),
        )
        product = FullyConnectedTensorProduct(PRODUCT_CHANNELS, name="product")(charges, charges)
        energy = FullyConnectedTensorProduct(SCALAR, name="energy")(product, density.features)
        return energy[0][:, 0, 0]


class ManyBodyChargesReadout(nn.Module):
    """Many-body function of p + p_local of an atom and its neighbours, and of v if asked for.

    Attributes:
        num_elements: number of elements.
        reads_potential: whether v is embedded beside the multipoles.
    """

    num_elements: int
    reads_potential: bool = False

    @nn.compact
    def __call__(
        self, density: SolvedDensity, edges: EdgeFeatures, graph: Graph
    ) -> Float[Array, "atoms"]:
        """Energy of every atom in eV."""
        features, species = density.features, graph.species
        same = {degree: value.shape[-1] for degree, value in features.items()}
        both = _sum(density.multipoles, density.local_multipoles)
        embedded = BiasedLinearPotentialEmbedding(
            same, self.num_elements, name="multipole_embedding"
        )(both, features, species)
        if self.reads_potential:
            of_potential = BiasedLinearPotentialEmbedding(
                same, self.num_elements, name="potential_embedding"
            )(density.potential, features, species)
            embedded = _sum(embedded, of_potential)
        embedded = ManyBodyEmbedding(MANY_BODY_CORRELATION, self.num_elements, name="many_body")(
            embedded, edges, graph
        )
        energy = InvariantResponse(SCALAR, self.num_elements, "MLPNonLinearity", name="response")(
            features, embedded, species
        )
        return energy[0][:, 0, 0]


for readout in (
    FieldReadout("NullFieldReadout", NullFieldReadout),
    FieldReadout("StrictQuadraticFieldEnergyReadout", StrictQuadraticFieldEnergyReadout),
    FieldReadout("OneBodyMLPFieldReadout", OneBodyMLPFieldReadout),
    FieldReadout("LinearChargesEnergyReadout", LinearChargesEnergyReadout),
    FieldReadout("QuadraticChargesEnergyReadout", QuadraticChargesEnergyReadout),
    FieldReadout("ManyBodyChargesReadout", ManyBodyChargesReadout, needs_edges=True),
    FieldReadout(
        "ManyBodyChargesFieldReadout",
        functools.partial(ManyBodyChargesReadout, reads_potential=True),
        needs_edges=True,
    ),
):
    FIELD_READOUTS.add(readout)
