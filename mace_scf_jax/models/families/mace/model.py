"""MACE and ScaleShiftMACE: energies from the backbone alone."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array

from mace_scf_jax.graph import Graph
from mace_scf_jax.models.families.mace.settings import ScaleShiftSettings
from mace_scf_jax.models.settings import ModelSettings


def isolated_atom_energies(settings: ModelSettings, graph: Graph) -> Array:
    """Energy E0 of every atom, [atoms], in eV."""
    return jnp.asarray(settings.atomic_energies, graph.positions.dtype)[graph.species]


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
        return _energies(terms, graph)


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
        return _energies(jnp.stack([isolated, scaled], axis=-1), graph)


def _energies(terms: Array, graph: Graph) -> dict[str, Array]:
    """Sums of per-atom energy terms [atoms, terms]."""
    contributions = graph.sum_atoms(terms)
    return {
        "energy": jnp.sum(contributions, axis=-1),
        "node_energy": jnp.where(graph.atom_mask, jnp.sum(terms, axis=-1), 0.0),
        "contributions": contributions,
    }
