"""Solved states and their derivatives: fixed points, and minima under a charge constraint.

Nothing here knows atoms or networks. Systems are never coupled to each other: fixed points of many
systems are found at once, each by itself; minima are those of one system of static shape, to be
mapped over systems with `jax.vmap`.
"""

from mace_scf_jax.scf.anderson import Anderson
from mace_scf_jax.scf.auto import Auto
from mace_scf_jax.scf.constrained_minimum import ConstrainedMinimum, constrained_minimum
from mace_scf_jax.scf.convex_minimum import ConvexMinimum, convex_minimum
from mace_scf_jax.scf.dense import Dense
from mace_scf_jax.scf.diagnostics import charge_response, spectral_radius
from mace_scf_jax.scf.differentiation import Differentiation, solve
from mace_scf_jax.scf.fixed_point import (
    FixedPointProblem,
    FixedPointSolution,
)
from mace_scf_jax.scf.implicit_root import implicit_root
from mace_scf_jax.scf.jacobian_memory import JacobianMemory
from mace_scf_jax.scf.linear_mixing import LinearMixing, linear_mixing
from mace_scf_jax.scf.linear_solvers import LinearSolver, solve_positive_definite
from mace_scf_jax.scf.newton_krylov import NewtonKrylov
from mace_scf_jax.scf.preconditioner import SlopePreconditioner
from mace_scf_jax.scf.solver import Solver
from mace_scf_jax.scf.stationary import stationary_value
from mace_scf_jax.scf.status import SolverStatus

__all__ = [
    "Anderson",
    "Auto",
    "ConstrainedMinimum",
    "ConvexMinimum",
    "Dense",
    "Differentiation",
    "FixedPointProblem",
    "FixedPointSolution",
    "JacobianMemory",
    "LinearMixing",
    "LinearSolver",
    "NewtonKrylov",
    "SlopePreconditioner",
    "Solver",
    "SolverStatus",
    "charge_response",
    "constrained_minimum",
    "convex_minimum",
    "implicit_root",
    "linear_mixing",
    "solve",
    "solve_positive_definite",
    "spectral_radius",
    "stationary_value",
]
