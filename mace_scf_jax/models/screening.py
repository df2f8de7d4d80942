"""Latent multipoles and electronic screening: the dipole of a model, and what a field does to it.

Multipoles p that explain energies contain the screening by electrons: in a dense phase they are the
real ones divided by √ε∞. Real ones make the dipole, so that

    D = √ε∞ D_0(p),    E_field = D·E,

with D_0 the dipole of the latent ones; their Coulomb energy stays as it is. Equivalently, latent
multipoles see the field √ε∞ E, as those that are solved for do.

If a model is to keep structures neutral in a field, the charge q = ∂D/∂r of a structure as a whole
that goes beyond its total charge Q acts as if all atoms had the same part of it,

    E_field = [D - (q - Q) R]·E,    R = ⟨r⟩.

This is an energy, whose forces add up to -Q E. What is reported as dipole remains D.
"""

from __future__ import annotations

import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from mace_scf_jax.electrostatics import batch_external_field_energy
from mace_scf_jax.graph import Graph
from mace_scf_jax.models.settings import ModelSettings

Parameters = dict[str, Any]


def dipole_scale(settings: ModelSettings) -> float:
    """Return √ε∞, the dipole of a model over that of its multipoles."""
    return 1.0 if settings.electrostatics is None else math.sqrt(settings.electrostatics.eps_infty)


def seen_by_multipoles(settings: ModelSettings, graph: Graph) -> Graph:
    """Return the batch with the external field √ε∞ E, which latent multipoles see.

    Whoever calls parts of a module, and not `model_outputs`, hands them this batch.
    """
    scale = dipole_scale(settings)
    if scale == 1.0:
        return graph
    return graph.replace(external_field=scale * jnp.asarray(graph.external_field))


def model_outputs(
    module: nn.Module, params: Parameters, graph: Graph, *, how: Any = None, start: Any = None
) -> dict[str, Array]:
    """Outputs of a model for a batch, as differentiable functions of batch and parameters.

    Args:
        how: how the state of the model is solved for, see `Family.solve`; None for its default.
        start: a state to start from.
    """
    settings, scale = module.settings, dipole_scale(module.settings)
    outputs = settings.of_family.solve.outputs(
        module, params, seen_by_multipoles(settings, graph), how=how, start=start
    )
    if scale != 1.0:
        outputs = outputs | {"dipole": scale * outputs["dipole"]}
    if settings.electrostatics is not None and settings.electrostatics.keep_neutral:
        surplus = _moving_charge(settings, graph, outputs, scale) - jnp.asarray(graph.total_charge)
        at_centre = surplus[:, None] * _centres(graph)
        in_field = batch_external_field_energy(graph, at_centre)
        outputs = outputs | {"energy": outputs["energy"] - in_field.astype(outputs["energy"].dtype)}
    return outputs


def _moving_charge(
    settings: ModelSettings, graph: Graph, outputs: dict[str, Array], scale: float
) -> Float[Array, "graphs"]:
    """∂D/∂r of a whole structure in e: what its dipole changes by when the structure is moved."""
    is_centred = settings.density.surplus_at_centre and not settings.own.has_polarization
    charge = jnp.asarray(graph.total_charge) if is_centred else outputs["total_charge"]
    return scale * charge


def _centres(graph: Graph) -> Float[Array, "graphs 3"]:
    """Mean position of the atoms of each graph in Å."""
    positions = jnp.asarray(graph.positions)
    atoms = graph.sum_atoms(jnp.ones_like(positions[:, 0]))
    return graph.sum_atoms(positions) / jnp.maximum(atoms, 1.0)[:, None]
