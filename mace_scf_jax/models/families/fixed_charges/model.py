"""FixedChargeBaselinedMACE: formal charges that never change, and their Coulomb energy."""

from __future__ import annotations

import flax.linen as nn
from jaxtyping import Array

from mace_scf_jax.electrostatics import batch_dipole
from mace_scf_jax.graph import Graph
from mace_scf_jax.models.energies import density_outputs
from mace_scf_jax.models.formal_charges import FormalChargeSettings, formal_charges
from mace_scf_jax.models.settings import ModelSettings


class FixedChargeBaselinedMACE(nn.Module):
    """Energy = isolated atoms + layer readouts + Coulomb energy of the formal charges + D·E.

    Nothing is learned on the side of the charges: the network learns what fixed charges miss.

    Attributes:
        settings: sizes, choices and constants; `electrostatics` is needed, with `max_l` 0.
    """

    settings: ModelSettings[FormalChargeSettings]

    @nn.compact
    def __call__(self, graph: Graph) -> dict[str, Array]:
        """Energies (eV), multipoles (e; formal charges) and dipoles (e Å; x, y, z)."""
        backbone = self.settings.backbone.build(name="backbone")(graph)
        multipoles = formal_charges(self.settings, graph)[:, None]
        return density_outputs(
            self.settings, graph, backbone, multipoles, batch_dipole(graph, multipoles)
        )
