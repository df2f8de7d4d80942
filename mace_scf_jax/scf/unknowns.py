"""The equations of a fixed-point problem in vectors: one row of unknowns for each system.

At constant charge a row holds the state and the level, z = (p, μ), and the residual is

    R(z) = (p - F(p, μ), Σ p₀ - Q);

at constant level it holds the state alone. Rows have room for the sites of the largest system;
entries without a site are zero in every vector.
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mace_scf_jax.scf.fixed_point import FixedPointProblem
from mace_scf_jax.scf.krylov import LinearOperator, identity

SMALLEST_RESPONSE = 1e-6
"""|Σ w₀| relative to Σ |w₀| below which charge cannot be eliminated by the level."""


@dataclasses.dataclass(frozen=True)
class Unknowns:
    """Packs states and levels into vectors, and evaluates the residual there."""

    problem: FixedPointProblem
    num_components: int
    slots: Int[Array, "systems slots"]
    """Site in each slot of a system; masked if there is none."""
    slot_mask: Bool[Array, "systems slots"]
    slot_of_site: Int[Array, "sites"]

    @classmethod
    def of(cls, problem: FixedPointProblem, num_components: int) -> Unknowns:
        """The unknowns of a problem.

        Args:
            problem: the problem.
            num_components: of the state at a site.
        """
        mask, systems = problem.site_mask, problem.system_of_site
        num_slots = problem.max_sites or len(mask)
        before = jnp.cumsum(mask.astype(jnp.int32)) - mask.astype(jnp.int32)
        counts = problem.num_sites()
        slot = before - (jnp.cumsum(counts) - counts)[systems]
        slot = jnp.where(mask, slot, num_slots)
        sites = jnp.arange(len(mask), dtype=jnp.int32)
        shape = (problem.num_systems, num_slots)
        return cls(
            problem=problem,
            num_components=num_components,
            slots=jnp.zeros(shape, jnp.int32).at[systems, slot].set(sites, mode="drop"),
            slot_mask=jnp.zeros(shape, bool).at[systems, slot].set(True, mode="drop"),
            slot_of_site=jnp.minimum(slot, num_slots - 1),
        )

    @property
    def has_level(self) -> bool:
        """Whether the level is unknown."""
        return self.problem.charge is not None

    @property
    def num_state_unknowns(self) -> int:
        """Entries of a vector that belong to the state."""
        return self.slots.shape[1] * self.num_components

    def pack(
        self, state: Float[Array, "sites components"], level: Float[Array, "systems"]
    ) -> Float[Array, "systems unknowns"]:
        """Vectors of a state, and of a level if it is unknown."""
        dense = jnp.where(self.slot_mask[:, :, None], state[self.slots], 0.0)
        vectors = dense.reshape(len(dense), -1)
        return jnp.concatenate([vectors, level[:, None]], axis=1) if self.has_level else vectors

    def unpack(
        self, vectors: Float[Array, "systems unknowns"], level: Float[Array, "systems"]
    ) -> tuple[Float[Array, "sites components"], Float[Array, "systems"]]:
        """State and level of vectors; the given level if it is known."""
        dense = vectors[:, : self.num_state_unknowns]
        dense = dense.reshape(*self.slots.shape, self.num_components)
        state = dense[self.problem.system_of_site, self.slot_of_site]
        state = jnp.where(self.problem.site_mask[:, None], state, 0.0)
        return state, (vectors[:, -1] if self.has_level else level)

    def residual(
        self, vectors: Float[Array, "systems unknowns"], level: Float[Array, "systems"]
    ) -> Float[Array, "systems unknowns"]:
        """R(z), with the given level if it is known; not a number for systems without room."""
        state, level = self.unpack(vectors, level)
        difference = state - self.problem.evaluate(state, level)
        has_room = self.problem.num_sites() <= self.slots.shape[1]
        has_room = has_room[self.problem.system_of_site][:, None]
        difference = jnp.where(has_room, difference, jnp.nan)
        if not self.has_level:
            return self.pack(difference, level)
        return self.pack(difference, self.problem.charges(state) - self.problem.charge)

    def errors(
        self, residual: Float[Array, "systems unknowns"]
    ) -> tuple[Float[Array, "systems"], Float[Array, "systems"]]:
        """Mean of |F(p, μ) - p|, and wanted minus actual charge, of a residual."""
        count = jnp.sum(self.slot_mask, axis=-1).astype(residual.dtype) * self.num_components
        total = jnp.sum(jnp.abs(residual[:, : self.num_state_unknowns]), axis=-1)
        change = total / jnp.maximum(count, 1.0)
        return change, (-residual[:, -1] if self.has_level else jnp.zeros_like(change))

    def is_solved(
        self,
        vectors: Float[Array, "systems unknowns"],
        residual: Float[Array, "systems unknowns"],
        tolerance: float,
    ) -> Bool[Array, "systems"]:
        """Whether mean |F(p, μ) - p| and the charge error are below a tolerance.

        The tolerance is never taken below what the precision of the numbers resolves.
        """
        change, missing = self.errors(residual)
        size = jnp.sum(jnp.abs(vectors[:, : self.num_state_unknowns]), axis=-1)
        sites = jnp.maximum(jnp.sum(self.slot_mask, axis=-1), 1).astype(vectors.dtype)
        resolved = 10.0 * float(jnp.finfo(vectors.dtype).eps) * size
        small = change <= jnp.maximum(tolerance, resolved / (sites * self.num_components))
        return small & (jnp.abs(missing) <= jnp.maximum(tolerance, resolved))

    def wanted_norm(self, tolerance: float, dtype: jnp.dtype) -> Float[Array, "systems"]:
        """Norm of the state part of a residual that is certain to meet the tolerance."""
        count = jnp.maximum(jnp.sum(self.slot_mask, axis=-1), 1) * self.num_components
        return tolerance * jnp.sqrt(count.astype(dtype))

    def residual_with_response(
        self, vectors: Float[Array, "systems unknowns"], level: Float[Array, "systems"]
    ) -> tuple[Float[Array, "systems unknowns"], Float[Array, "systems state"] | None]:
        """R(z), and w = ∂F/∂μ of every system there; no w if the level is known.

        As p stays as it is, w costs no more than the part of F that the level goes through: what F
        does to the state before, as a sum over pairs of sites, is not repeated.
        """
        if not self.has_level:
            return self.residual(vectors, level), None
        residual, change = jax.jvp(
            lambda levels: self.residual(vectors.at[:, -1].set(levels), level),
            (vectors[:, -1],),
            (jnp.ones_like(vectors[:, -1]),),
        )
        return residual, -change[:, :-1]

    def response(
        self, slope: LinearOperator, dtype: jnp.dtype
    ) -> Float[Array, "systems state"] | None:
        """w = ∂F/∂μ of every system; none if the level is known.

        Args:
            slope: Jacobian of the residual; applied once.
            dtype: of the vectors.
        """
        if not self.has_level:
            return None
        size = self.num_state_unknowns + 1
        direction = jnp.zeros((len(self.slots), size), dtype).at[:, -1].set(1.0)
        return -slope(direction)[:, :-1]

    def elimination(
        self, response: Float[Array, "systems state"] | None
    ) -> tuple[LinearOperator, LinearOperator]:
        """Preconditioner that eliminates the charge, and its transpose.

        With A the ∂F/∂p that the problem comes with, zero if it has none, the Jacobian of R is
        about M = [[1 - A, -w], [1ᵀ, 0]], w = ∂F/∂μ. Its inverse adds the response u = (1 - A)⁻¹ w
        of the state to the level, such that the charge comes out right: with s = (1 - A)⁻¹ r,

            M⁻¹ (r, q) = (s + u m, m),    m = (q - Σ s₀) / Σ u₀.

        With A = 0 a fixed-point iteration preconditioned so is the iteration of the state alone
        under f ← f + w (Q - Σ f₀) / Σ w₀. At constant level, and where charge does not answer to
        the level, both are (1 - A)⁻¹ alone.

        Args:
            response: w.
        """
        undo, undo_transposed = self._preconditioner()
        if response is None:
            return undo, undo_transposed
        response = undo(jax.lax.stop_gradient(response))
        finite = jnp.all(jnp.isfinite(response), axis=-1, keepdims=True)
        response = jnp.where(finite, response, 0.0)
        component = jnp.arange(self.num_components) == 0
        counted = (self.slot_mask[:, :, None] & component).reshape(len(self.slots), -1)
        charges = counted.astype(response.dtype)
        total = jnp.sum(response * charges, axis=-1)
        size = jnp.sum(jnp.abs(response) * charges, axis=-1)
        answers = (jnp.abs(total) > SMALLEST_RESPONSE * size)[:, None]
        inverse = 1.0 / jnp.where(answers[:, 0], total, 1.0)

        def apply(vectors: Array) -> Array:
            state, missing = undo(vectors[:, :-1]), vectors[:, -1]
            level = inverse * (missing - jnp.sum(charges * state, axis=-1))
            level = jnp.where(answers[:, 0], level, 0.0)
            moved = state + response * level[:, None]
            level = jnp.where(answers[:, 0], level, missing)
            return jnp.concatenate([moved, level[:, None]], axis=1)

        def apply_transposed(vectors: Array) -> Array:
            state, level = vectors[:, :-1], vectors[:, -1]
            missing = inverse * (level + jnp.sum(response * state, axis=-1))
            missing = jnp.where(answers[:, 0], missing, 0.0)
            moved = undo_transposed(state - charges * missing[:, None])
            level = jnp.where(answers[:, 0], missing, level)
            return jnp.concatenate([moved, level[:, None]], axis=1)

        return apply, apply_transposed

    def _preconditioner(self) -> tuple[LinearOperator, LinearOperator]:
        """(1 - A)⁻¹ of the problem, and its transpose."""
        given = self.problem.preconditioner
        if given is None:
            return identity, identity
        expected = (len(self.slots), self.num_state_unknowns, self.num_state_unknowns)
        if given.factors.shape != expected:
            raise ValueError(
                f"preconditioner: expected matrices of shape {expected} (systems, unknowns, "
                f"unknowns), found {given.factors.shape}"
            )
        return given.solve, functools.partial(given.solve, transposed=True)
