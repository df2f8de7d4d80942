"""Losses that need no label: they keep a self-consistent solution stable."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
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


LARGEST_WEIGHT = 10.0
"""Of a wavevector in `rho_fftn`."""

_OUTPUTS = ("rho_fftn", "rho_fftn_dft", "k_vectors_normed_squared")


class FourierDensityOptions(OptionGroup):
    """How the error at a wavevector k is weighted"""

    form: Literal["poly", "exponential", "gaussian"] = Field(
        default="poly",
        description="c(k) = |k|^α, but at most k_min^α (poly); exp(-α |k|) (exponential); "
        "exp(-α k²) (gaussian)",
    )
    alpha: Number = Field(default=1.0, description="α of c(k)")
    k_min: PositiveNumber = Field(default=1.0, description="in 1/Å; for the form poly")

    def weight(self, squared: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """c(k) from k² in 1/Å²; for the form poly k_min^α at k = 0."""
        if self.form == "gaussian":
            return jnp.exp(-self.alpha * squared)
        at_origin = squared == 0.0
        length = jnp.sqrt(jnp.where(at_origin, jnp.ones_like(squared), squared))
        if self.form == "exponential":
            return jnp.where(at_origin, jnp.ones_like(squared), jnp.exp(-self.alpha * length))
        limit = jnp.full_like(squared, self.k_min**self.alpha)
        return jnp.where(at_origin, limit, jnp.minimum(length**self.alpha, limit))


@register_loss("charge density in reciprocal space, long waves first", predictions=_OUTPUTS)
def rho_fftn(prediction: Prediction, graph: Graph) -> Mean:
    """Mean over graphs, wavevectors and both parts of (ρ - ρ_ref)² c(k), c = min(1/|k|, 10)."""
    squared = prediction["k_vectors_normed_squared"]
    at_origin = squared == 0.0
    inverse = 1.0 / jnp.sqrt(jnp.where(at_origin, jnp.ones_like(squared), squared))
    largest = jnp.full_like(squared, LARGEST_WEIGHT)
    weight = jnp.where(at_origin, largest, jnp.minimum(inverse, largest))
    return mean(weight[..., None] * _error(prediction) ** 2, graph.graph_mask)


@register_loss(
    "charge density in reciprocal space",
    predictions=(*_OUTPUTS, "k_vectors_mask"),
    options=FourierDensityOptions,
)
def fourier_density(prediction: Prediction, graph: Graph, options: FourierDensityOptions) -> Mean:
    """Mean over the wavevectors of ``k_vectors_mask`` and both parts of (ρ - ρ_ref)² c(k)²."""
    weight = options.weight(prediction["k_vectors_normed_squared"])
    mask = (prediction["k_vectors_mask"] > 0) & graph.graph_mask[:, None]
    return mean((weight[..., None] * _error(prediction)) ** 2, mask)


def _error(prediction: Prediction) -> Float[Array, "graphs kvectors 2"]:
    return prediction["rho_fftn"] - prediction["rho_fftn_dft"]
