"""Solved states and their derivatives: fixed points, and minima under a charge constraint.

Nothing here knows atoms or networks. Systems are never coupled to each other: fixed points of many
systems are found at once, each by itself; minima are those of one system of static shape, to be
mapped over systems with `jax.vmap`.

| equation | file |
|---|---|
| p = F(p, μ), Σ p₀ = Q | `problem.py` |
| R(z) = (p - F(p, μ), Σ p₀ - Q), z = (p, μ) | `equations.py` |
| M⁻¹ ≈ (∂R/∂z)⁻¹, with the charge eliminated | `elimination.py`, `problem.py` |
| the loop of all solvers, and how a search ends | `iterate.py`, `status.py` |
| z ← z - Σ Δz (ΔR · R) - M⁻¹ R, z ← z - J⁻¹ R, p ← p + α (F - p) | `solvers/` |
| pairs (Δz, ΔR) | `jacobian_memory.py` |
| A x = b by GMRES; for positive definite A | `krylov.py` |
| ∂R/∂z dz = -∂R/∂θ dθ | `differentiation.py`; of minima `implicit_root.py` |
| largest |eigenvalue| of ∂F/∂p; dQ/dμ | `diagnostics.py` |
| min ½ x·A x + f(x) at a·x = total | `minimum.py` |
| dE = ∂E/∂θ dθ at fixed unknowns | `minimum.py` |
"""

from typing import TYPE_CHECKING

from mace_scf_jax.late import imported_late

if TYPE_CHECKING:
    from mace_scf_jax.scf.diagnostics import charge_response, spectral_radius
    from mace_scf_jax.scf.differentiation import Differentiation, solve
    from mace_scf_jax.scf.elimination import eliminate_charge
    from mace_scf_jax.scf.equations import Equations
    from mace_scf_jax.scf.implicit_root import implicit_root
    from mace_scf_jax.scf.iterate import (
        Found,
        Iterate,
        IterativeSolver,
        Outcome,
        Progress,
        UnrolledSolver,
    )
    from mace_scf_jax.scf.jacobian_memory import JacobianMemory
    from mace_scf_jax.scf.known import SOLVERS
    from mace_scf_jax.scf.krylov import LinearSolver, solve_positive_definite
    from mace_scf_jax.scf.minimum import (
        ConvexMinimum,
        Minimum,
        convex_minimum,
        quadratic_minimum,
        stationary_value,
    )
    from mace_scf_jax.scf.problem import FixedPointProblem, FixedPointSolution, SlopePreconditioner
    from mace_scf_jax.scf.solver import Solver
    from mace_scf_jax.scf.solvers import (
        Anderson,
        Auto,
        Dense,
        LinearMixing,
        NewtonKrylov,
        solver_named,
    )
    from mace_scf_jax.scf.status import SolverStatus

__all__ = [
    "SOLVERS",
    "Anderson",
    "Auto",
    "ConvexMinimum",
    "Dense",
    "Differentiation",
    "Equations",
    "FixedPointProblem",
    "FixedPointSolution",
    "Found",
    "Iterate",
    "IterativeSolver",
    "JacobianMemory",
    "LinearMixing",
    "LinearSolver",
    "Minimum",
    "NewtonKrylov",
    "Outcome",
    "Progress",
    "SlopePreconditioner",
    "Solver",
    "SolverStatus",
    "UnrolledSolver",
    "charge_response",
    "convex_minimum",
    "eliminate_charge",
    "implicit_root",
    "quadratic_minimum",
    "solve",
    "solve_positive_definite",
    "solver_named",
    "spectral_radius",
    "stationary_value",
]

__getattr__, __dir__ = imported_late(__name__, __file__)
