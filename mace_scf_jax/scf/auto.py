"""The solver that needs no choice: Anderson acceleration, and Newton's method where it fails."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mace_scf_jax.scf.anderson import Anderson
from mace_scf_jax.scf.fixed_point import FixedPointProblem, FixedPointSolution
from mace_scf_jax.scf.jacobian_memory import JacobianMemory
from mace_scf_jax.scf.newton_krylov import NewtonKrylov
from mace_scf_jax.scf.solver import Solver, check_settings
from mace_scf_jax.scf.status import SolverStatus

PATIENCE = 12
"""Steps that may pass without the residual being halved."""
MEMORY = 40
"""Number of former steps that are remembered."""


@dataclasses.dataclass(frozen=True)
class Auto(Solver):
    """Settings of the default solver; none needs to be touched.

    Anderson acceleration costs one evaluation of F a step. Systems that it does not bring to their
    solution go on by Newton's method with Krylov spaces, from the best state met.

    Raises:
        ValueError: a number is out of range.
    """

    max_steps: int = 40
    """Steps of the acceleration, and then of Newton's method, after which to give up."""
    tolerance: float = 1e-8
    """Of the mean of |F(p, μ) - p|, and of the error of the charge."""

    def __post_init__(self) -> None:
        check_settings(self)

    def find(
        self,
        problem: FixedPointProblem,
        state: Float[Array, "sites components"],
        level: Float[Array, "systems"],
    ) -> FixedPointSolution:
        """Search by the cheap method, then by the safe one, each system by itself."""
        return self._find(problem, state, level, None)

    def find_with_memory(
        self,
        problem: FixedPointProblem,
        state: Float[Array, "sites components"],
        level: Float[Array, "systems"],
        memory: JacobianMemory,
    ) -> FixedPointSolution:
        """Likewise, with what earlier searches have learned."""
        return self._find(problem, state, level, memory)

    def _find(
        self, problem: FixedPointProblem, state: Array, level: Array, memory: JacobianMemory | None
    ) -> FixedPointSolution:
        cheap = Anderson(
            max_steps=self.max_steps,
            tolerance=self.tolerance,
            memory=MEMORY,
            patience=PATIENCE,
            check_last_step=False,
        )
        safe = NewtonKrylov(max_steps=self.max_steps, tolerance=self.tolerance)
        if memory is None:
            found = cheap.find(problem, state, level)
        else:
            found = cheap.find_with_memory(problem, state, level, memory)
        is_solved = found.status == SolverStatus.CONVERGED

        def nothing_left() -> FixedPointSolution:
            rest = jnp.broadcast_to(found.residual, (self.max_steps, len(found.residual)))
            return dataclasses.replace(found, history=jnp.concatenate([found.history, rest]))

        def go_on() -> FixedPointSolution:
            more = safe.find(problem, found.state, found.level)
            history = jnp.where(is_solved, found.residual, more.history)
            steps = found.steps + jnp.where(is_solved, 0, more.steps)
            evaluations = found.evaluations + jnp.where(is_solved, 0, more.evaluations)
            return dataclasses.replace(
                more,
                steps=steps,
                evaluations=evaluations,
                memory=found.memory,
                history=jnp.concatenate([found.history, history]),
            )

        return jax.lax.cond(jnp.all(is_solved), nothing_left, go_on)
