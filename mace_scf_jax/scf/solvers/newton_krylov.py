"""Newton's method with Krylov spaces: every linear system by GMRES, without a matrix.

At constant charge state and level are solved for together, with the charge eliminated from the
linear systems. An affine F needs a single Newton step.
"""

from __future__ import annotations

import dataclasses

from jaxtyping import Array, Float, Int

from mace_scf_jax.scf.equations import Equations
from mace_scf_jax.scf.krylov import LinearOperator, Vectors, gmres
from mace_scf_jax.scf.solver import KRYLOV_STEPS
from mace_scf_jax.scf.solvers.newton import Newton


@dataclasses.dataclass(frozen=True)
class NewtonKrylov(Newton):
    """Settings of Newton's method with Krylov spaces.

    Raises:
        ValueError: a number is out of range.
    """

    name = "newton_krylov"

    krylov_steps: int = KRYLOV_STEPS
    """Largest dimension of a Krylov space."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.krylov_steps < 1:
            raise ValueError(f"krylov_steps: expected 1 or more, found {self.krylov_steps!r}")

    def direction(
        self,
        equations: Equations,
        slope: LinearOperator,
        right: Vectors,
        tolerance: Float[Array, "systems"],
    ) -> tuple[Vectors, Int[Array, "systems"]]:
        """Solve J x = b in the Krylov space of each system."""
        change, applications, _ = gmres(
            slope,
            right,
            max_steps=self.krylov_steps,
            tolerance=tolerance,
            precondition=equations.elimination_at(slope, right).apply,
        )
        return change, applications + int(equations.has_level)
