"""LocalCharges: multipoles read from the local environment, and their Coulomb energy."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array

from mace_scf_jax.backbone import MACEBackbone
from mace_scf_jax.backbone.features import concatenate_components
from mace_scf_jax.backbone.readout import LinearReadout
from mace_scf_jax.electrostatics import batch_coulomb_energy, batch_dipole
from mace_scf_jax.graph import Graph
from mace_scf_jax.models.mace import isolated_atom_energies
from mace_scf_jax.models.settings import ModelSettings


class LocalCharges(nn.Module):
    """Energy = isolated atoms + layer readouts + Coulomb energy of the multipoles + D·E.

    Every layer adds a linear readout of its features to the multipoles of an atom. The total
    charge is not conserved.

    Attributes:
        settings: sizes, choices and constants; `electrostatics` is needed.
    """

    settings: ModelSettings

    OUTPUTS = (
        "energy",
        "node_energy",
        "contributions",
        "electrostatic_energy",
        "multipoles",
        "dipole",
        "total_charge",
    )

    @nn.compact
    def __call__(self, graph: Graph) -> dict[str, Array]:
        """Energies (eV), multipoles (e, e Å; order Q, d_y, d_z, d_x) and dipoles (e Å; x, y, z)."""
        electrostatics = self.settings.electrostatics
        backbone = MACEBackbone(self.settings.backbone, name="backbone")(graph)
        one_of_each = dict.fromkeys(range(electrostatics.max_l + 1), 1)
        multipoles = sum(
            concatenate_components(
                LinearReadout(one_of_each, name=f"multipole_readout_{layer}")(features)
            )[..., 0]
            for layer, features in enumerate(backbone.layers)
        )
        multipoles = jnp.where(graph.atom_mask[:, None], multipoles, 0.0)

        isolated = isolated_atom_energies(self.settings, graph) + backbone.pair_energy
        terms = jnp.stack([isolated, *backbone.layer_energies], axis=-1)
        contributions = graph.sum_atoms(terms)
        coulomb = batch_coulomb_energy(graph, multipoles, settings=electrostatics)
        dipole = batch_dipole(graph, multipoles)
        in_field = jnp.sum(dipole * graph.external_field, axis=-1)
        return {
            "energy": jnp.sum(contributions, axis=-1) + coulomb + in_field,
            "node_energy": jnp.where(graph.atom_mask, jnp.sum(terms, axis=-1), 0.0),
            "contributions": contributions,
            "electrostatic_energy": coulomb,
            "multipoles": multipoles,
            "dipole": dipole,
            "total_charge": graph.sum_atoms(multipoles[:, 0]),
        }
