"""The equations of a fixed-point problem in vectors: one row of unknowns for each system.

At constant charge a row holds the state and the level, z = (p, μ), and the residual is

    R(z) = (p - F(p, μ), Σ p₀ - Q);

at constant level it holds the state alone. Entries without a site are zero in every vector.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mace_scf_jax.scf.elimination import Elimination, eliminate_charge
from mace_scf_jax.scf.krylov import LinearOperator, Vectors
from mace_scf_jax.scf.problem import FixedPointProblem, State


@dataclasses.dataclass(frozen=True)
class Equations:
    """R(z) of a problem, and what solvers ask about it."""

    problem: FixedPointProblem
    level: Float[Array, "systems"]
    """μ where it is given; not used at constant charge."""

    @property
    def has_level(self) -> bool:
        """Whether the level is unknown."""
        return self.problem.charge is not None

    def pack(self, state: State, level: Float[Array, "systems"]) -> Vectors:
        """Vectors of a state, and of a level if it is unknown."""
        vectors = state.reshape(len(state), -1)
        return jnp.concatenate([vectors, level[:, None]], axis=1) if self.has_level else vectors

    def unpack(self, vectors: Vectors) -> tuple[State, Float[Array, "systems"]]:
        """State and level of vectors; the given level if it is known."""
        state = self.state_part(vectors).reshape(*self.problem.site_mask.shape, -1)
        return state, (vectors[:, -1] if self.has_level else self.level)

    def state_part(self, vectors: Vectors) -> Float[Array, "systems state"]:
        """The entries of vectors that belong to the state."""
        return vectors[:, :-1] if self.has_level else vectors

    def residual(self, vectors: Vectors) -> Array:
        """R(z)."""
        state, level = self.unpack(vectors)
        difference = state - self.problem.evaluate(state, level)
        return self.pack(difference, -self.charge_error(state))

    def charge_error(self, state: State) -> Float[Array, "systems"]:
        """Wanted charge minus charge of each system; 0 if the level is known."""
        charge = self.problem.charge
        return (
            jnp.zeros_like(self.level) if charge is None else charge - self.problem.charges(state)
        )

    def error(self, residual: Vectors) -> Float[Array, "systems"]:
        """Mean of |F(p, μ) - p| of each system, from R."""
        return self.problem.mean_size(self.unpack(residual)[0])

    def is_solved(
        self, vectors: Vectors, residual: Vectors, tolerance: float
    ) -> Bool[Array, "systems"]:
        """Whether mean |F(p, μ) - p| and the charge error are below a tolerance.

        The tolerance is never taken below what the precision of the numbers resolves.
        """
        state, _ = self.unpack(vectors)
        resolved = 10.0 * float(jnp.finfo(vectors.dtype).eps) * self.problem.mean_size(state)
        solved = self.error(residual) <= jnp.maximum(tolerance, resolved)
        if not self.has_level:
            return solved
        resolved = resolved * (self.problem.num_sites() * state.shape[-1]).astype(state.dtype)
        return solved & (jnp.abs(residual[:, -1]) <= jnp.maximum(tolerance, resolved))

    def wanted_norm(self, vectors: Vectors, tolerance: float) -> Float[Array, "systems"]:
        """Norm of the state part of a residual that is certain to meet the tolerance."""
        state, _ = self.unpack(vectors)
        count = jnp.maximum(self.problem.num_sites(), 1) * state.shape[-1]
        return tolerance * jnp.sqrt(count.astype(vectors.dtype))

    def residual_with_response(
        self, vectors: Vectors
    ) -> tuple[Vectors, Float[Array, "systems state"] | None]:
        """R(z), and w = ∂F/∂μ of every system there; no w if the level is known.

        As p stays as it is, w costs no more than the part of F that the level goes through: what F
        does to the state before, as a sum over pairs of sites, is not repeated.
        """
        if not self.has_level:
            return self.residual(vectors), None
        residual, change = jax.jvp(
            lambda levels: self.residual(vectors.at[:, -1].set(levels)),
            (vectors[:, -1],),
            (jnp.ones_like(vectors[:, -1]),),
        )
        return residual, -change[:, :-1]

    def elimination_at(self, slope: LinearOperator, vectors: Vectors) -> Elimination:
        """The preconditioner M⁻¹ where the Jacobian of R is known.

        Args:
            slope: the Jacobian; applied once if the level is unknown.
            vectors: any of the right shape and type.
        """
        if not self.has_level:
            return eliminate_charge(self.problem, None)
        direction = jnp.zeros_like(vectors).at[:, -1].set(1.0)
        return eliminate_charge(self.problem, -slope(direction)[:, :-1])
