"""The solvers of self-consistent models by name."""

from __future__ import annotations

from mace_scf_jax.hints import unknown_name
from mace_scf_jax.scf import Anderson, Auto, Dense, LinearMixing, NewtonKrylov, Solver

SOLVERS: dict[str, type[Solver]] = {
    "auto": Auto,
    "anderson": Anderson,
    "newton_krylov": NewtonKrylov,
    "dense": Dense,
    "linear_mixing": LinearMixing,
}
MIXING_DEFAULTS = {"max_steps": 100, "mixing": 0.25}
"""Of linear mixing, as in the PyTorch reference."""


def solver_named(
    name: str,
    *,
    max_steps: int | None = None,
    tolerance: float | None = None,
    mixing: float | None = None,
) -> Solver:
    """A solver with the given settings, and its own defaults for the others.

    Args:
        name: in `SOLVERS`.
        max_steps: steps after which to give up.
        tolerance: residual in e Å^l below which a structure has converged.
        mixing: fraction of the way that a step of linear mixing goes.

    Raises:
        ValueError: there is no such solver, or a setting is out of range or not one of the solver.
    """
    if name not in SOLVERS:
        raise ValueError(unknown_name("solver", name, SOLVERS))
    given = {"max_steps": max_steps, "tolerance": tolerance, "mixing": mixing}
    given = {key: value for key, value in given.items() if value is not None}
    if name == "linear_mixing":
        given = MIXING_DEFAULTS | given
    elif mixing is not None:
        raise ValueError(f"mixing: expected the solver linear_mixing, found {name}")
    return SOLVERS[name](**given)
