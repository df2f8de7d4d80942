"""The solvers of fixed points by name; `SOLVERS.add` adds one.

| solver | one step |
|---|---|
| `Anderson` | z ← z - Σ_j Δz_j (ΔR_j · R) - M⁻¹ (R - Σ_j ΔR_j (ΔR_j · R)) |
| `NewtonKrylov`, `Dense` | z ← z - J⁻¹ R, by GMRES or with the matrix |
| `LinearMixing` | p ← p + α (F(p, μ) - p) |
| `Auto` | `Anderson`, then `NewtonKrylov` where that fails |
"""

from __future__ import annotations

from typing import Any

from mace_scf_jax.scf.known import SOLVERS
from mace_scf_jax.scf.solver import Solver
from mace_scf_jax.scf.solvers.anderson import Anderson
from mace_scf_jax.scf.solvers.auto import Auto
from mace_scf_jax.scf.solvers.dense import Dense
from mace_scf_jax.scf.solvers.linear_mixing import LinearMixing
from mace_scf_jax.scf.solvers.newton_krylov import NewtonKrylov

for solver in (Auto, Anderson, NewtonKrylov, Dense, LinearMixing):
    SOLVERS.add(solver)


def solver_named(name: str, **settings: Any) -> Solver:
    """A solver with the given settings, and its own defaults for the others.

    Args:
        name: in `SOLVERS`.
        **settings: fields of the solver, such as `max_steps` and `tolerance`; None for the default.

    Raises:
        ValueError: there is no such solver, or a setting is out of range or not one of the solver.
    """
    given = {key: value for key, value in settings.items() if value is not None}
    for key in given:
        if not SOLVERS[name].has_setting(key):
            having = [other.name for other in SOLVERS.values() if other.has_setting(key)]
            raise ValueError(f"{key}: expected the solver {' or '.join(having)}, found {name}")
    return SOLVERS[name](**given)
