"""``mace-scf-jax relax``: structures at rest."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from mace_scf_jax_cli import work
from mace_scf_jax_cli.arguments import (
    add_committee_arguments,
    add_input_arguments,
    add_use_arguments,
    load_predictor,
    options_of_use,
    read_start,
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

    from mace_scf_jax.data.ase_formats import format_to_write
    from mace_scf_jax.files import write_whole
    from mace_scf_jax.simulate.frames import trajectory
    from mace_scf_jax.simulate.relaxation import RelaxationError, RelaxationStep, relax

    signs = work.begin()
    written = [Path(given.output)]
    if given.trajectory is not None:
        steps = trajectory(Path(given.trajectory))
        written += steps.paths
    file_format = format_to_write(given.output)
    for path in written:
        if not path.parent.is_dir():
            raise RelaxationError(f"{path}: no such folder")
        if path.exists() and not given.overwrite:
            raise RelaxationError(f"{path}: exists already; replace it with --overwrite")
    model = load_predictor(given.model, given, **options_of_use(given))
    atoms = read_start(given.start)
    set_inputs(atoms, model.first, given)
    if given.trajectory is not None:
        for path in steps.paths:
            path.unlink(missing_ok=True)

    def report(step: RelaxationStep) -> None:
        bar.update(step.step)
        print(f"{step.step:6d} {step.energy:18.6f} {step.largest_force:14.6f}", flush=True)
        if given.trajectory is not None:
            steps.append(step.atoms)

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
    if given.trajectory is not None:
        steps.finish()
    with write_whole(given.output) as partial:
        ase.io.write(partial, result.atoms, format=file_format)
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
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="model file written by training, or the folder of a committee",
    )
    parser.add_argument(
        "start",
        metavar="START",
        help="file, in any format of ASE; its last structure is relaxed, and its constraints are "
        "kept",
    )
    parser.add_argument("--cell", action="store_true", help="relax the cell too")
    add_use_arguments(parser)
    add_committee_arguments(parser)
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
        "--output",
        default="relaxed.xyz",
        metavar="OUT",
        help="any format that ASE knows by the suffix (default: relaxed.xyz)",
    )
    parser.add_argument(
        "--trajectory",
        metavar="PATH.xyz",
        help="structures of all steps, in the formats that md writes",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")
    return parser
