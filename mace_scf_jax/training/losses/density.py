"""Losses of the charge density in reciprocal space.

Model and reference are given on a grid of wavevectors, as real and imaginary part: ``rho_fftn`` and
``rho_fftn_dft`` [graphs, kvectors, 2]. Neither the configurations nor the label have weights.
"""

from __future__ import annotations

from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Float
from pydantic import Field

from mace_scf_jax.graph import Graph
from mace_scf_jax.options import OptionGroup
from mace_scf_jax.options.values import Number, PositiveNumber
from mace_scf_jax.training.losses.terms import Mean, Prediction, mean, register_loss

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
