"""What families with an atomic multipole density share: the energies it adds, its moments."""

from __future__ import annotations

from jaxtyping import Array, Float

from mace_scf_jax.backbones import BackboneOutput
from mace_scf_jax.electrostatics import (
    System,
    batch_coulomb_energy,
    batch_external_field_energy,
)
from mace_scf_jax.graph import Graph
from mace_scf_jax.models.energies import energy_outputs, layer_terms
from mace_scf_jax.models.settings import ModelSettings


def density_outputs(
    settings: ModelSettings,
    graph: Graph,
    backbone: BackboneOutput,
    multipoles: Float[Array, "atoms components"],
    dipole: Float[Array, "graphs 3"],
    *,
    prepared: System | None = None,
) -> dict[str, Array]:
    """Energy = isolated atoms + layer readouts + Coulomb energy of the multipoles + D·E.

    Args:
        settings: of the model.
        graph: the batch.
        backbone: features and readouts of every layer.
        multipoles: in e Å^l, order Q, d_y, d_z, d_x; zero for padding atoms.
        dipole: in e Å (x, y, z).
        prepared: what `prepare_batch` gave for this graph, to be reused.
    """
    outputs = energy_outputs(graph, layer_terms(settings, graph, backbone))
    coulomb = batch_coulomb_energy(graph, multipoles, settings=settings.density, prepared=prepared)
    in_field = batch_external_field_energy(graph, dipole)
    return {
        **outputs,
        "energy": outputs["energy"] + coulomb + in_field,
        "electrostatic_energy": coulomb,
        "multipoles": multipoles,
        "dipole": dipole,
        "total_charge": graph.sum_atoms(multipoles[:, 0]),
    }
