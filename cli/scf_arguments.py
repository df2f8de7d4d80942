"""Options of self-consistent models that several commands have."""

from __future__ import annotations

import argparse
import dataclasses

from mace_scf_jax.models import InitialFermiLevel, SelfConsistency
from mace_scf_jax.scf import SOLVERS, Solver, solver_named


def add_scf_arguments(parser: argparse.ArgumentParser, *, several_solvers: bool = False) -> None:
    """Add options for how multipoles are solved for.

    Args:
        parser: of the command.
        several_solvers: whether solvers are compared.
    """
    group = parser.add_argument_group("self-consistent models")
    group.add_argument(
        "--solver",
        nargs="+" if several_solvers else None,
        choices=tuple(SOLVERS),
        metavar="NAME",
        default=["auto"] if several_solvers else None,
        help=f"{', '.join(SOLVERS)} (default: auto)",
    )
    group.add_argument(
        "--max_steps",
        type=int,
        metavar="N",
        help="steps after which to give up (default: that of the solver)",
    )
    group.add_argument(
        "--tolerance",
        type=float,
        metavar="T",
        help="residual of converged multipoles in e Å^l (default: that of the solver)",
    )
    group.add_argument("--mixing", type=float, metavar="α", help="of linear_mixing (default: 0.25)")
    group.add_argument(
        "--constant_fermi_level",
        action="store_true",
        help="keep the Fermi level of each structure instead of its total charge",
    )


def solvers_of(given: argparse.Namespace) -> dict[str, Solver]:
    """The solvers that were asked for, by name.

    Raises:
        ValueError: a setting is out of range or not one of its solver.
    """
    return {
        name: solver_named(
            name,
            max_steps=given.max_steps,
            tolerance=given.tolerance,
            # of several solvers those that mix
            mixing=given.mixing
            if SOLVERS[name].has_setting("mixing") or len(given.solver) == 1
            else None,
        )
        for name in given.solver
    }


def self_consistency_of(given: argparse.Namespace) -> SelfConsistency | None:
    """How the multipoles are to be solved for, or None if nothing was said about it.

    Raises:
        ValueError: a setting is out of range or not one of the solver.
    """
    settings = {name: getattr(given, name) for name in ("max_steps", "tolerance", "mixing")}
    said = (given.solver, given.constant_fermi_level or None, *settings.values())
    if all(value is None for value in said):
        return None
    solver = solver_named(given.solver or "auto", **settings)
    return dataclasses.replace(charge_mode_of(given), solver=solver)


def charge_mode_of(given: argparse.Namespace) -> SelfConsistency:
    """What is kept and where the search starts, with the default solver."""
    if given.constant_fermi_level:
        return SelfConsistency(constant_charge=False)
    return SelfConsistency(initial_fermi_level=InitialFermiLevel.ZERO)
