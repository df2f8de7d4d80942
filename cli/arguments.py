"""Arguments that several commands share, and the kinds of value that they take."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack, get_args

import ase

from mace_scf_jax import models
from mace_scf_jax.options.values import parse_literal
from mace_scf_jax.predict.use import OPTIONS, Aggregation, Options
from mace_scf_jax.scf.known import SOLVERS

if TYPE_CHECKING:
    from mace_scf_jax.models import SelfConsistency
    from mace_scf_jax.predict.committee import Committee
    from mace_scf_jax.predict.model import Model
    from mace_scf_jax.scf import Solver

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


_SPELLINGS = {
    "keys": ("--keys", "--heads"),
    "dtype": ("--dtype", "--default_dtype"),
    "dispersion_functional": ("--dispersion_functional", "--functional"),
}
_VALUES = {
    "keys": parse_literal,
    "mesh_accuracy": float,
    "dispersion_cutoff": float,
    "eps_infty": float,
}


def add_use_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of every use of a model; what ``--sums auto`` decides is printed once."""
    group = parser.add_argument_group("use of the model (default: what the model file says)")
    for name, option in OPTIONS.items():
        if option is not None and option.is_flag:
            group.add_argument(
                f"--{name}", action=argparse.BooleanOptionalAction, help=option.meaning
            )
        elif option is not None:
            group.add_argument(
                *_SPELLINGS.get(name, (f"--{name}",)),
                dest=name,
                type=_VALUES.get(name, str),
                choices=option.choices or None,
                metavar=option.metavar,
                help=option.meaning,
            )
    logging.getLogger(CHOICES).setLevel(logging.INFO)
    logging.getLogger(CHOICES).addHandler(_TO_TERMINAL)


def options_of_use(given: argparse.Namespace) -> dict[str, Any]:
    """What was said about the use of the model, as options of `mace_scf_jax.predict.use`."""
    return {name: getattr(given, name) for name, option in OPTIONS.items() if option is not None}


def add_committee_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what is taken of the members of a committee."""
    group = parser.add_argument_group("committees")
    group.add_argument(
        "--aggregation",
        choices=get_args(Aggregation),
        help="mean: of the members (default); reference: what one of them predicts. Deviations are "
        "those of all members",
    )
    group.add_argument(
        "--reference_member",
        type=positive,
        metavar="N",
        help="number of that member (default: 1)",
    )


def load_predictor(
    path: str | Path, given: argparse.Namespace, **options: Unpack[Options]
) -> Model | Committee:
    """The model of a file, or the committee of a folder.

    Args:
        path: of the model or committee.
        given: what was said about committees.
        options: how the models are used.

    Raises:
        ValueError: something was said about committees, and there is none.
    """
    from mace_scf_jax.predict.committee import is_committee, load_committee  # slow to import
    from mace_scf_jax.predict.model import load_model

    if is_committee(path):
        committee = load_committee(path, **options)
        return committee.aggregating(given.aggregation, given.reference_member)
    for name in ("aggregation", "reference_member"):
        if getattr(given, name) is not None:
            raise ValueError(f"--{name}: expected the folder of a committee, found {path}")
    return load_model(path, **options)


def add_input_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the inputs of a model that belong to a structure, and which of its atoms are fixed."""
    group = parser.add_argument_group("the structure (default: what START says)")
    group.add_argument("--total_charge", "--charge", type=float, metavar="E", help="e")
    group.add_argument(
        "--total_spin",
        "--multiplicity",
        type=float,
        metavar="M",
        help="multiplicity 2S + 1, for models that read it (PolarMACE, embedded spin)",
    )
    group.add_argument(
        "--fixed",
        metavar="ATOMS",
        help="atoms that do not move: positions from 0, ranges and elements, such as 0-47,50,Au",
    )
    group.add_argument(
        "--external_field",
        "--field",
        type=float,
        nargs=3,
        metavar=("X", "Y", "Z"),
        help="gradient of the external potential, V/Å",
    )


def read_start(path: str) -> ase.Atoms:
    """The last structure of a file in any format that ASE knows.

    Extended XYZ and XSF are read as for training, with what is said about what is wrong in them.

    Raises:
        DataError: it cannot be read.
    """
    from mace_scf_jax.data.reading import read_atoms  # slow to import

    return read_atoms(path)[-1]


def set_inputs(atoms: ase.Atoms, model: Model, given: argparse.Namespace) -> None:
    """Put inputs that were given into a structure, in place of its own.

    Raises:
        ValueError: structures have none by the keys of the model, or no such atoms, or the model
            does not read it.
    """
    if given.fixed is not None:
        from mace_scf_jax.simulate.constraints import fixed_atoms  # slow to import

        atoms.set_constraint(fixed_atoms(given.fixed, atoms))
    if given.total_spin is not None and "total_spin" not in model.settings.graph_inputs:
        raise ValueError(
            "--total_spin: expected a model that reads the multiplicity, found one of the family "
            f"{model.settings.family}, which does not"
        )
    for name in ("total_charge", "total_spin", "external_field"):
        value, key = getattr(given, name), model.keys.key_of(name)
        if value is not None and key is None:
            raise ValueError(f"--{name}: expected a key for it, found --keys with none")
        if value is not None:
            atoms.info.pop(name, None)
            atoms.info[key] = value


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
    from mace_scf_jax.scf import solver_named  # slow to import

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
    from mace_scf_jax.scf import solver_named  # slow to import

    solver = solver_named(given.solver or "auto", **settings)
    return dataclasses.replace(charge_mode_of(given), solver=solver)


def charge_mode_of(given: argparse.Namespace) -> SelfConsistency:
    """What is kept and where the search starts, with the default solver."""
    if given.constant_fermi_level:
        return models.SelfConsistency(constant_charge=False)
    return models.SelfConsistency(initial_fermi_level=models.InitialFermiLevel.ZERO)
