"""The preconditioner of all searches: it eliminates the charge, and undoes ∂F/∂p if it is known.

With A the ∂F/∂p that the problem comes with, zero if it has none, and w = ∂F/∂μ, the Jacobian of
the residual R(p, μ) is about

    M = [ 1 - A   -w ]
        [  1ᵀ₀     0 ],        1ᵀ₀ p = Σ p₀.

M⁻¹ adds the response u = (1 - A)⁻¹ w of the state to the level, such that the charge comes out
right: with s = (1 - A)⁻¹ r,

    M⁻¹ (r, q) = (s + u m, m),    m = (q - Σ s₀) / Σ u₀.

With A = 0 a fixed-point iteration preconditioned so is the iteration of the state alone under
f ← f + w (Q - Σ f₀) / Σ w₀. At constant level, and where charge does not answer to the level, M⁻¹
is (1 - A)⁻¹ alone.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mace_scf_jax.scf.krylov import Vectors
from mace_scf_jax.scf.problem import FixedPointProblem, SlopePreconditioner

SMALLEST_RESPONSE = 1e-6
"""|Σ u₀| relative to Σ |u₀| below which charge cannot be eliminated by the level."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ChargeResponse:
    """How state and charge answer to the level."""

    state: Float[Array, "systems state"]
    """u."""
    charges: Float[Array, "systems state"]
    """One for the entries of the state that are charges."""
    inverse: Float[Array, "systems"]
    """1 / Σ u₀; 0 where charge does not answer to the level."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Elimination:
    """M⁻¹ as a linear operator on vectors; made by `eliminate_charge`."""

    slopes: SlopePreconditioner | None
    """1 - A; None for A = 0."""
    response: ChargeResponse | None
    """None if the level is given."""

    def apply(self, vectors: Vectors) -> Array:
        """M⁻¹ (r, q)."""
        if self.response is None:
            return self._undo(vectors)
        u, charges, inverse = self.response.state, self.response.charges, self.response.inverse
        state, missing = self._undo(vectors[:, :-1]), vectors[:, -1]
        level = inverse * (missing - jnp.sum(charges * state, axis=-1))
        level_or_missing = jnp.where(inverse != 0.0, level, missing)
        return jnp.concatenate([state + u * level[:, None], level_or_missing[:, None]], axis=1)

    def transpose(self, vectors: Vectors) -> Array:
        """The transpose of M⁻¹, applied."""
        if self.response is None:
            return self._undo(vectors, transposed=True)
        u, charges, inverse = self.response.state, self.response.charges, self.response.inverse
        state, level = vectors[:, :-1], vectors[:, -1]
        missing = inverse * (level + jnp.sum(u * state, axis=-1))
        state = self._undo(state - charges * missing[:, None], transposed=True)
        missing_or_level = jnp.where(inverse != 0.0, missing, level)
        return jnp.concatenate([state, missing_or_level[:, None]], axis=1)

    def _undo(self, state: Array, *, transposed: bool = False) -> Array:
        """(1 - A)⁻¹ p, or with the transpose."""
        return state if self.slopes is None else self.slopes.solve(state, transposed=transposed)


def eliminate_charge(
    problem: FixedPointProblem, response: Float[Array, "systems state"] | None
) -> Elimination:
    """The preconditioner M⁻¹ of a problem; it has no derivative.

    Args:
        problem: the equations, with A if they have it.
        response: w; None if the level is given.
    """
    slopes = problem.preconditioner
    if response is None:
        return Elimination(slopes, None)
    response = jax.lax.stop_gradient(response)
    response = response if slopes is None else slopes.solve(response)
    finite = jnp.all(jnp.isfinite(response), axis=-1, keepdims=True)
    response = jnp.where(finite, response, 0.0)
    charges = jnp.zeros_like(response).reshape(*problem.site_mask.shape, -1)
    charges = charges.at[:, :, 0].set(problem.site_mask.astype(response.dtype))
    charges = charges.reshape(response.shape)
    total = jnp.sum(response * charges, axis=-1)
    answers = jnp.abs(total) > SMALLEST_RESPONSE * jnp.sum(jnp.abs(response) * charges, axis=-1)
    inverse = jnp.where(answers, 1.0 / jnp.where(answers, total, 1.0), 0.0)
    return Elimination(slopes, ChargeResponse(response, charges, inverse))
