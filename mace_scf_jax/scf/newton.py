"""Newton's method on R(z) = 0 for many systems at once, with steps that are shortened at need.

One round evaluates R and its linearisation at one trial vector for all systems. A system whose
residual has shrunk there takes the trial and asks for a new direction; one whose residual has not
goes back half of its step. No system waits for another, and none sees another.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mace_scf_jax.scf.fixed_point import FixedPointSolution
from mace_scf_jax.scf.krylov import LinearOperator
from mace_scf_jax.scf.status import SolverStatus
from mace_scf_jax.scf.unknowns import Unknowns

SHORTEST_STEP = 2.0**-8
"""Fraction of a Newton step below which the residual is not expected to shrink."""
SUFFICIENT_DECREASE = 1e-4
"""Part of the predicted decrease of the residual that a step must bring."""
LOOSEST = 0.1
"""Largest relative residual to which a Newton direction is solved for."""

Direction = Callable[
    [LinearOperator, Float[Array, "systems unknowns"], Float[Array, "systems"]],
    tuple[Float[Array, "systems unknowns"], Int[Array, "systems"]],
]
"""(J, b, relative tolerance) -> x with J x = b, and the number of applications of J."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Round:
    """Where every system stands."""

    trial: Float[Array, "systems unknowns"]
    vectors: Float[Array, "systems unknowns"]
    """The last trial that was taken."""
    residual: Float[Array, "systems unknowns"]
    """R there; infinite before the first."""
    direction: Float[Array, "systems unknowns"]
    fraction: Float[Array, "systems"]
    forcing: Float[Array, "systems"]
    """Relative residual to which the direction solves the linear system."""
    running: Bool[Array, "systems"]
    status: Int[Array, "systems"]
    steps: Int[Array, "systems"]
    evaluations: Int[Array, "systems"]
    history: Float[Array, "steps systems"]


def newton(
    unknowns: Unknowns,
    state: Float[Array, "sites components"],
    level: Float[Array, "systems"],
    *,
    direction: Direction,
    max_steps: int,
    tolerance: float,
) -> FixedPointSolution:
    """Find the roots of R by Newton's method, without derivatives.

    The first direction is solved for as precisely as an affine map needs to end with it; later ones
    as precisely as R was found to be linear.

    Args:
        unknowns: of the problem.
        state: initial p.
        level: initial μ, or the given one.
        direction: how linear systems are solved.
        max_steps: Newton steps after which to give up.
        tolerance: of the mean of |F(p, μ) - p|, and of the error of the charge.

    Returns:
        The roots, or the states of least residual that were met.

    Source:
        Eisenstat and Walker, SIAM J. Sci. Comput. 17, 16 (1996), for the precision of directions.
    """
    count = unknowns.problem.num_systems
    every = jnp.arange(count, dtype=jnp.int32)
    start = unknowns.pack(state, level)
    wanted = 0.5 * unknowns.wanted_norm(tolerance, start.dtype)

    def equations(vectors: Array) -> Array:
        return unknowns.residual(vectors, level)

    def advance(current: _Round) -> _Round:
        residual, slope = jax.linearize(equations, current.trial)
        norm, before = (
            jnp.linalg.norm(residual, axis=-1),
            jnp.linalg.norm(current.residual, axis=-1),
        )
        bound = (1.0 - SUFFICIENT_DECREASE * current.fraction) * before
        is_first = ~jnp.isfinite(before)
        taken = current.running & jnp.isfinite(norm) & (is_first | (norm <= bound))
        steps = current.steps + (taken & ~is_first).astype(jnp.int32)

        solved = taken & unknowns.is_solved(current.trial, residual, tolerance)
        used_up = taken & ~solved & (steps >= max_steps)
        stuck = current.running & ~taken & (current.fraction <= SHORTEST_STEP)
        lost = current.running & is_first & ~taken
        status = current.status
        for ended, why in (
            (solved, SolverStatus.CONVERGED),
            (stuck, SolverStatus.SINGULAR),
            (lost, SolverStatus.DIVERGED),
        ):
            status = jnp.where(ended, int(why), status)
        running = current.running & ~(solved | used_up | stuck | lost)

        asks = taken & running
        ratio = norm / jnp.where(is_first, 1.0, before)
        nonlinear = jnp.maximum(ratio - current.forcing, 0.0) * ratio
        forcing = jnp.maximum(
            wanted / jnp.where(norm > 0.0, norm, 1.0), jnp.where(is_first, 0.0, nonlinear)
        )
        forcing = jnp.where(asks, jnp.minimum(forcing, LOOSEST), current.forcing)
        right = jnp.where(asks[:, None], -residual, 0.0)
        change, applications = jax.lax.cond(
            jnp.any(asks),
            lambda: direction(slope, right, forcing),
            lambda: (jnp.zeros_like(right), jnp.zeros_like(steps)),
        )
        vectors = jnp.where(taken[:, None], current.trial, current.vectors)
        change = jnp.where(asks[:, None], change, current.direction)
        fraction = jnp.where(asks, 1.0, 0.5 * current.fraction)
        evaluations = current.running.astype(jnp.int32) + jnp.where(asks, applications, 0)
        error, _ = unknowns.errors(residual)
        row = jnp.where(taken & ~is_first, steps - 1, max_steps)
        return _Round(
            trial=jnp.where(running[:, None], vectors + fraction[:, None] * change, vectors),
            vectors=vectors,
            residual=jnp.where(taken[:, None], residual, current.residual),
            direction=change,
            fraction=fraction,
            forcing=forcing,
            running=running,
            status=status,
            steps=steps,
            evaluations=current.evaluations + evaluations,
            history=current.history.at[row, every].set(error, mode="drop"),
        )

    zeros, ones = jnp.zeros_like(start[:, 0]), jnp.ones_like(start[:, 0])
    first = _Round(
        trial=start,
        vectors=start,
        residual=jnp.full_like(start, jnp.inf),
        direction=jnp.zeros_like(start),
        fraction=ones,
        forcing=zeros,
        running=jnp.ones(count, bool),
        status=jnp.full(count, SolverStatus.MAX_STEPS, jnp.int32),
        steps=jnp.zeros(count, jnp.int32),
        evaluations=jnp.zeros(count, jnp.int32),
        history=jnp.full((max_steps, count), jnp.nan, start.dtype),
    )
    end = jax.lax.while_loop(lambda current: jnp.any(current.running), advance, first)
    error, missing = unknowns.errors(end.residual)
    state, level = unknowns.unpack(end.vectors, level)
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
    )
