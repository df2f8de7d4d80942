"""The one loop in which all iterative solvers run.

A solver says how a search begins (`init`), how it goes on (`step`) and what it found (`finish`). It
works on the vectors of all systems at once, and tells what came of every step for each system (an
`Outcome`). The loop keeps the account: steps, evaluations, history and status of every system. A
system that has ended stays as it is while the others go on, so that no result depends on the batch.
"""

from __future__ import annotations

import abc
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mace_scf_jax.scf.equations import Equations
from mace_scf_jax.scf.jacobian_memory import JacobianMemory
from mace_scf_jax.scf.krylov import Vectors
from mace_scf_jax.scf.problem import FixedPointProblem, FixedPointSolution, State
from mace_scf_jax.scf.solver import Solver
from mace_scf_jax.scf.status import SolverStatus


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Iterate:
    """Where every system stands. Solvers that need more extend it, with a row for each system."""

    vectors: Vectors
    """z, the best solution so far."""
    residual: Vectors
    """R(z)."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came of the beginning of a search, or of one step."""

    status: Int[Array, "systems"]
    """A `SolverStatus`; `MAX_STEPS` for systems that are on the way."""
    has_ended: Bool[Array, "systems"]
    error: Float[Array, "systems"]
    """What the history records of the step: the mean of |F(p, μ) - p|, as a rule."""
    steps: Int[Array, "systems"]
    """Steps that were taken: one, as a rule."""
    evaluations: Int[Array, "systems"]
    """Evaluations of F and of its linearisation that it took."""

    @classmethod
    def of(
        cls,
        error: Float[Array, "systems"],
        *,
        converged: Bool[Array, "systems"],
        diverged: Bool[Array, "systems"] | bool = False,
        singular: Bool[Array, "systems"] | bool = False,
        gives_up: Bool[Array, "systems"] | bool = False,
        steps: Int[Array, "systems"] | int = 1,
        evaluations: Int[Array, "systems"] | int = 1,
    ) -> Outcome:
        """The outcome for systems of which each ends for one reason at most.

        Args:
            error: mean of |F(p, μ) - p|.
            converged, diverged, singular: systems that end so.
            gives_up: systems whose search ends before its steps are used up.
            steps, evaluations: that were taken, of those that were running.
        """
        status = jnp.full(error.shape, SolverStatus.MAX_STEPS, jnp.int32)
        for ended, why in (
            (singular, SolverStatus.SINGULAR),
            (diverged, SolverStatus.DIVERGED),
            (converged, SolverStatus.CONVERGED),
        ):
            status = jnp.where(ended, jnp.int32(why), status)
        count = jnp.zeros(error.shape, jnp.int32)
        return cls(
            status=status,
            has_ended=(status != SolverStatus.MAX_STEPS) | gives_up,
            error=error,
            steps=count + steps,
            evaluations=count + evaluations,
        )


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Progress:
    """How far every system is: the account that the loop keeps."""

    running: Bool[Array, "systems"]
    status: Int[Array, "systems"]
    steps: Int[Array, "systems"]
    evaluations: Int[Array, "systems"]
    history: Float[Array, "steps systems"]
    """Error of every step; not a number where there was none."""

    @classmethod
    def first(cls, outcome: Outcome, max_steps: int) -> Progress:
        """The account after the beginning. A search of no steps still looks at its start."""
        looks = max_steps > 0 or outcome.evaluations == 0
        return cls(
            running=~outcome.has_ended & looks,
            status=outcome.status,
            steps=jnp.zeros_like(outcome.steps),
            evaluations=outcome.evaluations,
            history=jnp.full((max_steps, len(outcome.status)), jnp.nan, outcome.error.dtype),
        )

    def after(self, outcome: Outcome) -> Progress:
        """The account after one more step of the systems that were running."""
        running, max_steps = self.running, len(self.history)
        steps = self.steps + jnp.where(running, outcome.steps, 0)
        row = jnp.where(running & (outcome.steps > 0), self.steps, max_steps)
        every = jnp.arange(len(row), dtype=jnp.int32)
        error = jax.lax.stop_gradient(outcome.error)
        return Progress(
            running=running & ~outcome.has_ended & (steps < max_steps),
            status=jnp.where(running, outcome.status, self.status),
            steps=steps,
            evaluations=self.evaluations + jnp.where(running, outcome.evaluations, 0),
            history=self.history.at[row, every].set(error, mode="drop"),
        )


@dataclasses.dataclass(frozen=True)
class Found:
    """What came of a search."""

    vectors: Vectors
    """z."""
    argument: Vectors
    """Where F was evaluated last."""
    error: Float[Array, "systems"]
    """Residual by which the solver judges."""
    memory: JacobianMemory | None = None
    """For the next search; None from solvers that learn nothing."""


@dataclasses.dataclass(frozen=True)
class IterativeSolver(Solver):
    """A solver that goes step by step.

    Its own state is a tree of arrays with one row for each system, such as an `Iterate`.
    """

    @abc.abstractmethod
    def init(
        self, equations: Equations, start: Vectors, memory: JacobianMemory | None
    ) -> tuple[Any, Outcome]:
        """Begin a search.

        Args:
            start: initial z.
            memory: what earlier searches have learned, if that is known.

        Returns:
            The state of the solver, and which systems have ended already.
        """

    @abc.abstractmethod
    def step(self, equations: Equations, current: Any, progress: Progress) -> tuple[Any, Outcome]:
        """Go on by one step. What it gives for systems that are not running is not used.

        Args:
            current: the state of the solver.
            progress: how far every system is.

        Returns:
            The next state of the solver, and what came of the step.
        """

    def finish(self, equations: Equations, current: Any) -> Found:
        """What came of the search, from the last state of the solver."""
        return Found(current.vectors, current.vectors, equations.error(current.residual))

    def find(
        self,
        problem: FixedPointProblem,
        state: State,
        level: Float[Array, "systems"],
        memory: JacobianMemory | None = None,
    ) -> FixedPointSolution:
        """Search step by step, each system by itself."""
        return iterate(self, problem, state, level, memory)


@dataclasses.dataclass(frozen=True)
class UnrolledSolver(IterativeSolver):
    """A solver whose search may be differentiated: it is a scan of fixed length."""

    rematerialise: bool = False
    """Compute every step again when derivatives go through the loop, instead of keeping what its
    derivative needs: less memory, more time."""
    keep_states: bool = False
    """Whether solutions have the states of all steps."""


def iterate(
    solver: IterativeSolver,
    problem: FixedPointProblem,
    state: State,
    level: Float[Array, "systems"],
    memory: JacobianMemory | None = None,
) -> FixedPointSolution:
    """Let a solver search until every system has ended, or the steps are used up.

    Args:
        state: initial p; zero at masked sites.
        level: initial μ, or the given one.
        memory: what earlier searches have learned; solvers that learn nothing hand it on.
    """
    equations = Equations(problem, level)
    current, outcome = solver.init(equations, equations.pack(state, level), memory)
    carry = current, Progress.first(outcome, solver.max_steps)

    def advance(carry: tuple[Any, Progress]) -> tuple[Any, Progress]:
        current, progress = carry
        moved, outcome = solver.step(equations, current, progress)
        return choose_rows(progress.running, moved, current), progress.after(outcome)

    def is_unfinished(carry: tuple[Any, Progress]) -> Bool[Array, ""]:
        return jnp.any(carry[1].running)

    states = None
    if isinstance(solver, UnrolledSolver):

        def body(carry: tuple[Any, Progress], _: None) -> tuple[tuple[Any, Progress], Any]:
            carry = jax.lax.cond(is_unfinished(carry), advance, lambda same: same, carry)
            return carry, equations.unpack(carry[0].vectors)[0] if solver.keep_states else None

        body = jax.checkpoint(body, prevent_cse=False) if solver.rematerialise else body
        carry, states = jax.lax.scan(body, carry, length=solver.max_steps)
        states = jnp.concatenate([state[None], states]) if solver.keep_states else None
    else:
        carry = jax.lax.while_loop(is_unfinished, advance, carry)

    current, progress = carry
    found = solver.finish(equations, current)
    state, level = equations.unpack(found.vectors)
    argument, argument_level = equations.unpack(found.argument)
    return FixedPointSolution(
        state=state,
        level=level,
        argument=argument,
        argument_level=argument_level,
        status=progress.status,
        residual=found.error,
        charge_error=equations.charge_error(state),
        steps=progress.steps,
        evaluations=progress.evaluations,
        history=jnp.where(jnp.isnan(progress.history), found.error, progress.history),
        states=states,
        memory=memory if found.memory is None else found.memory,
    )


def choose_rows(condition: Bool[Array, "systems"], these: Any, others: Any) -> Any:
    """Rows of one tree of arrays where the condition holds, of the other elsewhere."""

    def choose(this: Array, other: Array) -> Array:
        if this is other:  # what a step left alone stays the same for the compiler too
            return other
        return jnp.where(condition.reshape((-1,) + (1,) * (this.ndim - 1)), this, other)

    return jax.tree.map(choose, these, others)
