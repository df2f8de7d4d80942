"""Anderson acceleration: an undamped fixed-point iteration that learns from its own steps.

With R the residual and M⁻¹ the elimination of the charge, the plain iteration is z ← z - M⁻¹ R(z).
Every step Δz of it and the change ΔR that it caused tell a little about the Jacobian of R. They are
kept as pairs (Δz, ΔR) with orthonormal ΔR: then the combination of former steps that removes as
much of the residual as possible is a projection, and the plain iteration handles the rest,

    z ← z - Σ_j Δz_j (ΔR_j · R) - M⁻¹ (R - Σ_j ΔR_j (ΔR_j · R)).

For an affine F this is as good as GMRES, one step behind. Differences that depend on those already
there are left out, which regularises; old ones are replaced when the memory is full; and a system
whose residual has grown far above its best goes back there and starts anew with shorter steps.

Source: D. G. Anderson, J. ACM 12, 547 (1965); in this orthogonalised form Y. Saad and others,
"Nonlinear truncated GCR" (2022).
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mace_scf_jax.scf.fixed_point import FixedPointProblem, FixedPointSolution, FixedPointStatus
from mace_scf_jax.scf.solver import Solver, check_settings
from mace_scf_jax.scf.unknowns import Unknowns

INDEPENDENT = 1e-6
"""Part of a difference that has to be new for it to be kept."""
LARGEST_GROWTH = 10.0
"""Of the residual over the best one so far, above which the iteration starts anew."""
SHORTEST_STEP = 2.0**-6
"""Fraction of the plain step below which a new start is not tried."""


@dataclasses.dataclass(frozen=True)
class Anderson(Solver):
    """Settings of Anderson acceleration.

    Raises:
        ValueError: a number is out of range.
    """

    max_steps: int = 50
    """Steps, each with one evaluation of F, after which to give up."""
    tolerance: float = 1e-8
    """Of the mean of |F(p, μ) - p|, and of the error of the charge."""
    memory: int = 10
    """Number of former steps that are remembered."""
    patience: int | None = None
    """Steps that may pass without the least residual being halved, before the search ends with
    `MAX_STEPS`; None for any number."""

    def __post_init__(self) -> None:
        check_settings(self)
        if self.memory < 1:
            raise ValueError(f"memory: expected 1 or more, found {self.memory!r}")
        if self.patience is not None and self.patience < 1:
            raise ValueError(f"patience: expected 1 or more, or None, found {self.patience!r}")

    def find(
        self,
        problem: FixedPointProblem,
        state: Float[Array, "sites components"],
        level: Float[Array, "systems"],
    ) -> FixedPointSolution:
        """Search by Anderson acceleration, each system by itself."""
        return _anderson(problem, state, level, self)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Iterate:
    """Where every system stands."""

    vectors: Float[Array, "systems unknowns"]
    residual: Float[Array, "systems unknowns"]
    steps_kept: Float[Array, "systems memory unknowns"]
    changes_kept: Float[Array, "systems memory unknowns"]
    next_slot: Int[Array, "systems"]
    fraction: Float[Array, "systems"]
    best: Float[Array, "systems unknowns"]
    best_residual: Float[Array, "systems unknowns"]
    since_halved: Int[Array, "systems"]
    halving_norm: Float[Array, "systems"]
    running: Bool[Array, "systems"]
    status: Int[Array, "systems"]
    steps: Int[Array, "systems"]
    history: Float[Array, "steps systems"]
    step: Int[Array, ""]


def _anderson(
    problem: FixedPointProblem,
    state: Float[Array, "sites components"],
    level: Float[Array, "systems"],
    settings: Anderson,
) -> FixedPointSolution:
    """Iterate until every system has ended."""
    unknowns = Unknowns.of(problem, state.shape[-1])

    def equations(vectors: Array) -> Array:
        return unknowns.residual(vectors, level)

    vectors = unknowns.pack(state, level)
    residual, slope = jax.linearize(equations, vectors)
    precondition, _ = unknowns.elimination(slope, vectors.dtype)
    count = problem.num_systems
    norm = jnp.linalg.norm(residual, axis=-1)
    solved = unknowns.is_solved(vectors, residual, settings.tolerance)
    lost = ~jnp.isfinite(norm)
    status = jnp.where(lost, FixedPointStatus.DIVERGED, FixedPointStatus.MAX_STEPS)
    memory = jnp.zeros((count, settings.memory, vectors.shape[1]), vectors.dtype)
    start = _Iterate(
        vectors=vectors,
        residual=jnp.where(lost[:, None], 0.0, residual),
        steps_kept=memory,
        changes_kept=memory,
        next_slot=jnp.zeros(count, jnp.int32),
        fraction=jnp.ones_like(norm),
        best=vectors,
        best_residual=residual,
        since_halved=jnp.zeros(count, jnp.int32),
        halving_norm=norm,
        running=~(solved | lost),
        status=jnp.where(solved, FixedPointStatus.CONVERGED, status).astype(jnp.int32),
        steps=jnp.zeros(count, jnp.int32),
        history=jnp.full((settings.max_steps, count), jnp.nan, vectors.dtype),
        step=jnp.zeros((), jnp.int32),
    )

    def advance(current: _Iterate) -> _Iterate:
        kept, changes = current.steps_kept, current.changes_kept
        overlap = jnp.einsum("smu,su->sm", changes, current.residual)
        rest = current.residual - jnp.einsum("sm,smu->su", overlap, changes)
        step = -jnp.einsum("sm,smu->su", overlap, kept)
        step = step - current.fraction[:, None] * precondition(rest)
        step = jnp.where(current.running[:, None], step, 0.0)
        vectors = current.vectors + step
        residual = equations(vectors)
        return _judged(unknowns, settings, current, vectors, residual)

    end = jax.lax.while_loop(
        lambda current: (current.step < settings.max_steps) & jnp.any(current.running),
        advance,
        start,
    )
    error, missing = unknowns.errors(end.best_residual)
    state, level = unknowns.unpack(end.best, level)
    return FixedPointSolution(
        state=state,
        level=level,
        argument=state,
        argument_level=level,
        status=end.status,
        residual=error,
        charge_error=missing,
        steps=end.steps,
        evaluations=end.steps + (2 if unknowns.has_level else 1),
        history=jnp.where(jnp.isnan(end.history), error, end.history),
        states=None,
    )


def _judged(
    unknowns: Unknowns,
    settings: Anderson,
    current: _Iterate,
    vectors: Float[Array, "systems unknowns"],
    residual: Float[Array, "systems unknowns"],
) -> _Iterate:
    """What follows from the residual at new vectors."""
    running = current.running
    norm = jnp.linalg.norm(residual, axis=-1)
    best_norm = jnp.linalg.norm(current.best_residual, axis=-1)
    good = running & (norm <= LARGEST_GROWTH * best_norm)
    failed = running & ~good
    solved = good & unknowns.is_solved(vectors, residual, settings.tolerance)

    better = good & ((norm < best_norm) | solved)
    best = jnp.where(better[:, None], vectors, current.best)
    best_residual = jnp.where(better[:, None], residual, current.best_residual)
    halved = good & (norm < 0.5 * current.halving_norm)
    since_halved = jnp.where(halved, 0, current.since_halved + 1)
    impatient = jnp.zeros_like(running)
    if settings.patience is not None:
        impatient = running & ~solved & (since_halved >= settings.patience)

    kept, changes, next_slot = _remembered(
        current, vectors - current.vectors, residual - current.residual, good & ~solved
    )
    fraction = jnp.where(failed, 0.25 * current.fraction, current.fraction)
    lost = failed & (fraction < SHORTEST_STEP)
    status = jnp.where(lost, FixedPointStatus.DIVERGED, current.status)
    status = jnp.where(solved, FixedPointStatus.CONVERGED, status).astype(jnp.int32)
    error, _ = unknowns.errors(residual)
    again = failed[:, None]
    return _Iterate(
        vectors=jnp.where(again, best, jnp.where(good[:, None], vectors, current.vectors)),
        residual=jnp.where(
            again, best_residual, jnp.where(good[:, None], residual, current.residual)
        ),
        steps_kept=jnp.where(again[:, :, None], 0.0, kept),
        changes_kept=jnp.where(again[:, :, None], 0.0, changes),
        next_slot=jnp.where(failed, 0, next_slot),
        fraction=fraction,
        best=best,
        best_residual=best_residual,
        since_halved=since_halved,
        halving_norm=jnp.where(halved, norm, current.halving_norm),
        running=running & ~(solved | lost | impatient),
        status=status,
        steps=current.steps + running.astype(jnp.int32),
        history=current.history.at[current.step].set(jnp.where(running, error, jnp.nan)),
        step=current.step + 1,
    )


def _remembered(
    current: _Iterate,
    step: Float[Array, "systems unknowns"],
    change: Float[Array, "systems unknowns"],
    keep: Bool[Array, "systems"],
) -> tuple[Array, Array, Array]:
    """The pairs kept, with one more step and the change of the residual that it caused."""
    kept, changes = current.steps_kept, current.changes_kept
    systems = jnp.arange(len(step), dtype=jnp.int32)
    slot = current.next_slot
    # the new pair replaces the one in its slot, which therefore is not projected out
    kept = kept.at[systems, slot].set(jnp.where(keep[:, None], 0.0, kept[systems, slot]))
    changes = changes.at[systems, slot].set(jnp.where(keep[:, None], 0.0, changes[systems, slot]))
    step, change = jnp.where(keep[:, None], step, 0.0), jnp.where(keep[:, None], change, 0.0)
    size = jnp.linalg.norm(change, axis=-1)
    for _ in range(2):  # twice is enough to be orthogonal to round-off
        overlap = jnp.einsum("smu,su->sm", changes, change)
        change = change - jnp.einsum("sm,smu->su", overlap, changes)
        step = step - jnp.einsum("sm,smu->su", overlap, kept)
    norm = jnp.linalg.norm(change, axis=-1)
    keep = keep & (norm > INDEPENDENT * size)
    inverse = jnp.where(keep, 1.0 / jnp.where(keep, norm, 1.0), 0.0)[:, None]
    kept = kept.at[systems, slot].add(inverse * step)
    changes = changes.at[systems, slot].add(inverse * change)
    size = changes.shape[1]
    return kept, changes, jnp.where(keep, (slot + 1) % size, slot)
