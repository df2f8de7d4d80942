"""Arguments that several commands share, and the kinds of value that they take."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import sys
from pathlib import Path
from typing import Any

from mace_scf_jax.models import InitialFermiLevel, SelfConsistency
from mace_scf_jax.scf import SOLVERS, Solver, solver_named

PICTURES = (".png", ".pdf")


def picture(text: str) -> Path:
    """The path of a picture in a format that can be drawn."""
    path = Path(text)
    if path.suffix not in PICTURES:
        raise argparse.ArgumentTypeError(f"expected a {' or '.join(PICTURES)} file, found {text!r}")
    return path


def positive(text: str) -> int:
    """A whole number above 0."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, found {number}")
    return number


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Which run, and what of it."""
    parser.add_argument(
        "run",
        metavar="RUN",
        help="folder of the run or committee (its work_dir), its configuration (.yaml), or the "
        "results file of a run (results/<name>_run-<seed>_train.txt)",
    )
    for name, which in (("min", "first"), ("max", "last")):
        parser.add_argument(
            f"--{name}_epoch",
            type=int,
            metavar="N",
            help=f"{which} epoch of what is drawn against epochs",
        )
    parser.add_argument(
        "--stage", metavar="NAME", help="stage whose model the parity plots are of (default: last)"
    )
    parser.add_argument(
        "--no_parity",
        dest="parity",
        action="store_false",
        help="no parity plots, which need the model and the structures and some computing",
    )


def what_to_draw(given: argparse.Namespace) -> dict[str, Any]:
    """The arguments of `mace_scf_jax.reports.pictures.draw`, besides the run.

    Args:
        given: what was parsed.
    """
    return {
        "min_epoch": given.min_epoch,
        "max_epoch": given.max_epoch,
        "stage": given.stage,
        "with_parity": given.parity,
    }


CHOICES = "mace_scf_jax.electrostatics.mesh_choice"
"""Logger that says what ``auto`` decides."""


class _ToTerminal(logging.Handler):
    """Prints messages as they are, beside the output of a command."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one message."""
        print(record.getMessage(), file=sys.stderr)


_TO_TERMINAL = _ToTerminal()


def add_sums_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``--sums``; what ``auto`` decides is printed once."""
    parser.add_argument(
        "--sums",
        choices=("auto", "direct", "mesh"),
        help="how periodic Coulomb sums are done: direct, over wavevectors; on a mesh; auto: by "
        "the number of atoms (default: as the model file says)",
    )
    logging.getLogger(CHOICES).setLevel(logging.INFO)
    logging.getLogger(CHOICES).addHandler(_TO_TERMINAL)


def add_scf_arguments(parser: argparse.ArgumentParser, *, several_solvers: bool = False) -> None:
    """Add options for how multipoles are solved for.

    Args:
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
