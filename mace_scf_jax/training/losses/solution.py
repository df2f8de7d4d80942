"""Losses that need no label: they keep a self-consistent solution stable."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from mace_scf_jax.graph import Graph
from mace_scf_jax.training.losses.terms import LossTerm, Mean, Prediction, finite_number, mean

LINEAR_ABOVE = 20.0
"""Where the softplus function is replaced by its argument, as in PyTorch."""


@dataclasses.dataclass(frozen=True)
class StabilityOptions:
    """Which growth of a perturbation is penalised.

    Raises:
        ValueError: a value of a wrong kind, or β not positive.
    """

    smooth: bool = True
    """Softplus instead of a ramp."""
    beta: float = 10.0
    """Sharpness of the softplus function."""
    offset: float = 1.0
    """Squared growth from which on the penalty starts."""

    def __post_init__(self) -> None:
        if not isinstance(self.smooth, bool):
            raise ValueError(f"smooth: expected true or false, found {self.smooth!r}")
        for name in ("beta", "offset"):
            object.__setattr__(self, name, finite_number(name, getattr(self, name)))
        if self.beta <= 0.0:
            raise ValueError(f"beta: expected a number above zero, found {self.beta!r}")


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


def final_terms_fixedpoint_scf_stability(prediction: Prediction, graph: Graph) -> Mean:
    """Mean over atoms and components of |p_last - p_previous|, in e Å^l.

    ``charges_history`` [atoms, components, steps] are the multipoles after each step. No weights.
    """
    history = prediction["charges_history"]
    return mean(jnp.abs(history[..., -1] - history[..., -2]), graph.atom_mask)


def fermi_level_gradient(prediction: Prediction, graph: Graph) -> Mean:
    """Mean over atoms of the positive part of dq/dμ, ``dq_dmu`` [atoms] in e/eV.

    Charges (not electron numbers) must fall when the Fermi level rises. No weights.
    """
    return mean(jax.nn.relu(prediction["dq_dmu"]), graph.atom_mask)


TERMS = (
    LossTerm(
        "fixedpoint_scf_stability",
        fixedpoint_scf_stability,
        "growth of a perturbation in one self-consistency step",
        predictions=("perturbing_vector", "perturbed_density"),
        options=StabilityOptions,
    ),
    LossTerm(
        "final_terms_fixedpoint_scf_stability",
        final_terms_fixedpoint_scf_stability,
        "change of the multipoles in the last self-consistency step",
        predictions=("charges_history",),
    ),
    LossTerm(
        "fermi_level_gradient",
        fermi_level_gradient,
        "charges that rise with the Fermi level",
        predictions=("dq_dmu",),
    ),
)
"""The terms of this file."""
