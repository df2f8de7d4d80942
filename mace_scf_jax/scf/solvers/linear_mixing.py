"""Linear mixing: p ← p + α (F(p, μ) - p), the procedure of the PyTorch reference.

In the mode of constant charge every state is corrected before it goes into F, by spreading the
missing charge over the sites in proportion to how much their charge answers to the level (Fukui
weights), and the level takes a Newton step towards the wanted charge:

    w = ∂Q/∂μ,    p̃₀ = p₀ + (w / Σw) (Q - Σp₀),    μ ← μ + clip((Q - Σp₀) / Σw, ±1).

The returned state is the mixed one, before the correction. The loop has a fixed number of steps
(those after the end of all systems cost nothing) and may be differentiated to any order: that is
the training mode ``unroll_scf``.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mace_scf_jax.scf.equations import Equations
from mace_scf_jax.scf.iterate import Found, Outcome, Progress, UnrolledSolver, choose_rows
from mace_scf_jax.scf.jacobian_memory import JacobianMemory
from mace_scf_jax.scf.krylov import Vectors
from mace_scf_jax.scf.problem import FixedPointProblem, State

CHARGE_TOLERANCE = 1e-3
"""Largest error of the charge of a converged system."""
LARGEST_LEVEL_STEP = 1.0
"""Bound on a step of the level, except for the last."""
SMALLEST_RESPONSE = 1e-6
"""|dQ/dμ| below which a Newton step of the level makes no sense."""
LARGEST_CHARGE = 10.0
"""|Q| above which a system has diverged, if it is also above one for each site."""
LARGEST_CHANGE = {"constant level": 1.0, "constant charge": 5.0}
"""Mean change of the state in one step above which a system has diverged."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Iterate:
    """Where every system stands."""

    vectors: Vectors
    """The mixed state and the level."""
    proposal: Vectors
    """Where F is evaluated next: the state with its charge corrected."""
    argument: Vectors
    """Where F was evaluated last."""
    error: Float[Array, "systems"]
    """Mean change of the state in the last step."""


@dataclasses.dataclass(frozen=True)
class LinearMixing(UnrolledSolver):
    """Settings of linear mixing.

    Raises:
        ValueError: a number is out of range.
    """

    name = "linear_mixing"

    max_steps: int = 100
    """Steps after which to give up. The option ``num_scf_steps: n`` means n - 1 steps."""
    tolerance: float = 1e-6
    """Mean change of the state below which a system has converged."""
    mixing: float = 0.25
    """α, the fraction of the way to F(p, μ) that one step goes, 0 < α ≤ 1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 < self.mixing <= 1.0:
            raise ValueError(f"mixing: expected a number in (0, 1], found {self.mixing!r}")

    def init(
        self, equations: Equations, start: Vectors, memory: JacobianMemory | None
    ) -> tuple[_Iterate, Outcome]:
        """Correct the charge of the start, by the response of F there."""
        problem = equations.problem
        state, level = equations.unpack(start)
        if equations.has_level:
            _, response = problem.evaluate_with_response(state, level)
            state = _with_charge(equations, state, response)
        none = jnp.full(len(start), jnp.inf, start.dtype)
        proposal = equations.pack(state, level)
        return _Iterate(start, proposal, proposal, none), Outcome.of(
            none, converged=jnp.zeros(len(start), bool), evaluations=int(equations.has_level)
        )

    def step(
        self, equations: Equations, current: _Iterate, progress: Progress
    ) -> tuple[_Iterate, Outcome]:
        """Mix F into the state; at constant charge move the level, too."""
        problem = equations.problem
        argument, level = equations.unpack(current.proposal)
        if equations.has_level:
            image, response = problem.evaluate_with_response(argument, level)
        else:
            image = problem.evaluate(argument, level)
        state = argument + self.mixing * (image - argument)
        error = problem.mean_size(state - equations.unpack(current.vectors)[0])
        converged, diverged = self.judge(problem, state, error)
        corrected = state
        if equations.has_level:
            corrected = _with_charge(equations, state, response)
            change = _level_step(equations.charge_error(state), jnp.sum(response, axis=-1))
            clipped = jnp.clip(change, -LARGEST_LEVEL_STEP, LARGEST_LEVEL_STEP)
            is_last = progress.steps == self.max_steps - 1
            change = jnp.where(is_last | diverged, change, clipped)
            level = jnp.where(converged, level, level + change)
        moved = _Iterate(
            vectors=equations.pack(state, level),
            proposal=equations.pack(corrected, level),
            argument=current.proposal,
            error=error,
        )
        is_finite = jnp.isfinite(error)
        return choose_rows(is_finite, moved, current), Outcome.of(
            error,
            converged=converged,
            diverged=diverged & ~converged,
            steps=is_finite.astype(jnp.int32),
            evaluations=is_finite.astype(jnp.int32),
        )

    def judge(
        self, problem: FixedPointProblem, state: State, error: Float[Array, "systems"]
    ) -> tuple[Bool[Array, "systems"], Bool[Array, "systems"]]:
        """Systems that have converged, and those whose charge or change is out of bounds.

        Args:
            state: after a step.
            error: mean change of the state in the step.
        """
        charges = problem.charges(state)
        mode = "constant level" if problem.charge is None else "constant charge"
        bound = jnp.maximum(LARGEST_CHARGE, problem.num_sites().astype(charges.dtype))
        diverged = ~((jnp.abs(charges) <= bound) & (error <= LARGEST_CHANGE[mode]))
        converged = error < self.tolerance
        if problem.charge is not None:
            converged &= jnp.abs(problem.charge - charges) < CHARGE_TOLERANCE
        return converged, diverged

    def finish(self, equations: Equations, current: _Iterate) -> Found:
        """The last state, judged by its last change."""
        return Found(current.vectors, current.argument, current.error)


def _with_charge(
    equations: Equations, state: State, response: Float[Array, "systems sites"]
) -> State:
    """The state with its missing charge spread over sites in proportion to their response."""
    total = jnp.sum(response, axis=-1)
    answers = total != 0.0
    per_response = equations.charge_error(state) / jnp.where(answers, total, 1.0)
    per_response = jnp.where(answers, per_response, 0.0)
    return state.at[:, :, 0].add(response * per_response[:, None])


def _level_step(
    missing: Float[Array, "systems"], response: Float[Array, "systems"]
) -> Float[Array, "systems"]:
    """Newton step of the level; a unit step downhill where charges do not answer to it."""
    answers = jnp.abs(response) >= SMALLEST_RESPONSE
    return jnp.where(answers, missing / jnp.where(answers, response, 1.0), -jnp.sign(missing))
