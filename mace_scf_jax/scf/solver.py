"""What a solver of fixed-point problems is: settings, a search, and a linear solver."""

from __future__ import annotations

import abc
import dataclasses
from typing import ClassVar

from jaxtyping import Array, Float

from mace_scf_jax.scf.jacobian_memory import JacobianMemory
from mace_scf_jax.scf.krylov import LinearOperator, Vectors, restarted_gmres
from mace_scf_jax.scf.problem import FixedPointProblem, FixedPointSolution, State

LINEAR_TOLERANCE = 1e-12
"""Relative residual of the linear systems of derivatives."""
KRYLOV_STEPS = 50
"""Largest dimension of a Krylov space before it is started anew."""


@dataclasses.dataclass(frozen=True)
class Solver(abc.ABC):
    """Settings of a solver; a subclass is a frozen dataclass and may add settings of its own.

    Raises:
        ValueError: a number is out of range.
    """

    name: ClassVar[str]
    """By which configurations and commands call the solver."""

    max_steps: int = 50
    """Steps after which to give up."""
    tolerance: float = 1e-8
    """Of the mean of |F(p, μ) - p|, and of the error of the charge."""

    def __post_init__(self) -> None:
        if self.max_steps < 0:
            raise ValueError(f"max_steps: expected 0 or more, found {self.max_steps!r}")
        if not self.tolerance > 0.0:
            raise ValueError(f"tolerance: expected a positive number, found {self.tolerance!r}")

    @classmethod
    def has_setting(cls, name: str) -> bool:
        """Whether the solver has a setting of a name."""
        return name in (field.name for field in dataclasses.fields(cls))

    @abc.abstractmethod
    def find(
        self,
        problem: FixedPointProblem,
        state: State,
        level: Float[Array, "systems"],
        memory: JacobianMemory | None = None,
    ) -> FixedPointSolution:
        """Search for the fixed points, without regard to derivatives.

        Args:
            state: initial p; zero at masked sites.
            level: initial μ, or the given one.
            memory: what earlier searches have learned; solvers that learn nothing hand it on.
        """

    def solve_linear(
        self, operator: LinearOperator, right: Vectors, precondition: LinearOperator
    ) -> Vectors:
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
