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

from mace_scf_jax.scf.fixed_point import FixedPointProblem, FixedPointSolution
from mace_scf_jax.scf.jacobian_memory import JacobianMemory, orthonormalised
from mace_scf_jax.scf.krylov import LinearOperator
from mace_scf_jax.scf.solver import Solver, check_settings
from mace_scf_jax.scf.status import SolverStatus
from mace_scf_jax.scf.unknowns import Unknowns

INDEPENDENT = 1e-6
"""Part of a difference that has to be new for it to be kept."""
LARGEST_GROWTH = 10.0
"""Of the residual over the best one so far, above which the iteration starts anew."""
SHORTEST_STEP = 2.0**-6
"""Fraction of the plain step below which a new start is not tried."""
SAFETY = 3.0
"""Factor between the residual that is expected of a step and one to rely on."""
LEAST_REST = 0.1
"""Fraction of the residual that former steps are relied on to leave at least: to remove more, R
would have to be more linear between them than was seen."""


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
    memory: int = 20
    """Number of former steps that are remembered."""
    patience: int | None = None
    """Steps that may pass without the least residual being halved, before the search ends with
    `MAX_STEPS`; None for any number."""
    check_last_step: bool = True
    """Evaluate F at the solution. Otherwise the last step is taken without an evaluation, once the
    residual is certain to be below the tolerance there: what former steps leave of it is known
    before, and if the rest shrinks as in the two steps before, it is below a third of the
    tolerance. The residual reported is the expected one."""

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
        unknowns = Unknowns.of(problem, state.shape[-1])
        return _Search(unknowns, level, self).run(unknowns.pack(state, level), None)

    def find_with_memory(
        self,
        problem: FixedPointProblem,
        state: Float[Array, "sites components"],
        level: Float[Array, "systems"],
        memory: JacobianMemory,
    ) -> FixedPointSolution:
        """Likewise, with the steps of earlier searches, of which the first one knows already."""
        unknowns = Unknowns.of(problem, state.shape[-1])
        return _Search(unknowns, level, self).run(unknowns.pack(state, level), memory)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Iterate:
    """Where every system stands."""

    vectors: Float[Array, "systems unknowns"]
    residual: Float[Array, "systems unknowns"]
    proposal: Float[Array, "systems unknowns"]
    """Where F is evaluated next."""
    rest: Float[Array, "systems unknowns"]
    """What former steps leave of the residual, and the plain iteration is to handle."""
    ratios: Float[Array, "2 systems"]
    """Residual after each of the last two steps over the rest before it; infinite if none."""
    steps_kept: Float[Array, "systems memory unknowns"]
    changes_kept: Float[Array, "systems memory unknowns"]
    next_slot: Int[Array, "systems"]
    memory: JacobianMemory | None
    fraction: Float[Array, "systems"]
    """Of the plain step."""
    best: Float[Array, "systems unknowns"]
    best_residual: Float[Array, "systems unknowns"]
    halved_norm: Float[Array, "systems"]
    since_halved: Int[Array, "systems"]
    running: Bool[Array, "systems"]
    status: Int[Array, "systems"]
    steps: Int[Array, "systems"]
    evaluations: Int[Array, "systems"]
    history: Float[Array, "steps systems"]
    step: Int[Array, ""]


@dataclasses.dataclass(frozen=True)
class _Search:
    """One search for the roots of all systems."""

    unknowns: Unknowns
    level: Float[Array, "systems"]
    settings: Anderson

    def run(
        self, start: Float[Array, "systems unknowns"], memory: JacobianMemory | None
    ) -> FixedPointSolution:
        """Iterate until every system has ended."""
        unknowns, settings = self.unknowns, self.settings
        residual, response = unknowns.residual_with_response(start, self.level)
        precondition, _ = unknowns.elimination(response)
        first = self.propose(self.first(start, residual, memory), precondition)

        def unfinished(current: _Iterate) -> Array:
            return (current.step < settings.max_steps) & jnp.any(current.running)

        def advance(current: _Iterate) -> _Iterate:
            judged = self.judge(current, self.equations(current.proposal))
            return self.propose(judged, precondition)

        end = jax.lax.while_loop(unfinished, advance, first)
        error, missing = unknowns.errors(end.best_residual)
        state, level = unknowns.unpack(end.best, self.level)
        return FixedPointSolution(
            state=state,
            level=level,
            argument=state,
            argument_level=level,
            status=end.status,
            residual=error,
            charge_error=missing,
            steps=end.steps,
            evaluations=end.evaluations,
            history=jnp.where(jnp.isnan(end.history), error, end.history),
            states=None,
            memory=end.memory,
        )

    def equations(self, vectors: Float[Array, "systems unknowns"]) -> Array:
        """R."""
        return self.unknowns.residual(vectors, self.level)

    def first(
        self,
        start: Float[Array, "systems unknowns"],
        residual: Float[Array, "systems unknowns"],
        memory: JacobianMemory | None,
    ) -> _Iterate:
        """The iterate before any step."""
        count, size = start.shape
        settings, unknowns = self.settings, self.unknowns
        norm = jnp.linalg.norm(residual, axis=-1)
        solved = unknowns.is_solved(start, residual, settings.tolerance)
        lost = ~jnp.isfinite(norm)
        status = jnp.where(lost, SolverStatus.DIVERGED, SolverStatus.MAX_STEPS)
        kept = changes = jnp.zeros((count, settings.memory, size), start.dtype)
        if memory is not None and unknowns.problem.preconditioner is None:
            # the preconditioner is the slope of this map, the memory that of maps nearby
            kept, changes = memory.orthonormal(settings.memory)
        none = jnp.zeros(count, jnp.int32)
        return _Iterate(
            vectors=start,
            residual=jnp.where(lost[:, None], 0.0, residual),
            proposal=start,
            rest=residual,
            ratios=jnp.full((2, count), jnp.inf, start.dtype),
            steps_kept=kept,
            changes_kept=changes,
            next_slot=none,
            memory=memory,
            fraction=jnp.ones_like(norm),
            best=start,
            best_residual=residual,
            halved_norm=norm,
            since_halved=none,
            running=~(solved | lost),
            status=jnp.where(solved, SolverStatus.CONVERGED, status).astype(jnp.int32),
            steps=none,
            evaluations=none + 1,
            history=jnp.full((settings.max_steps, count), jnp.nan, start.dtype),
            step=jnp.zeros((), jnp.int32),
        )

    def propose(self, current: _Iterate, precondition: LinearOperator) -> _Iterate:
        """Where to evaluate F next; the end of systems that are certain of the residual there."""
        running = current.running
        kept, changes = current.steps_kept, current.changes_kept
        overlap = jnp.einsum("smu,su->sm", changes, current.residual)
        rest = current.residual - jnp.einsum("sm,smu->su", overlap, changes)
        step = -jnp.einsum("sm,smu->su", overlap, kept)
        step = step - current.fraction[:, None] * precondition(rest)
        proposal = current.vectors + jnp.where(running[:, None], step, 0.0)
        proposed = dataclasses.replace(current, proposal=proposal, rest=rest)
        return proposed if self.settings.check_last_step else self.ended(proposed)

    def ended(self, current: _Iterate) -> _Iterate:
        """The end, at their proposals, of systems that are certain of the residual there."""
        ratio = jnp.max(current.ratios, axis=0)
        known = jnp.isfinite(ratio)
        least = LEAST_REST * current.residual
        is_less = jnp.linalg.norm(current.rest, axis=-1) < jnp.linalg.norm(least, axis=-1)
        rest = _chosen(is_less, least, current.rest)
        expected = jnp.where(known, ratio, 0.0)[:, None] * rest
        certain = current.running & known & (current.step < self.settings.max_steps)
        certain &= self.unknowns.is_solved(
            current.proposal, SAFETY * expected, self.settings.tolerance
        )
        status = jnp.where(certain, SolverStatus.CONVERGED, current.status)
        return dataclasses.replace(
            current,
            best=_chosen(certain, current.proposal, current.best),
            best_residual=_chosen(certain, expected, current.best_residual),
            running=current.running & ~certain,
            status=status.astype(jnp.int32),
            steps=current.steps + certain.astype(jnp.int32),
            history=self.recorded(current, expected, certain),
        )

    def recorded(self, current: _Iterate, residual: Array, of: Bool[Array, "systems"]) -> Array:
        """The history with the residual of some systems in this step."""
        error, _ = self.unknowns.errors(residual)
        row = jnp.where(of, current.step, self.settings.max_steps)
        every = jnp.arange(len(row), dtype=jnp.int32)
        return current.history.at[row, every].set(error, mode="drop")

    def judge(self, current: _Iterate, residual: Float[Array, "systems unknowns"]) -> _Iterate:
        """What follows from the residual at the proposal."""
        unknowns, settings, running = self.unknowns, self.settings, current.running
        vectors = current.proposal
        norm = jnp.linalg.norm(residual, axis=-1)
        best_norm = jnp.linalg.norm(current.best_residual, axis=-1)
        good = running & (norm <= LARGEST_GROWTH * best_norm)
        failed = running & ~good
        solved = good & unknowns.is_solved(vectors, residual, settings.tolerance)

        better = good & ((norm < best_norm) | solved)
        best = _chosen(better, vectors, current.best)
        best_residual = _chosen(better, residual, current.best_residual)
        halved = good & (norm < 0.5 * current.halved_norm)
        since_halved = jnp.where(halved, 0, current.since_halved + 1)
        impatient = jnp.zeros_like(running)
        if settings.patience is not None:
            impatient = running & ~solved & (since_halved >= settings.patience)

        step, change = vectors - current.vectors, residual - current.residual
        kept, changes, next_slot = _remembered(current, step, change, good & ~solved)
        memory = current.memory
        if memory is not None:
            memory = memory.with_pair(step, change, good).forgotten(failed)
        fraction = jnp.where(failed, 0.25 * current.fraction, current.fraction)
        lost = failed & (fraction < SHORTEST_STEP)
        status = jnp.where(lost, SolverStatus.DIVERGED, current.status)
        status = jnp.where(solved, SolverStatus.CONVERGED, status)
        rest = jnp.linalg.norm(current.rest, axis=-1)
        ratio = norm / jnp.where(rest > 0.0, rest, 1.0)
        ratios = jnp.stack([jnp.where(good & (rest > 0.0), ratio, jnp.inf), current.ratios[0]])
        return dataclasses.replace(
            current,
            vectors=_chosen(failed, best, _chosen(good, vectors, current.vectors)),
            residual=_chosen(failed, best_residual, _chosen(good, residual, current.residual)),
            ratios=ratios,
            steps_kept=_chosen(failed, jnp.zeros_like(kept), kept),
            changes_kept=_chosen(failed, jnp.zeros_like(changes), changes),
            next_slot=jnp.where(failed, 0, next_slot),
            memory=memory,
            fraction=fraction,
            best=best,
            best_residual=best_residual,
            halved_norm=jnp.where(halved, norm, current.halved_norm),
            since_halved=since_halved,
            running=running & ~(solved | lost | impatient),
            status=status.astype(jnp.int32),
            steps=current.steps + running.astype(jnp.int32),
            evaluations=current.evaluations + running.astype(jnp.int32),
            history=self.recorded(current, residual, running),
            step=current.step + 1,
        )


def _chosen(condition: Bool[Array, "systems"], this: Array, other: Array) -> Array:
    """Rows of this where the condition holds, of the other elsewhere."""
    return jnp.where(condition.reshape((-1,) + (1,) * (this.ndim - 1)), this, other)


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
    step, change, is_new = orthonormalised(kept, changes, step, change, INDEPENDENT)
    kept = kept.at[systems, slot].add(step)
    changes = changes.at[systems, slot].add(change)
    size = changes.shape[1]
    return kept, changes, jnp.where(is_new, (slot + 1) % size, slot)
