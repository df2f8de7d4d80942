"""Solving the equations of a batch of fixed-point models, with a way out for each structure.

A structure without solution must not spoil the training step of the others. It can get the state
after a few unrolled mixing steps instead, whose derivatives are those of what was computed.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mace_scf_jax.models.families.fixed_point.choices import InitialDensity, InitialFermiLevel
from mace_scf_jax.scf import (
    Auto,
    Differentiation,
    FixedPointProblem,
    FixedPointSolution,
    JacobianMemory,
    LinearMixing,
    Solver,
    SolverStatus,
    solve,
)
from mace_scf_jax.scf.iterate import choose_rows


@dataclasses.dataclass(frozen=True)
class DirectStep:
    """No self-consistency: one step from the reference multipoles and Fermi levels of the data."""


@dataclasses.dataclass(frozen=True)
class SelfConsistency:
    """How the multipoles of a fixed-point model are solved for, and differentiated.

    Raises:
        ValueError: an unknown name, or choices that do not go together.
    """

    solver: Solver = dataclasses.field(default_factory=Auto)
    differentiation: Differentiation = Differentiation.IMPLICIT
    """A `Differentiation` or its name."""
    constant_charge: bool = True
    """Solve for the Fermi levels that give the total charges; otherwise Fermi levels are given."""
    initial_density: InitialDensity = InitialDensity.LOCAL_GUESS
    """An `InitialDensity` or its name."""
    initial_fermi_level: InitialFermiLevel = InitialFermiLevel.FROM_DATA
    """An `InitialFermiLevel` or its name."""
    fallback: LinearMixing | None = None
    """What a structure gets that the solver does not solve: the state after these steps,
    differentiated through them. None: the best state that the solver met."""
    differentiate_last_step_only: bool = False
    """Take the state before the last unrolled step as a constant (at given Fermi levels)."""

    def __post_init__(self) -> None:
        for name, choices in (
            ("differentiation", Differentiation),
            ("initial_density", InitialDensity),
            ("initial_fermi_level", InitialFermiLevel),
        ):
            value = getattr(self, name)
            try:
                object.__setattr__(self, name, choices(value))
            except ValueError:
                raise ValueError(
                    f"{name}: expected {' or '.join(choices)}, found {value!r}"
                ) from None
        unrolled = self.differentiation is Differentiation.UNROLL
        if self.differentiate_last_step_only and (self.constant_charge or not unrolled):
            raise ValueError(
                "differentiate_last_step_only: expected differentiation 'unroll' at given Fermi "
                f"levels, found {self.differentiation.value!r}, "
                f"constant_charge {self.constant_charge}"
            )
        if self.fallback is not None and unrolled:
            raise ValueError(
                "fallback: expected none with differentiation 'unroll', which is what it falls "
                "back to"
            )


def solve_state(
    problem: FixedPointProblem,
    state: Float[Array, "systems sites components"],
    level: Float[Array, "systems"],
    how: SelfConsistency,
    memory: JacobianMemory | None = None,
) -> tuple[FixedPointSolution, Bool[Array, "systems"]]:
    """Solve the equations of a batch.

    Args:
        state: initial p.
        level: initial μ, or the given one.
        how: solver, differentiation and fallback.
        memory: of earlier searches nearby.

    Returns:
        The solution, differentiable as asked for, and which systems fell back.
    """
    solution = solve(
        problem,
        state,
        level,
        solver=how.solver,
        differentiation=how.differentiation,
        memory=memory,
    )
    fell_back = jnp.zeros(len(problem.site_mask), bool)
    if how.differentiate_last_step_only:
        return _last_step_only(problem, solution, how.solver), fell_back
    if how.fallback is None:
        return solution, fell_back
    fell_back = solution.status != SolverStatus.CONVERGED
    return _with_fallback(problem, state, level, solution, fell_back, how.fallback), fell_back


def _with_fallback(
    problem: FixedPointProblem,
    state: Float[Array, "systems sites components"],
    level: Float[Array, "systems"],
    solution: FixedPointSolution,
    fell_back: Bool[Array, "systems"],
    fallback: LinearMixing,
) -> FixedPointSolution:
    """The solution, with the state of unrolled steps for some systems.

    The steps cost nothing if no system needs them. History stays that of the solver.
    """

    def as_found() -> FixedPointSolution:
        return solution

    def unrolled() -> FixedPointSolution:
        steps = solve(
            problem, state, level, solver=fallback, differentiation=Differentiation.UNROLL
        )
        steps = dataclasses.replace(
            steps,
            evaluations=solution.evaluations + steps.evaluations,
            history=solution.history,
            states=solution.states,
            memory=solution.memory,
        )
        return choose_rows(fell_back, steps, solution)

    return jax.lax.cond(jnp.any(fell_back), unrolled, as_found)


def _last_step_only(
    problem: FixedPointProblem, solution: FixedPointSolution, solver: Solver
) -> FixedPointSolution:
    """The state as a function of the last mixing step alone; no step leaves a constant."""
    assert isinstance(solver, LinearMixing)  # the only one that is unrolled at given levels
    solution = jax.lax.stop_gradient(solution)
    image = problem.evaluate(solution.argument, solution.argument_level)
    mixed = solution.argument + solver.mixing * (image - solution.argument)
    moved = (solution.steps > 0)[:, None, None]
    return dataclasses.replace(solution, state=jnp.where(moved, mixed, solution.state))
