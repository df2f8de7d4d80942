"""The Chebyshev backbone: normalised descriptors, and an energy network for each element."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from mace_scf_jax.backbones.backbone import BackboneOutput
from mace_scf_jax.backbones.chebyshev.networks import ElementNetworks
from mace_scf_jax.backbones.chebyshev.settings import ChebyshevSettings
from mace_scf_jax.backbones.chebyshev.stored import descriptors_of
from mace_scf_jax.graph import Graph


class ChebyshevBackbone(nn.Module):
    """Energies ε/S + e_0 of atoms, ε the network of their element on their descriptor.

    Attributes:
        settings: sizes, choices and constants.

    Source:
        Behler and Parrinello, Phys. Rev. Lett. 98, 146401 (2007); Artrith, Urban and Ceder, Phys.
        Rev. B 96, 014112 (2017).
    """

    settings: ChebyshevSettings

    @nn.compact
    def __call__(self, graph: Graph) -> BackboneOutput:
        """Features and energies of every atom of the batch."""
        settings = self.settings
        raw = descriptors_of(graph, settings.descriptor, settings.elements)
        features = self._normalised(raw, graph)
        networks = ElementNetworks(settings.elements, settings.arch, name="energy")
        values = networks(features, graph.species)[:, 0]
        scaling = jnp.asarray(settings.E_scaling, values.dtype)[graph.species]
        shift = jnp.asarray(settings.E_shift, values.dtype)[graph.species]
        return BackboneOutput(
            layers=({0: features[:, None]},),
            layer_energies=(values / scaling + shift)[None],
            pair_energy=jnp.zeros_like(values),
            species=jnp.asarray(graph.species),
        )

    def _normalised(self, raw: Float[Array, "atoms f"], graph: Graph) -> Float[Array, "atoms f"]:
        """(G - μ)/σ, with the constants of each atom's element if elements have their own."""
        statistics = self.settings.features
        if statistics is None:
            return raw
        centre, scale = (jnp.asarray(rows, raw.dtype) for rows in statistics.centre_and_scale())
        if len(statistics.mean) > 1:
            centre, scale = centre[graph.species], scale[graph.species]
        return (raw - centre) * scale
