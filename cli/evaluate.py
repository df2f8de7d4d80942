"""``mace-scf-jax evaluate``: predict the structures of a file, compare with their labels."""

from __future__ import annotations

import argparse
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
from rich.box import ASCII
from rich.console import Console
from rich.table import Table

from mace_scf_jax.late import import_all
from mace_scf_jax.predict.born_charge_labels import BornChargeOrder
from mace_scf_jax.predict.convergence import NotConverged
from mace_scf_jax.predict.error_tables import DEFAULT_ERROR_TABLE, ERROR_TABLES, final_table
from mace_scf_jax.predict.use import SCFHistory
from mace_scf_jax_cli import work
from mace_scf_jax_cli.arguments import (
    add_committee_arguments,
    add_scf_arguments,
    add_use_arguments,
    load_predictor,
    options_of_use,
    picture,
    positive,
    self_consistency_of,
)

if TYPE_CHECKING:
    from mace_scf_jax.models import DirectStep
    from mace_scf_jax.predict.evaluation import (
        CommitteeFileEvaluation,
        FileEvaluation,
        evaluate_file,
    )
    from mace_scf_jax.predict.model import Model
    from mace_scf_jax.predict.response_table import response_table
    from mace_scf_jax.predict.spread import UNCERTAINTIES, rank

WHEN_INTERRUPTED = "interrupted; no output was written"


def run(words: Sequence[str]) -> int:
    """Evaluate as the words after ``mace-scf-jax evaluate`` say; returns the exit status."""
    given = _parser().parse_args(words)
    import_all(__name__, __file__)
    signs = work.begin()
    scf = self_consistency_of(given)
    if given.mode == "direct":
        if scf is not None:
            raise ValueError("--mode direct: expected no options of a solver, found some")
        scf = DirectStep()
    model = load_predictor(given.model, given, scf=scf, **options_of_use(given))
    with signs.bar("structures") as bar:
        evaluation = evaluate_file(
            model,
            given.structures,
            output=given.output,
            forces=not given.no_forces,
            stress=given.stress,
            contributions=given.contributions,
            descriptors=given.descriptors,
            born_charges=given.born_charges,
            born_charges_order=given.born_charges_order,
            batch_size=given.batch_size,
            prefix=given.info_prefix,
            scf_history=given.scf_history,
            not_converged=given.not_converged,
            notify=bar.update,
        )
    print(final_table(given.error_table or _table_of(model.first.record), evaluation.metrics))
    if evaluation.response is not None:
        print(response_table(evaluation.response))
    if evaluation.extrapolation is not None:
        print(extrapolation_line(evaluation.extrapolation))
    if isinstance(evaluation, CommitteeFileEvaluation):
        print(committee_table(evaluation))
    if given.output is not None:
        print(f"Wrote {len(evaluation.predictions)} structures with predictions to {given.output}")
    if given.plot is not None:
        for path in _plot(evaluation, model.first, given.plot):
            print(f"Wrote {path}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mace-scf-jax evaluate",
        description="Predict the structures of a file and print the errors by config_type.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="model file written by training, or the folder of a committee",
    )
    parser.add_argument("structures", metavar="FILE", help="structures (any format of ASE)")
    parser.add_argument(
        "--output",
        metavar="OUT.xyz",
        help="structures with predictions: extended XYZ with all of them, other formats of ASE "
        "with energies, forces and their like",
    )
    parser.add_argument(
        "--batch_size",
        type=positive,
        default=64,
        metavar="N",
        help="structures evaluated together (default: 64)",
    )
    parser.add_argument(
        "--error_table",
        choices=tuple(ERROR_TABLES),
        metavar="NAME",
        help=f"{', '.join(ERROR_TABLES)} (default: the one of the training)",
    )
    parser.add_argument(
        "--info_prefix",
        default="MACE_",
        metavar="TEXT",
        help="start of the names of predictions in OUT.xyz (default: MACE_)",
    )
    parser.add_argument(
        "--stress", "--compute_stress", action="store_true", help="predict the stress too"
    )
    add_use_arguments(parser)
    parser.add_argument(
        "--no_forces",
        "--dont_compute_force",
        action="store_true",
        help="predict no forces, which is faster",
    )
    parser.add_argument(
        "--contributions",
        "--return_contributions",
        action="store_true",
        help="write the parts of the energy that belong to the isolated atoms and to each layer, "
        "as BO_contributions",
    )
    parser.add_argument(
        "--descriptors",
        action="store_true",
        help="write the raw features of the atoms too, as descriptors (models with a descriptor "
        "backbone)",
    )
    parser.add_argument(
        "--born_charges",
        nargs="?",
        const=True,
        default=False,
        metavar="KEY",
        help="predict Born effective charges, and write them as born_charges; with the name of an "
        "array of FILE (9 numbers for each atom, in e), score them and the dipoles",
    )
    parser.add_argument(
        "--born_charges_order",
        choices=tuple(BornChargeOrder),
        default=BornChargeOrder.AUTO,
        metavar="ORDER",
        help=f"{', '.join(BornChargeOrder)}: what the rows of that array belong to (default: auto, "
        "as open structures turn their dipole)",
    )
    parser.add_argument(
        "--plot",
        type=picture,
        metavar="PICTURE.png",
        help="parity plots (.png or .pdf); errors by config type go to PICTURE_by_type.png",
    )
    add_committee_arguments(parser)
    add_scf_arguments(parser)
    parser.add_argument(
        "--mode",
        choices=("scf", "direct"),
        default="scf",
        help="of self-consistent models: scf (default), or direct, one step from the reference "
        "multipoles and Fermi levels of the file",
    )
    parser.add_argument(
        "--scf_history",
        choices=get_args(SCFHistory),
        default="none",
        help="write the residual of every step, and with linear_mixing the multipoles of every "
        "step (default: none)",
    )
    parser.add_argument(
        "--not_converged",
        choices=get_args(NotConverged),
        default="warn",
        metavar="POLICY",
        help=f"{', '.join(get_args(NotConverged))}: what to do about structures whose multipoles "
        "are not self-consistent (default: warn)",
    )
    return parser


def _plot(evaluation: FileEvaluation, model: Model, path: Path) -> list[Path]:
    """Parity plots, and errors by config type if there are several; the files written."""
    from mace_scf_jax.reports.parity import (  # needed for nothing else
        compare_file,
        errors_by_type,
        parity,
    )
    from mace_scf_jax.reports.style import save

    comparisons = compare_file(evaluation, model)
    written = [save(parity(comparisons), path)]
    if len({entry.config_type for entry in evaluation.configurations}) > 1:
        beside = path.with_stem(f"{path.stem}_by_type")
        written.append(save(errors_by_type(comparisons), beside))
    return written


def _table_of(record: dict[str, Any]) -> str:
    """The error table of the training, if the model knows it."""
    return record.get("training_options", {}).get("error_table", DEFAULT_ERROR_TABLE)


def extrapolation_line(outside: np.ndarray) -> str:
    """How much of the features is outside the range of the training set, and where most.

    Args:
        outside: fraction of the features of each structure.
    """
    text = f"Features outside the range of the training set: {np.mean(outside):.2%}"
    if not outside.any():
        return text
    most = int(np.argmax(outside))
    touched = np.count_nonzero(outside)
    return (
        f"{text}, in {touched} of {len(outside)} structures, most in configuration {most} "
        f"({outside[most]:.2%})"
    )


LONGEST_LIST = 5
"""Structures that are named as the most uncertain."""


def committee_table(evaluation: CommitteeFileEvaluation) -> str:
    """Mean and largest uncertainty by config type, and the most uncertain structures.

    Args:
        evaluation: of a file.
    """
    grid = Table(box=ASCII)
    grid.add_column("config_type", no_wrap=True)
    for name in evaluation.uncertainties:
        unit = UNCERTAINTIES[name].unit
        grid.add_column(f"{name}\nmean / max\nm{unit}", justify="right", no_wrap=True)
    for config_type, chosen in evaluation.by_config_type().items():
        grid.add_row(
            config_type,
            *(
                f"{1000.0 * np.mean(values[chosen]):.2f} / {1000.0 * np.max(values[chosen]):.2f}"
                for values in evaluation.uncertainties.values()
            ),
        )
    text = io.StringIO()
    print("Standard deviation over the members of the committee", file=text)
    Console(file=text, width=10_000, color_system=None, markup=False).print(grid)
    by = next(iter(evaluation.uncertainties))  # forces, or energy where they are left out
    most = rank(evaluation.members, by=by)[:LONGEST_LIST]
    print(f"Most uncertain {by}: configurations {', '.join(map(str, most))}", file=text)
    return text.getvalue().rstrip("\n")
