"""The short-range energy that all families share: isolated atoms and what the backbone reads."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from mace_scf_jax.backbones import BackboneOutput
from mace_scf_jax.graph import Graph
from mace_scf_jax.models.settings import ModelSettings


def isolated_atom_energies(settings: ModelSettings, graph: Graph) -> Float[Array, "atoms"]:
    """Return the energy E0 of every atom in eV."""
    return jnp.asarray(settings.atomic_energies, graph.positions.dtype)[graph.species]


def layer_terms(
    settings: ModelSettings, graph: Graph, backbone: BackboneOutput
) -> Float[Array, "atoms terms"]:
    """Return the energies of every atom in eV: isolated with nuclear repulsion, then each layer."""
    isolated = isolated_atom_energies(settings, graph) + backbone.pair_energy
    return jnp.stack([isolated, *backbone.layer_energies], axis=-1)


def energy_outputs(graph: Graph, terms: Float[Array, "atoms terms"]) -> dict[str, Array]:
    """Return ``energy``, ``node_energy`` and ``contributions`` (eV) of energies of every atom."""
    contributions = graph.sum_atoms(terms)
    return {
        "energy": jnp.sum(contributions, axis=-1),
        "node_energy": jnp.where(graph.atom_mask, jnp.sum(terms, axis=-1), 0.0),
        "contributions": contributions,
    }
