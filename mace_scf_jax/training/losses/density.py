"""Losses of the charge density in reciprocal space.

Model and reference are given on a grid of wavevectors, as real and imaginary part: ``rho_fftn`` and
``rho_fftn_dft`` [graphs, kvectors, 2]. Neither the configurations nor the label have weights.
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Float

from mace_scf_jax.graph import Graph
from mace_scf_jax.hints import unknown_name
from mace_scf_jax.training.losses.terms import LossTerm, Mean, Prediction, finite_number, mean

LARGEST_WEIGHT = 10.0
"""Of a wavevector in `rho_fftn`."""

FORMS = ("poly", "exponential", "gaussian")


@dataclasses.dataclass(frozen=True)
class FourierDensityOptions:
    """How the error at a wavevector k is weighted.

    Raises:
        ValueError: a form that does not exist, or a value of a wrong kind.
    """

    form: str = "poly"
    """c(k) = |k|^α, but at most k_min^α (poly); exp(-α |k|) (exponential); exp(-α k²) (gaussian)"""
    alpha: float = 1.0
    k_min: float = 1.0
    """In 1/Å; for the form poly."""

    def __post_init__(self) -> None:
        if self.form not in FORMS:
            raise ValueError(unknown_name("form", str(self.form), FORMS))
        for name in ("alpha", "k_min"):
            object.__setattr__(self, name, finite_number(name, getattr(self, name)))
        if self.k_min <= 0.0:
            raise ValueError(f"k_min: expected a number above zero, found {self.k_min!r}")

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


def rho_fftn(prediction: Prediction, graph: Graph) -> Mean:
    """Mean over graphs, wavevectors and both parts of (ρ - ρ_ref)² c(k), c = min(1/|k|, 10)."""
    squared = prediction["k_vectors_normed_squared"]
    at_origin = squared == 0.0
    inverse = 1.0 / jnp.sqrt(jnp.where(at_origin, jnp.ones_like(squared), squared))
    largest = jnp.full_like(squared, LARGEST_WEIGHT)
    weight = jnp.where(at_origin, largest, jnp.minimum(inverse, largest))
    return mean(weight[..., None] * _error(prediction) ** 2, graph.graph_mask)


def fourier_density(prediction: Prediction, graph: Graph, options: FourierDensityOptions) -> Mean:
    """Mean over the wavevectors of ``k_vectors_mask`` and both parts of (ρ - ρ_ref)² c(k)²."""
    weight = options.weight(prediction["k_vectors_normed_squared"])
    mask = (prediction["k_vectors_mask"] > 0) & graph.graph_mask[:, None]
    return mean((weight[..., None] * _error(prediction)) ** 2, mask)


def _error(prediction: Prediction) -> Float[Array, "graphs kvectors 2"]:
    return prediction["rho_fftn"] - prediction["rho_fftn_dft"]


_OUTPUTS = ("rho_fftn", "rho_fftn_dft", "k_vectors_normed_squared")

TERMS = (
    LossTerm(
        "rho_fftn",
        rho_fftn,
        "charge density in reciprocal space, long waves first",
        predictions=_OUTPUTS,
    ),
    LossTerm(
        "fourier_density",
        fourier_density,
        "charge density in reciprocal space",
        predictions=(*_OUTPUTS, "k_vectors_mask"),
        options=FourierDensityOptions,
    ),
)
"""The terms of this file."""
