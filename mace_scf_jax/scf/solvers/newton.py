"""Newton's method on R(z) = 0 for many systems at once, with steps that are shortened at need.

One round evaluates R and its linearisation at one trial vector for all systems. A system whose
residual has shrunk there takes the trial and asks for a new direction; one whose residual has not
goes back half of its step. No system waits for another, and none sees another.

The first direction is solved for as precisely as an affine map needs to end with it; later ones as
precisely as R was found to be linear.

Source: Eisenstat and Walker, SIAM J. Sci. Comput. 17, 16 (1996), for the precision of directions.
"""

from __future__ import annotations

import abc
import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mace_scf_jax.scf.equations import Equations
from mace_scf_jax.scf.iterate import Iterate, IterativeSolver, Outcome, Progress, choose_rows
from mace_scf_jax.scf.jacobian_memory import JacobianMemory
from mace_scf_jax.scf.krylov import LinearOperator, Vectors

SHORTEST_STEP = 2.0**-8
"""Fraction of a Newton step below which the residual is not expected to shrink."""
SUFFICIENT_DECREASE = 1e-4
"""Part of the predicted decrease of the residual that a step must bring."""
LOOSEST = 0.1
"""Largest relative residual to which a Newton direction is solved for."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Round(Iterate):
    """The last trial that was taken, with R there (infinite before the first), and the next."""

    trial: Vectors
    direction: Vectors
    fraction: Float[Array, "systems"]
    forcing: Float[Array, "systems"]
    """Relative residual to which the direction solves the linear system."""


@dataclasses.dataclass(frozen=True)
class Newton(IterativeSolver):
    """What Newton's methods have in common; they differ in how a linear system is solved."""

    max_steps: int = 20

    @abc.abstractmethod
    def direction(
        self,
        equations: Equations,
        slope: LinearOperator,
        right: Vectors,
        tolerance: Float[Array, "systems"],
    ) -> tuple[Vectors, Int[Array, "systems"]]:
        """Solve J x = b to a relative tolerance.

        Args:
            slope: x -> J x.
            right: b; systems with b = 0 need nothing.
            tolerance: of |J x - b| relative to |b|.

        Returns:
            x, and the number of applications of J.
        """

    def init(
        self, equations: Equations, start: Vectors, memory: JacobianMemory | None
    ) -> tuple[_Round, Outcome]:
        """Nothing is evaluated before the first round, whose trial is the start."""
        none = jnp.zeros(len(start), start.dtype)
        first = _Round(
            vectors=start,
            residual=jnp.full_like(start, jnp.inf),
            trial=start,
            direction=jnp.zeros_like(start),
            fraction=none + 1.0,
            forcing=none,
        )
        return first, Outcome.of(none, converged=jnp.zeros(len(start), bool), evaluations=0)

    def step(
        self, equations: Equations, current: _Round, progress: Progress
    ) -> tuple[_Round, Outcome]:
        """One round: judge the trial, and ask for a direction where it is taken."""
        residual, slope = jax.linearize(equations.residual, current.trial)
        norm = jnp.linalg.norm(residual, axis=-1)
        before = jnp.linalg.norm(current.residual, axis=-1)
        bound = (1.0 - SUFFICIENT_DECREASE * current.fraction) * before
        is_first = ~jnp.isfinite(before)
        taken = jnp.isfinite(norm) & (is_first | (norm <= bound))
        steps = (taken & ~is_first).astype(jnp.int32)
        converged = taken & equations.is_solved(current.trial, residual, self.tolerance)

        used_up = progress.steps + steps >= self.max_steps
        asks = progress.running & taken & ~converged & ~used_up
        ratio = norm / jnp.where(is_first, 1.0, before)
        nonlinear = jnp.where(is_first, 0.0, jnp.maximum(ratio - current.forcing, 0.0) * ratio)
        wanted = 0.5 * equations.wanted_norm(current.trial, self.tolerance)
        enough = wanted / jnp.where(norm > 0.0, norm, 1.0)
        forcing = jnp.minimum(jnp.maximum(enough, nonlinear), LOOSEST)
        forcing = jnp.where(asks, forcing, current.forcing)
        right = jnp.where(asks[:, None], -residual, 0.0)
        change, applications = jax.lax.cond(
            jnp.any(asks),
            lambda: self.direction(equations, slope, right, forcing),
            lambda: (jnp.zeros_like(right), jnp.zeros_like(steps)),
        )
        vectors, residual_there = choose_rows(
            taken, (current.trial, residual), (current.vectors, current.residual)
        )
        change = jnp.where(asks[:, None], change, current.direction)
        fraction = jnp.where(asks, 1.0, 0.5 * current.fraction)
        moved = _Round(
            vectors=vectors,
            residual=residual_there,
            trial=vectors + fraction[:, None] * change,
            direction=change,
            fraction=fraction,
            forcing=forcing,
        )
        return moved, Outcome.of(
            equations.error(residual),
            converged=converged,
            diverged=is_first & ~taken,
            singular=~taken & ~is_first & (current.fraction <= SHORTEST_STEP),
            steps=steps,
            evaluations=1 + jnp.where(asks, applications, 0),
        )
