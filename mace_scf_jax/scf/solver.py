"""What a solver of fixed-point problems is: settings, a search, and a linear solver."""

from __future__ import annotations

import abc
import dataclasses
from typing import ClassVar

from jaxtyping import Array, Float

from mace_scf_jax.scf.fixed_point import FixedPointProblem, FixedPointSolution
from mace_scf_jax.scf.jacobian_memory import JacobianMemory
from mace_scf_jax.scf.krylov import LinearOperator, restarted_gmres

LINEAR_TOLERANCE = 1e-12
"""Relative residual of the linear systems of derivatives."""
KRYLOV_STEPS = 50
"""Largest dimension of a Krylov space before it is started anew."""


class Solver(abc.ABC):
    """Settings of a solver: a frozen dataclass with the number of steps and the tolerance."""

    max_steps: int
    """Steps after which to give up."""
    tolerance: float
    """What the residual of a converged system is below."""
    can_be_unrolled: ClassVar[bool] = False
    """Whether the search itself may be differentiated."""

    @abc.abstractmethod
    def find(
        self,
        problem: FixedPointProblem,
        state: Float[Array, "sites components"],
        level: Float[Array, "systems"],
    ) -> FixedPointSolution:
        """Search for the fixed points, without regard to derivatives.

        Args:
            problem: the equations.
            state: initial p; zero at masked sites.
            level: initial μ, or the given one.
        """

    def find_with_memory(
        self,
        problem: FixedPointProblem,
        state: Float[Array, "sites components"],
        level: Float[Array, "systems"],
        memory: JacobianMemory,
    ) -> FixedPointSolution:
        """`find`, with what earlier searches have learned; solvers that learn nothing hand it on.

        Args:
            problem: the equations.
            state: initial p; zero at masked sites.
            level: initial μ, or the given one.
            memory: of earlier searches.
        """
        return dataclasses.replace(self.find(problem, state, level), memory=memory)

    def solve_linear(
        self,
        operator: LinearOperator,
        right: Float[Array, "systems unknowns"],
        precondition: LinearOperator,
    ) -> Float[Array, "systems unknowns"]:
        """Solve a linear system tightly, as derivatives need it.

        Args:
            operator: x -> A x; systems are not coupled.
            right: b.
            precondition: an approximate inverse of A.

        Returns:
            x; for a singular A something finite.
        """
        return restarted_gmres(
            operator,
            right,
            max_steps=KRYLOV_STEPS,
            tolerance=LINEAR_TOLERANCE,
            precondition=precondition,
        )


def check_settings(solver: Solver) -> None:
    """Refuse numbers out of range.

    Args:
        solver: with steps and a tolerance.

    Raises:
        ValueError: a number is out of range.
    """
    if solver.max_steps < 0:
        raise ValueError(f"max_steps: expected 0 or more, found {solver.max_steps!r}")
    if not solver.tolerance > 0.0:
        raise ValueError(f"tolerance: expected a positive number, found {solver.tolerance!r}")
