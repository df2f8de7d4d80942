"""Losses that need no label: they keep a self-consistent solution stable."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from pydantic import Field, StrictBool

from mace_scf_jax.graph import Graph
from mace_scf_jax.options import OptionGroup
from mace_scf_jax.options.values import Number, PositiveNumber
from mace_scf_jax.training.losses.terms import Mean, Prediction, mean, register_loss

LINEAR_ABOVE = 20.0
"""Where the softplus function is replaced by its argument, as in PyTorch."""


class StabilityOptions(OptionGroup):
    """Which growth of a perturbation is penalised"""

    smooth: StrictBool = Field(default=True, description="softplus instead of a ramp")
    beta: PositiveNumber = Field(default=10.0, description="sharpness β of the softplus function")
    offset: Number = Field(
        default=1.0, description="squared growth from which on the penalty starts"
    )


@register_loss(
    "growth of a perturbation in one self-consistency step",
    predictions=("perturbing_vector", "perturbed_density"),
    options=StabilityOptions,
)
def fixedpoint_scf_stability(
    prediction: Prediction, graph: Graph, options: StabilityOptions
) -> Mean:
    """Mean over graphs and components of g(|out|² / |in|² - offset).

    ``perturbing_vector`` [atoms, components] is what one self-consistency step was perturbed by,
    ``perturbed_density`` what became of it; the norms are over the atoms of a graph. g is a
    softplus function or a ramp. No weights.
    """
    ingoing = graph.sum_atoms(prediction["perturbing_vector"] ** 2)
    outgoing = graph.sum_atoms(prediction["perturbed_density"] ** 2)
    perturbed = graph.graph_mask[:, None] & (ingoing > 0.0)
    growth = outgoing / jnp.where(perturbed, ingoing, jnp.ones_like(ingoing)) - options.offset
    if options.smooth:
        scaled = options.beta * growth
        smooth = jax.nn.softplus(jnp.minimum(scaled, LINEAR_ABOVE)) / options.beta
        penalty = jnp.where(scaled > LINEAR_ABOVE, growth, smooth)
    else:
        penalty = jax.nn.relu(growth)
    return mean(penalty, perturbed)


@register_loss(
    "change of the multipoles in the last self-consistency step", predictions=("charges_history",)
)
def final_terms_fixedpoint_scf_stability(prediction: Prediction, graph: Graph) -> Mean:
    """Mean over atoms and components of |p_last - p_previous|, in e Å^l.

    ``charges_history`` [atoms, components, steps] are the multipoles after each step. No weights.
    """
    history = prediction["charges_history"]
    return mean(jnp.abs(history[..., -1] - history[..., -2]), graph.atom_mask)


@register_loss("charges that rise with the Fermi level", predictions=("dq_dmu",))
def fermi_level_gradient(prediction: Prediction, graph: Graph) -> Mean:
    """Mean over atoms of the positive part of dq/dμ, ``dq_dmu`` [atoms] in e/eV.

    Charges (not electron numbers) must fall when the Fermi level rises. No weights.
    """
    return mean(jax.nn.relu(prediction["dq_dmu"]), graph.atom_mask)
