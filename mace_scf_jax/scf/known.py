"""The names of all solvers, for options that choose one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mace_scf_jax.registry import Registry

if TYPE_CHECKING:
    from mace_scf_jax.scf.solver import Solver

SOLVERS: Registry[type[Solver]] = Registry(
    "solver",
    modules=("mace_scf_jax.scf.solvers",),
    names=("auto", "anderson", "newton_krylov", "dense", "linear_mixing"),
)
"""Every solver that configurations and commands may name."""
