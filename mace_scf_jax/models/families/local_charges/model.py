"""LocalCharges: multipoles read from the local environment, and their Coulomb energy."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array

from mace_scf_jax.electrostatics import batch_dipole
from mace_scf_jax.graph import Graph
from mace_scf_jax.layers.features import add_up, concatenate_components
from mace_scf_jax.layers.readout import LinearReadout
from mace_scf_jax.models.energies import density_outputs
from mace_scf_jax.models.settings import ModelSettings


class LocalCharges(nn.Module):
    """Energy = isolated atoms + layer readouts + Coulomb energy of the multipoles + D·E.

    Every layer adds a linear readout of its features to the multipoles of an atom. The total
    charge is not conserved.

    Attributes:
        settings: sizes, choices and constants; `electrostatics` is needed.
    """

    settings: ModelSettings

    @nn.compact
    def __call__(self, graph: Graph) -> dict[str, Array]:
        """Energies (eV), multipoles (e, e Å; order Q, d_y, d_z, d_x) and dipoles (e Å; x, y, z)."""
        backbone = self.settings.backbone.build(name="backbone")(graph)
        one_of_each = dict.fromkeys(range(self.settings.density.max_l + 1), 1)
        multipoles = add_up(
            concatenate_components(
                LinearReadout(one_of_each, name=f"multipole_readout_{layer}")(features)
            )[..., 0]
            for layer, features in enumerate(backbone.layers)
        )
        multipoles = jnp.where(graph.atom_mask[:, None], multipoles, 0.0)
        return density_outputs(
            self.settings, graph, backbone, multipoles, batch_dipole(graph, multipoles)
        )
