"""``mace-scf-jax relax``: structures at rest."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from mace_scf_jax_cli import work
from mace_scf_jax_cli.arguments import (
    add_input_arguments,
    add_use_arguments,
    options_of_use,
    set_inputs,
)

WHEN_INTERRUPTED = "interrupted; the structures of the steps made so far are in the trajectory"
EXIT_NOT_CONVERGED = 1


def run(words: Sequence[str]) -> int:
    """Relax as the words after ``mace-scf-jax relax`` say.

    Returns:
        0 if forces vanish, 1 if the steps did not suffice.
    """
    given = _parser().parse_args(words)
    import ase.io  # what follows takes seconds to import

    from mace_scf_jax.data.reading import read_atoms
    from mace_scf_jax.files import write_whole
    from mace_scf_jax.simulate import load_model
    from mace_scf_jax.simulate.relaxation import RelaxationError, RelaxationStep, relax

    signs = work.begin()
    written = [Path(path) for path in (given.output, given.trajectory) if path is not None]
    for path in written:
        if path.suffix not in (".xyz", ".extxyz"):
            raise RelaxationError(f"{path}: expected a name that ends in .xyz or .extxyz")
        if not path.parent.is_dir():
            raise RelaxationError(f"{path}: no such folder")
        if path.exists() and not given.overwrite:
            raise RelaxationError(f"{path}: exists already; replace it with --overwrite")
    model, atoms = load_model(given.model, **options_of_use(given)), read_atoms(given.start)[-1]
    set_inputs(atoms, model, given)

    def report(step: RelaxationStep) -> None:
        bar.update(step.step)
        print(f"{step.step:6d} {step.energy:18.6f} {step.largest_force:14.6f}", flush=True)
        if given.trajectory is not None:
            ase.io.write(given.trajectory, step.atoms, format="extxyz", append=bool(step.step))

    print(f"{'step':>6} {'energy/eV':>18} {'force/(eV/Å)':>14}")
    with signs.bar("steps", in_lines=False) as bar:
        result = relax(
            model,
            atoms,
            optimiser=given.optimizer,
            largest_force=given.fmax,
            max_steps=given.steps,
            cell=given.cell,
            report=report,
        )
    with write_whole(given.output) as partial:
        ase.io.write(partial, result.atoms, format="extxyz")
    state = "converged" if result.converged else "not converged"
    print(f"{state} after {result.steps} steps; wrote {', '.join(map(str, written))}")
    return 0 if result.converged else EXIT_NOT_CONVERGED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mace-scf-jax relax",
        description="Move the atoms of a structure, and its cell if wanted, to where forces "
        "vanish. Exit status 1 if they do not within the given steps.",
        allow_abbrev=False,
    )
    parser.add_argument("model", metavar="MODEL", help="model file written by training")
    parser.add_argument(
        "start", metavar="START", help="file (.xyz or .xsf); its last structure is relaxed"
    )
    parser.add_argument("--cell", action="store_true", help="relax the cell too")
    add_use_arguments(parser)
    add_input_arguments(parser)
    parser.add_argument(
        "--fmax",
        type=float,
        default=0.01,
        metavar="EV/Å",
        help="largest force on an atom at the end (default: 0.01)",
    )
    parser.add_argument(
        "--steps", type=int, default=500, metavar="N", help="most steps (default: 500)"
    )
    parser.add_argument(
        "--optimizer", default="lbfgs", metavar="NAME", help="lbfgs (default), bfgs or fire"
    )
    parser.add_argument(
        "--output", default="relaxed.xyz", metavar="OUT.xyz", help="default: relaxed.xyz"
    )
    parser.add_argument("--trajectory", metavar="PATH.xyz", help="structures of all steps")
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")
    return parser
