"""Energies that families share: isolated atoms, what the backbone reads, multipoles and field."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, DTypeLike, Float

from mace_scf_jax.backbones import BackboneOutput
from mace_scf_jax.electrostatics import (
    System,
    batch_coulomb_energy,
    batch_external_field_energy,
    batch_surplus_dipole,
)
from mace_scf_jax.graph import Graph
from mace_scf_jax.models.settings import ModelSettings

ENERGIES_IN = jnp.float64
"""Precision in which energies are added up, because those of all electrons are large."""


OfHeads = float | tuple[float, ...]
"""A number, or one for each of several heads."""


def of_own_head(
    graph: Graph, number: OfHeads, dtype: DTypeLike | None = None
) -> float | Float[Array, "atoms"]:
    """Return a number, or that of the head of every atom.

    Args:
        dtype: of the latter; by default that of the batch.
    """
    if isinstance(number, tuple):
        return jnp.asarray(number, dtype or graph.dtype)[graph.head_of_atoms()]
    return number


def isolated_atom_energies(settings: ModelSettings, graph: Graph) -> Float[Array, "atoms"]:
    """Return the energy E0 of every atom in eV."""
    energies = jnp.asarray(settings.atomic_energies, ENERGIES_IN)
    if settings.heads:
        return energies[graph.head_of_atoms(), graph.species]
    return energies[graph.species]


def unscaled_energies(
    settings: ModelSettings, graph: Graph, backbone: BackboneOutput
) -> Float[Array, "atoms"]:
    """Return what depends on no geometry, in eV: E0 of every atom, energy of embedded inputs."""
    isolated = isolated_atom_energies(settings, graph)
    if backbone.embedding_energy is None:
        return isolated
    return isolated + backbone.embedding_energy.astype(isolated.dtype)


def stacked_terms(*terms: Float[Array, "atoms"]) -> Float[Array, "atoms terms"]:
    """Return energies of every atom side by side, in the precision in which they are added up."""
    return jnp.stack([term.astype(ENERGIES_IN) for term in terms], axis=-1)


def layer_terms(
    settings: ModelSettings,
    graph: Graph,
    backbone: BackboneOutput,
    *,
    scale: OfHeads = 1.0,
    shift: OfHeads = 0.0,
) -> Float[Array, "atoms terms"]:
    """Return the energies of every atom in eV: isolated with nuclear repulsion, then each layer.

    Args:
        scale: factor on nuclear repulsion and layers.
        shift: added to the isolated atom, eV.
    """
    isolated = unscaled_energies(settings, graph, backbone)
    own_scale, own_shift = of_own_head(graph, scale), of_own_head(graph, shift, isolated.dtype)
    repulsion = (own_scale * backbone.pair_energy).astype(isolated.dtype)
    layers = [own_scale * energies for energies in backbone.layer_energies]
    return stacked_terms(isolated + repulsion + own_shift, *layers)


def energy_outputs(graph: Graph, terms: Float[Array, "atoms terms"]) -> dict[str, Array]:
    """Return ``energy``, ``node_energy`` and ``contributions`` (eV) of energies of every atom."""
    contributions = graph.sum_atoms(terms)
    return {
        "energy": jnp.sum(contributions, axis=-1),
        "node_energy": jnp.where(graph.atom_mask, jnp.sum(terms, axis=-1), 0.0),
        "contributions": contributions,
    }


def density_outputs(
    settings: ModelSettings,
    graph: Graph,
    backbone: BackboneOutput,
    multipoles: Float[Array, "atoms components"],
    dipole: Float[Array, "graphs 3"],
    *,
    prepared: System | None = None,
    scale: OfHeads = 1.0,
    shift: OfHeads = 0.0,
) -> dict[str, Array]:
    """Energy = isolated atoms + layer readouts + Coulomb energy of the multipoles + D·E.

    Args:
        backbone: features and readouts of every layer.
        multipoles: in e Å^l, order Q, d_y, d_z, d_x; zero for padding atoms.
        dipole: in e Å (x, y, z), about the origin; of a family without polarization, charge beyond
            the total charge is put at the centre if the settings say so.
        prepared: what `prepare_batch` gave for this graph, to be reused.
        scale: factor on nuclear repulsion and layer readouts.
        shift: added to the isolated atoms, eV per atom.
    """
    if settings.density.surplus_at_centre and not settings.own.has_polarization:
        dipole -= batch_surplus_dipole(graph, multipoles)
    terms = layer_terms(settings, graph, backbone, scale=scale, shift=shift)
    outputs = energy_outputs(graph, terms)
    coulomb = batch_coulomb_energy(graph, multipoles, settings=settings.density, prepared=prepared)
    in_field = batch_external_field_energy(graph, dipole)
    return {
        **outputs,
        "energy": outputs["energy"] + coulomb.astype(ENERGIES_IN) + in_field.astype(ENERGIES_IN),
        "electrostatic_energy": coulomb,
        "multipoles": multipoles,
        "dipole": dipole.astype(graph.dtype),
        "total_charge": graph.sum_atoms(multipoles[:, 0]),
    }
