"""LocalCharges: multipoles read from the local environment, and their Coulomb energy."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array

from mace_scf_jax.electrostatics import batch_dipole, dipole_cartesian
from mace_scf_jax.graph import Graph
from mace_scf_jax.layers.features import concatenate_components
from mace_scf_jax.models.energies import density_outputs
from mace_scf_jax.models.families.local_charges.conservation import LearnedConservation
from mace_scf_jax.models.families.local_charges.settings import (
    Conservation,
    LocalChargesSettings,
)
from mace_scf_jax.models.settings import ModelSettings


class LocalCharges(nn.Module):
    """Energy = isolated atoms + layer readouts + Coulomb energy of the multipoles + D·E.

    Every layer adds a readout of its features to the multipoles of an atom. What becomes of
    charge beyond the total charge is a setting (`Conservation`).

    Attributes:
        settings: sizes, choices and constants; `electrostatics` is needed.
    """

    settings: ModelSettings[LocalChargesSettings]

    @nn.compact
    def __call__(self, graph: Graph) -> dict[str, Array]:
        """Energies (eV), multipoles (e, e Å; order Q, d_y, d_z, d_x) and dipoles (e Å; x, y, z)."""
        own = self.settings.own
        backbone = self.settings.backbone.build(name="backbone")(graph)
        one_of_each = dict.fromkeys(range(self.settings.density.max_l + 1), 1)
        read = self.settings.backbone.read_out(
            backbone, one_of_each, label="multipole_readout", nonlinear_last=own.read_like_energies
        )
        multipoles = own.charge_scale * concatenate_components(read)[..., 0]
        multipoles = jnp.where(graph.atom_mask[:, None], multipoles, 0.0)
        conservation = own.conserve_charge
        if conservation == Conservation.LEARNED:
            conserve = LearnedConservation(self.settings, name="conservation")
            charges, dipole = conserve(graph, backbone, multipoles[:, 0])
            multipoles = multipoles.at[:, 0].set(charges)
            dipole += graph.sum_atoms(dipole_cartesian(multipoles)).astype(dipole.dtype)
        else:
            if conservation == Conservation.UNIFORM:
                multipoles = multipoles.at[:, 0].add(-_mean_surplus(graph, multipoles[:, 0]))
            dipole = batch_dipole(graph, multipoles)
        return density_outputs(
            self.settings,
            graph,
            backbone,
            multipoles,
            dipole,
            scale=own.scale,
            shift=own.shift,
        )


def _mean_surplus(graph: Graph, charges: Array) -> Array:
    """Charge beyond the total charge, per atom of a graph, at each of its atoms."""
    surplus = graph.sum_atoms(charges) - graph.total_charge
    atoms = jnp.maximum(graph.sum_atoms(jnp.ones_like(charges)), 1.0)
    return jnp.where(graph.atom_mask, (surplus / atoms)[graph.atom_graph], 0.0)
