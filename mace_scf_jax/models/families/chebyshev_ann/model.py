"""ChebyshevANN: energies of atoms from networks on the descriptors of their surroundings."""

from __future__ import annotations

import flax.linen as nn
from jaxtyping import Array

from mace_scf_jax.graph import Graph
from mace_scf_jax.models.energies import energy_outputs, isolated_atom_energies, stacked_terms
from mace_scf_jax.models.settings import ModelSettings


class ChebyshevANN(nn.Module):
    """Energy = isolated atoms + networks on descriptors, which the training scales and shifts.

    Attributes:
        settings: sizes, choices and constants.

    Source:
        Behler and Parrinello, Phys. Rev. Lett. 98, 146401 (2007); Artrith, Urban and Ceder, Phys.
        Rev. B 96, 014112 (2017).
    """

    settings: ModelSettings

    @nn.compact
    def __call__(self, graph: Graph) -> dict[str, Array]:
        """Energies of a batch in eV: energy, node_energy, contributions (isolated, networks)."""
        backbone = self.settings.backbone.build(name="backbone")(graph)
        isolated = isolated_atom_energies(self.settings, graph)
        return energy_outputs(graph, stacked_terms(isolated, *backbone.layer_energies))
