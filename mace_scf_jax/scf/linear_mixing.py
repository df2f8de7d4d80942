"""Linear mixing: p ← p + α (F(p, μ) - p), the procedure of the PyTorch reference.

In the mode of constant charge every state is corrected before it goes into F, by spreading the
missing charge over the sites in proportion to how much their charge answers to the level (Fukui
weights), and the level takes a Newton step towards the wanted charge:

    w = ∂Q/∂μ,    p̃₀ = p₀ + (w / Σw) (Q - Σp₀),    μ ← μ + clip((Q - Σp₀) / Σw, ±1).

The returned state is the mixed one, before the correction.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mace_scf_jax.scf.fixed_point import FixedPointProblem, FixedPointSolution
from mace_scf_jax.scf.solver import Solver, check_settings
from mace_scf_jax.scf.status import SolverStatus

CHARGE_TOLERANCE = 1e-3
"""Largest error of the charge of a converged system."""
LARGEST_LEVEL_STEP = 1.0
"""Bound on a step of the level, except for the last."""
SMALLEST_RESPONSE = 1e-6
"""|dQ/dμ| below which a Newton step of the level makes no sense."""
LARGEST_CHARGE = 10.0
"""|Q| above which a system has diverged; where sizes count, per system of that many sites."""
LARGEST_CHANGE = {"constant level": 1.0, "constant charge": 5.0}
"""Mean change of the state in one step above which a system has diverged."""


@dataclasses.dataclass(frozen=True)
class LinearMixing(Solver):
    """Settings of linear mixing.

    Raises:
        ValueError: a number is out of range.
    """

    max_steps: int
    """Steps after which to give up. The option ``num_scf_steps: n`` means n - 1 steps."""
    mixing: float
    """α, the fraction of the way to F(p, μ) that one step goes, 0 < α ≤ 1."""
    tolerance: float = 1e-6
    """Mean change of the state below which a system has converged."""
    as_reference: bool = False
    """End all systems together, as soon as all have converged or one has diverged, and call a
    system diverged if its charge is above 10, whatever its size: the rules of the reference. They
    make results depend on the batch."""
    rematerialise: bool = False
    """Compute every step again when derivatives go through the loop, instead of keeping what its
    derivative needs: less memory, more time."""
    keep_states: bool = False
    """Whether solutions have the states of all steps."""

    can_be_unrolled: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_settings(self)
        if not 0.0 < self.mixing <= 1.0:
            raise ValueError(f"mixing: expected a number in (0, 1], found {self.mixing!r}")

    def find(
        self,
        problem: FixedPointProblem,
        state: Float[Array, "sites components"],
        level: Float[Array, "systems"],
    ) -> FixedPointSolution:
        """Search by linear mixing; the search may be differentiated."""
        return linear_mixing(problem, state, level, settings=self)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Iterate:
    """Where the iteration stands."""

    state: Float[Array, "sites components"]
    next_argument: Float[Array, "sites components"]
    level: Float[Array, "systems"]
    argument: Float[Array, "sites components"]
    argument_level: Float[Array, "systems"]
    running: Bool[Array, "systems"]
    status: Int[Array, "systems"]
    residual: Float[Array, "systems"]
    steps: Int[Array, "systems"]


def linear_mixing(
    problem: FixedPointProblem,
    state: Float[Array, "sites components"],
    level: Float[Array, "systems"],
    *,
    settings: LinearMixing,
) -> FixedPointSolution:
    """Find fixed points by linear mixing.

    The loop has a fixed number of steps (those after the end of all systems cost nothing) and may
    be differentiated to any order: that is the training mode ``unroll_scf``.

    Args:
        problem: the equations.
        state: initial p; zero at masked sites.
        level: initial μ.
        settings: mixing, tolerance and rules.

    Returns:
        The last states, and how far every system has come.
    """
    status = jnp.full(problem.num_systems, SolverStatus.MAX_STEPS, jnp.int32)
    argument = state
    if problem.charge is not None:
        _, response = problem.evaluate_with_response(state, level)
        argument = _with_charge(problem, state, response)
    start = _Iterate(
        state=state,
        next_argument=argument,
        level=level,
        argument=argument,
        argument_level=level,
        running=jnp.ones(problem.num_systems, bool),
        status=status,
        residual=jnp.full(problem.num_systems, jnp.inf, state.dtype),
        steps=jnp.zeros(problem.num_systems, jnp.int32),
    )

    def body(iterate: _Iterate, is_last: Bool[Array, ""]):
        iterate = jax.lax.cond(
            jnp.any(iterate.running),
            lambda: _step(problem, settings, iterate, is_last),
            lambda: iterate,
        )
        return iterate, (iterate.residual, iterate.state if settings.keep_states else None)

    if settings.rematerialise:
        body = jax.checkpoint(body, prevent_cse=False)
    is_last = jnp.arange(settings.max_steps) == settings.max_steps - 1
    end, (history, states) = jax.lax.scan(body, start, is_last)
    if settings.keep_states:
        states = jnp.concatenate([state[None], states])
    charge_error = jnp.zeros_like(level)
    if problem.charge is not None:
        charge_error = problem.charge - problem.charges(end.state)
    return FixedPointSolution(
        state=end.state,
        level=end.level,
        argument=end.argument,
        argument_level=end.argument_level,
        status=end.status,
        residual=end.residual,
        charge_error=charge_error,
        steps=end.steps,
        evaluations=end.steps + (0 if problem.charge is None else 1),
        history=history,
        states=states,
    )


def _step(
    problem: FixedPointProblem,
    settings: LinearMixing,
    iterate: _Iterate,
    is_last: Bool[Array, ""],
) -> _Iterate:
    """One step of all systems that are still running."""
    argument = iterate.next_argument
    constant_charge = problem.charge is not None
    if constant_charge:
        image, response = problem.evaluate_with_response(argument, iterate.level)
    else:
        image = problem.evaluate(argument, iterate.level)
    state = argument + settings.mixing * (image - argument)
    charges, residual = problem.charges(state), problem.mean_change(state, iterate.state)

    converged = residual < settings.tolerance
    diverged = _has_diverged(problem, settings, charges, residual)
    level, next_argument = iterate.level, state
    if constant_charge:
        missing, total_response = problem.charge - charges, problem.sums(response)
        converged &= jnp.abs(missing) < CHARGE_TOLERANCE
        next_argument = _with_charge(problem, state, response)
    if settings.as_reference:
        converged = jnp.broadcast_to(jnp.all(converged), converged.shape)
        diverged = jnp.broadcast_to(jnp.any(diverged), diverged.shape) & ~converged
    if constant_charge:
        change = _level_step(missing, total_response)
        clipped = jnp.clip(change, -LARGEST_LEVEL_STEP, LARGEST_LEVEL_STEP)
        change = jnp.where(is_last | diverged, change, clipped)
        level = jnp.where(converged, level, level + change)

    status = jnp.where(diverged, SolverStatus.DIVERGED, SolverStatus.MAX_STEPS)
    status = jnp.where(converged, SolverStatus.CONVERGED, status).astype(jnp.int32)
    taken = iterate.running & jnp.isfinite(residual)
    at_sites = taken[problem.system_of_site][:, None]
    return _Iterate(
        state=jnp.where(at_sites, state, iterate.state),
        next_argument=jnp.where(at_sites, next_argument, iterate.next_argument),
        level=jnp.where(taken, level, iterate.level),
        argument=jnp.where(at_sites, argument, iterate.argument),
        argument_level=jnp.where(taken, iterate.level, iterate.argument_level),
        running=iterate.running & ~(converged | diverged),
        status=jnp.where(iterate.running, status, iterate.status),
        residual=jnp.where(taken, residual, iterate.residual),
        steps=iterate.steps + taken.astype(jnp.int32),
    )


def _has_diverged(
    problem: FixedPointProblem,
    settings: LinearMixing,
    charges: Float[Array, "systems"],
    residual: Float[Array, "systems"],
) -> Bool[Array, "systems"]:
    """Systems whose charge or change is out of bounds, or not a number."""
    mode = "constant level" if problem.charge is None else "constant charge"
    bound = jnp.full_like(charges, LARGEST_CHARGE)
    if not settings.as_reference:
        bound = jnp.maximum(bound, problem.num_sites().astype(charges.dtype))
    return ~((jnp.abs(charges) <= bound) & (residual <= LARGEST_CHANGE[mode]))


def _with_charge(
    problem: FixedPointProblem,
    state: Float[Array, "sites components"],
    response: Float[Array, "sites"],
) -> Float[Array, "sites components"]:
    """The state with its missing charge spread over sites in proportion to their response."""
    total = problem.sums(response)
    answers = total != 0.0
    per_response = (problem.charge - problem.charges(state)) / jnp.where(answers, total, 1.0)
    per_response = jnp.where(answers, per_response, 0.0)
    return state.at[:, 0].add(response * problem.at_sites(per_response))


def _level_step(
    missing: Float[Array, "systems"], response: Float[Array, "systems"]
) -> Float[Array, "systems"]:
    """Newton step of the level; a unit step downhill where charges do not answer to it."""
    answers = jnp.abs(response) >= SMALLEST_RESPONSE
    return jnp.where(answers, missing / jnp.where(answers, response, 1.0), -jnp.sign(missing))
