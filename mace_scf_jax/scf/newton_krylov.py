"""Newton's method with Krylov spaces: every linear system by GMRES, without a matrix.

At constant charge state and level are solved for together, with the charge eliminated from the
linear systems. An affine F needs a single Newton step.
"""

from __future__ import annotations

import dataclasses

from jaxtyping import Array, Float

from mace_scf_jax.scf.fixed_point import FixedPointProblem, FixedPointSolution
from mace_scf_jax.scf.krylov import LinearOperator, gmres
from mace_scf_jax.scf.newton import newton
from mace_scf_jax.scf.solver import KRYLOV_STEPS, Solver, check_settings
from mace_scf_jax.scf.unknowns import Unknowns


@dataclasses.dataclass(frozen=True)
class NewtonKrylov(Solver):
    """Settings of Newton's method with Krylov spaces.

    Raises:
        ValueError: a number is out of range.
    """

    max_steps: int = 20
    """Newton steps after which to give up."""
    tolerance: float = 1e-8
    """Of the mean of |F(p, μ) - p|, and of the error of the charge."""
    krylov_steps: int = KRYLOV_STEPS
    """Largest dimension of a Krylov space."""

    def __post_init__(self) -> None:
        check_settings(self)
        if self.krylov_steps < 1:
            raise ValueError(f"krylov_steps: expected 1 or more, found {self.krylov_steps!r}")

    def find(
        self,
        problem: FixedPointProblem,
        state: Float[Array, "sites components"],
        level: Float[Array, "systems"],
    ) -> FixedPointSolution:
        """Search by Newton's method, each system by itself."""
        unknowns = Unknowns.of(problem, state.shape[-1])

        def direction(slope: LinearOperator, right: Array, tolerance: Array) -> tuple[Array, Array]:
            precondition, _ = unknowns.elimination(unknowns.response(slope, right.dtype))
            change, applications, _ = gmres(
                slope,
                right,
                max_steps=self.krylov_steps,
                tolerance=tolerance,
                precondition=precondition,
            )
            return change, applications + int(unknowns.has_level)

        return newton(
            unknowns,
            state,
            level,
            direction=direction,
            max_steps=self.max_steps,
            tolerance=self.tolerance,
        )
