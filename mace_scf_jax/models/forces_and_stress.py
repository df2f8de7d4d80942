"""Energies and their derivatives: forces, stress, virials."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array

from mace_scf_jax.dispersion import dispersion_energy
from mace_scf_jax.graph import Graph
from mace_scf_jax.models.energies import isolated_atom_energies
from mace_scf_jax.models.screening import model_outputs
from mace_scf_jax.models.settings import ModelSettings

Parameters = dict[str, Any]


def evaluate(
    module: nn.Module,
    params: Parameters,
    graph: Graph,
    *,
    how: Any = None,
    start: Any = None,
    forces: bool = True,
    stress: bool = False,
) -> dict[str, Array]:
    """All outputs of a model for a batch, with derivatives of the one energy.

    Args:
        graph: the batch; with labels where the state of the model starts from them.
        how: how the state of the model is solved for, see `Family.solve`; None for its default.
            Forces and stress of a `DirectStep` are those at fixed reference multipoles.
        start: a state to start from, such as `SCFState.of` the outputs of the geometry before.
        forces: add ``forces``, see `with_derivatives`.
        stress: add ``stress`` and ``virials``.

    Returns:
        Outputs by name, which `mace_scf_jax.models.OUTPUTS` describes. Entries of padding atoms and
        graphs are zero.
    """
    settings = module.settings
    outputs = with_derivatives(
        lambda moved: _with_dispersion(
            settings, moved, model_outputs(module, params, moved, how=how, start=start)
        ),
        graph,
        forces=forces,
        stress=stress,
    )
    isolated = graph.sum_atoms(isolated_atom_energies(settings, graph))
    outputs["interaction_energy"] = outputs["energy"] - isolated
    if "multipoles" in outputs:
        outputs["charges"] = outputs["multipoles"][:, 0]
    if settings.backbone.least_distance > 0.0:
        outputs["shortest_distance"] = graph.shortest_edges()
    return outputs


def _with_dispersion(
    settings: ModelSettings, graph: Graph, outputs: dict[str, Array]
) -> dict[str, Array]:
    """Outputs of a model with the dispersion that its settings say, if any."""
    if settings.dispersion is None:
        return outputs
    energy = dispersion_energy(settings.dispersion, settings.elements, graph)
    return outputs | {"energy": outputs["energy"] + energy, "dispersion_energy": energy}


def with_derivatives(
    outputs_of: Callable[[Graph], dict[str, Array]],
    graph: Graph,
    *,
    forces: bool,
    stress: bool,
) -> dict[str, Array]:
    """Outputs of a function of a batch, with total derivatives of its energy.

    Positions and cell pass through one strain of each graph before anything is computed, so that
    forces and stress are exact derivatives.

    Args:
        outputs_of: outputs of a batch by name, among them ``energy`` [graphs] in eV.
        forces: add ``forces`` [atoms, 3] in eV/Å. Like all derivatives in the precision of the
            batch, while energies are in double precision.
        stress: add ``stress`` [graphs, 3, 3] in eV/Å³ (ASE's sign: dE/dε / volume) and
            ``virials`` [graphs, 3, 3] in eV (-dE/dε). Graphs of zero volume get zero stress.
    """

    def total_energy(positions, strain):
        moved = graph.replace(positions=positions)
        outputs = outputs_of(moved.strained(strain) if stress else moved)
        return jnp.sum(outputs["energy"]), outputs

    strain = jnp.zeros_like(jnp.asarray(graph.cell))
    positions = jnp.asarray(graph.positions)
    if not (forces or stress):
        return total_energy(positions, strain)[1]
    wanted = (0, 1) if stress else (0,)
    (position_gradient, *strain_gradient), outputs = jax.grad(
        total_energy, argnums=wanted, has_aux=True
    )(positions, strain)
    outputs = dict(outputs)
    if forces:
        slopes = jnp.where(graph.atom_mask[:, None], -position_gradient, 0.0)
        outputs["forces"] = slopes.astype(graph.dtype)
    if stress:
        virials = jnp.where(graph.graph_mask[:, None, None], -strain_gradient[0], 0.0)
        volume = jnp.abs(jnp.linalg.det(graph.cell))[:, None, None]
        outputs["virials"] = virials.astype(graph.dtype)
        outputs["stress"] = jnp.where(
            volume > 0.0, -virials / jnp.where(volume > 0.0, volume, 1.0), 0.0
        ).astype(graph.dtype)
    return outputs
