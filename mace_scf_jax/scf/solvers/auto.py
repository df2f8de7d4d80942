"""The solver that needs no choice: Anderson acceleration, and Newton's method where it fails."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mace_scf_jax.scf.jacobian_memory import JacobianMemory
from mace_scf_jax.scf.problem import FixedPointProblem, FixedPointSolution, State
from mace_scf_jax.scf.solver import Solver
from mace_scf_jax.scf.solvers.anderson import Anderson
from mace_scf_jax.scf.solvers.newton_krylov import NewtonKrylov
from mace_scf_jax.scf.status import SolverStatus

PATIENCE = 12
"""Steps that may pass without the residual being halved."""
MEMORY = 40
"""Number of former steps that are remembered."""


@dataclasses.dataclass(frozen=True)
class Auto(Solver):
    """Settings of the default solver; none needs to be touched.

    Anderson acceleration costs one evaluation of F a step. Systems that it does not bring to their
    solution go on by Newton's method with Krylov spaces, from the best state met; `max_steps`
    counts for each of the two.

    Raises:
        ValueError: a number is out of range.
    """

    name = "auto"

    max_steps: int = 40

    def find(
        self,
        problem: FixedPointProblem,
        state: State,
        level: Float[Array, "systems"],
        memory: JacobianMemory | None = None,
    ) -> FixedPointSolution:
        """Search by the cheap method, then by the safe one, each system by itself."""
        cheap = Anderson(
            max_steps=self.max_steps,
            tolerance=self.tolerance,
            memory=MEMORY,
            patience=PATIENCE,
            check_last_step=False,
        )
        safe = NewtonKrylov(max_steps=self.max_steps, tolerance=self.tolerance)
        found = cheap.find(problem, state, level, memory)
        is_solved = found.status == SolverStatus.CONVERGED

        def stay() -> FixedPointSolution:
            rest = jnp.broadcast_to(found.residual, (self.max_steps, len(found.residual)))
            return dataclasses.replace(found, history=jnp.concatenate([found.history, rest]))

        def go_on() -> FixedPointSolution:
            more = safe.find(problem, found.state, found.level, found.memory)
            history = jnp.where(is_solved, found.residual, more.history)
            return dataclasses.replace(
                more,
                steps=found.steps + jnp.where(is_solved, 0, more.steps),
                evaluations=found.evaluations + jnp.where(is_solved, 0, more.evaluations),
                history=jnp.concatenate([found.history, history]),
            )

        return jax.lax.cond(jnp.all(is_solved), stay, go_on)
