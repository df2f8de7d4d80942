"""Solved states: minima under a charge constraint, and their derivatives.

Nothing here knows atoms or networks. Everything treats one system of static shape and may be mapped
over systems with `jax.vmap`, so that systems are never coupled to each other.
"""

from mace_scf_jax.scf.constrained_minimum import ConstrainedMinimum, constrained_minimum
from mace_scf_jax.scf.convex_minimum import ConvexMinimum, Status, convex_minimum
from mace_scf_jax.scf.implicit_root import implicit_root
from mace_scf_jax.scf.linear_solvers import LinearSolver, solve_positive_definite
from mace_scf_jax.scf.stationary import stationary_value

__all__ = [
    "ConstrainedMinimum",
    "ConvexMinimum",
    "LinearSolver",
    "Status",
    "constrained_minimum",
    "convex_minimum",
    "implicit_root",
    "solve_positive_definite",
    "stationary_value",
]
