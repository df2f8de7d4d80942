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
from jaxtyping import Array, Float, Int

from mace_scf_jax.scf.elimination import Elimination, eliminate_charge
from mace_scf_jax.scf.equations import Equations
from mace_scf_jax.scf.iterate import Found, IterativeSolver, Outcome, Progress, choose_rows
from mace_scf_jax.scf.jacobian_memory import JacobianMemory, OrthonormalPairs, forget
from mace_scf_jax.scf.krylov import Vectors
from mace_scf_jax.scf.status import SolverStatus

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


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Iterate:
    """Where every system stands."""

    vectors: Vectors
    residual: Vectors
    proposal: Vectors
    """Where F is evaluated next."""
    rest: Vectors
    """What former steps leave of the residual, and the plain iteration is to handle."""
    ratios: Float[Array, "systems 2"]
    """Residual after each of the last two steps over the rest before it; infinite if none."""
    pairs: OrthonormalPairs
    memory: JacobianMemory | None
    elimination: Elimination
    fraction: Float[Array, "systems"]
    """Of the plain step."""
    best: Vectors
    best_residual: Vectors
    halved_norm: Float[Array, "systems"]
    since_halved: Int[Array, "systems"]


@dataclasses.dataclass(frozen=True)
class Anderson(IterativeSolver):
    """Settings of Anderson acceleration; a step costs one evaluation of F.

    Raises:
        ValueError: a number is out of range.
    """

    name = "anderson"

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
        super().__post_init__()
        if self.memory < 1:
            raise ValueError(f"memory: expected 1 or more, found {self.memory!r}")
        if self.patience is not None and self.patience < 1:
            raise ValueError(f"patience: expected 1 or more, or None, found {self.patience!r}")

    def init(
        self, equations: Equations, start: Vectors, memory: JacobianMemory | None
    ) -> tuple[_Iterate, Outcome]:
        """Evaluate F and ∂F/∂μ at the start."""
        residual, response = equations.residual_with_response(start)
        norm = jnp.linalg.norm(residual, axis=-1)
        diverged = ~jnp.isfinite(norm)
        converged = equations.is_solved(start, residual, self.tolerance)
        pairs = OrthonormalPairs.none(self.memory, start)
        if memory is not None and equations.problem.preconditioner is None:
            # the preconditioner is the slope of this map, the memory that of maps nearby
            pairs = memory.orthonormal(self.memory)
        first = _Iterate(
            vectors=start,
            residual=jnp.where(diverged[:, None], 0.0, residual),
            proposal=start,
            rest=residual,
            ratios=jnp.full((len(start), 2), jnp.inf, start.dtype),
            pairs=pairs,
            memory=memory,
            elimination=eliminate_charge(equations.problem, response),
            fraction=jnp.ones_like(norm),
            best=start,
            best_residual=residual,
            halved_norm=norm,
            since_halved=jnp.zeros(len(start), jnp.int32),
        )
        outcome = Outcome.of(equations.error(residual), converged=converged, diverged=diverged)
        return _propose(first), outcome

    def step(
        self, equations: Equations, current: _Iterate, progress: Progress
    ) -> tuple[_Iterate, Outcome]:
        """Evaluate F at the proposal, judge what has come of it, and make the next proposal."""
        vectors, residual = current.proposal, equations.residual(current.proposal)
        error = equations.error(residual)
        norm = jnp.linalg.norm(residual, axis=-1)
        best_norm = jnp.linalg.norm(current.best_residual, axis=-1)
        good = norm <= LARGEST_GROWTH * best_norm
        converged = good & equations.is_solved(vectors, residual, self.tolerance)
        better = good & ((norm < best_norm) | converged)
        best, best_residual = choose_rows(
            better, (vectors, residual), (current.best, current.best_residual)
        )
        halved = good & (norm < 0.5 * current.halved_norm)
        since_halved = jnp.where(halved, 0, current.since_halved + 1)
        gives_up = self.patience is not None and ~converged & (since_halved >= self.patience)

        step, change = vectors - current.vectors, residual - current.residual
        pairs = current.pairs.with_pair(step, change, good & ~converged, INDEPENDENT)
        memory = current.memory
        if memory is not None:
            memory = forget(memory.with_pair(step, change, good), ~good)
        fraction = jnp.where(good, current.fraction, 0.25 * current.fraction)
        rest = jnp.linalg.norm(current.rest, axis=-1)
        ratio = norm / jnp.where(rest > 0.0, rest, 1.0)
        ratio = jnp.where(good & (rest > 0.0), ratio, jnp.inf)
        # from a residual that has grown too much back to the best
        vectors, residual = choose_rows(good, (vectors, residual), (best, best_residual))
        judged = dataclasses.replace(
            current,
            vectors=vectors,
            residual=residual,
            ratios=jnp.stack([ratio, current.ratios[:, 0]], axis=1),
            pairs=forget(pairs, ~good),
            memory=memory,
            fraction=fraction,
            best=best,
            best_residual=best_residual,
            halved_norm=jnp.where(halved, norm, current.halved_norm),
            since_halved=since_halved,
        )
        outcome = Outcome.of(
            error,
            converged=converged,
            diverged=~good & (fraction < SHORTEST_STEP),
            gives_up=gives_up,
        )
        proposed = _propose(judged)
        if self.check_last_step:
            return proposed, outcome
        may_step = ~outcome.has_ended & (progress.steps + 1 < self.max_steps)
        return self._end_unseen(equations, proposed, outcome, may_step)

    def _end_unseen(
        self, equations: Equations, current: _Iterate, outcome: Outcome, may_step: Array
    ) -> tuple[_Iterate, Outcome]:
        """The end, at their proposals, of systems that are certain of the residual there."""
        ratio = jnp.max(current.ratios, axis=1)
        known = jnp.isfinite(ratio)
        least = LEAST_REST * current.residual
        is_less = jnp.linalg.norm(current.rest, axis=-1) < jnp.linalg.norm(least, axis=-1)
        rest = choose_rows(is_less, least, current.rest)
        expected = jnp.where(known, ratio, 0.0)[:, None] * rest
        certain = may_step & known
        certain &= equations.is_solved(current.proposal, SAFETY * expected, self.tolerance)
        best, best_residual = choose_rows(
            certain, (current.proposal, expected), (current.best, current.best_residual)
        )
        return dataclasses.replace(
            current, best=best, best_residual=best_residual
        ), dataclasses.replace(
            outcome,
            status=jnp.where(certain, jnp.int32(SolverStatus.CONVERGED), outcome.status),
            has_ended=outcome.has_ended | certain,
            steps=outcome.steps + certain.astype(jnp.int32),
        )

    def finish(self, equations: Equations, current: _Iterate) -> Found:
        """The best that was met, and the memory for the next search."""
        error = equations.error(current.best_residual)
        return Found(current.best, current.best, error, current.memory)


def _propose(current: _Iterate) -> _Iterate:
    """Where to evaluate F next: what former steps say, and the plain iteration for the rest."""
    step, rest = current.pairs.project(current.residual)
    step = step - current.fraction[:, None] * current.elimination.apply(rest)
    return dataclasses.replace(current, proposal=current.vectors + step, rest=rest)
