"""MACE and ScaleShiftMACE: energies from the backbone alone."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array

from mace_scf_jax.graph import Graph
from mace_scf_jax.models.energies import energy_outputs, isolated_atom_energies
from mace_scf_jax.models.families.mace.settings import ScaleShiftSettings
from mace_scf_jax.models.settings import ModelSettings


class MACE(nn.Module):
    """Energy = isolated atoms + nuclear repulsion + readout of every layer.

    Attributes:
        settings: sizes, choices and constants.
    """

    settings: ModelSettings

    @nn.compact
    def __call__(self, graph: Graph) -> dict[str, Array]:
        """Energies of a batch in eV: energy, node_energy, contributions."""
        backbone = self.settings.backbone.build(name="backbone")(graph)
        isolated = isolated_atom_energies(self.settings, graph)
        terms = jnp.stack([isolated, backbone.pair_energy, *backbone.layer_energies], axis=-1)
        return energy_outputs(graph, terms)


class ScaleShiftMACE(nn.Module):
    """Energy = isolated atoms + scale · (nuclear repulsion + readouts) + shift, per atom.

    Attributes:
        settings: sizes, choices and constants.
    """

    settings: ModelSettings[ScaleShiftSettings]

    @nn.compact
    def __call__(self, graph: Graph) -> dict[str, Array]:
        """Energies of a batch in eV: energy, node_energy, contributions."""
        backbone = self.settings.backbone.build(name="backbone")(graph)
        isolated = isolated_atom_energies(self.settings, graph)
        interaction = backbone.pair_energy + jnp.sum(backbone.layer_energies, axis=0)
        scaled = self.settings.own.scale * interaction + self.settings.own.shift
        return energy_outputs(graph, jnp.stack([isolated, scaled], axis=-1))
