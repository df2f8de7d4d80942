"""``mace-scf-jax scf``: how the self-consistent cycle of a model behaves for structures."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.box import ASCII
from rich.console import Console
from rich.table import Table

from mace_scf_jax.late import import_all
from mace_scf_jax_cli import work
from mace_scf_jax_cli.arguments import (
    add_scf_arguments,
    add_use_arguments,
    charge_mode_of,
    options_of_use,
    picture,
    positive,
    solvers_of,
)

if TYPE_CHECKING:
    from mace_scf_jax.predict.evaluation import read_structures
    from mace_scf_jax.predict.model import load_model
    from mace_scf_jax.predict.scf_diagnosis import Diagnosis, diagnose, require_cycle

WHEN_INTERRUPTED = "interrupted; no output was written"
EXIT_NOT_CONVERGED = 1
WIDTH = 120


def run(words: Sequence[str]) -> int:
    """Do as the words after ``mace-scf-jax scf`` say.

    Returns:
        The exit status: 1 if a structure was not solved by the first solver.
    """
    given = _parser().parse_args(words)
    import_all(__name__, __file__)
    signs = work.begin()
    for path in (given.plot, given.json):
        if path is not None and not path.absolute().parent.is_dir():
            raise FileNotFoundError(f"{path}: no such folder")
    solvers = solvers_of(given)
    model = load_model(given.model, **options_of_use(given))
    require_cycle(model)
    model = dataclasses.replace(model, scf=charge_mode_of(given))
    _, structures = read_structures(model, given.structures)
    with signs.bar("structures", len(structures)) as bar:
        diagnoses = diagnose(
            model,
            structures,
            solvers=solvers,
            batch_size=given.batch_size,
            notify=bar.update,
        )
    _print(diagnoses)
    if given.json is not None:
        content = [diagnosis.to_dict() for diagnosis in diagnoses]
        given.json.write_text(json.dumps(content, indent=1) + "\n")
        print(f"Wrote {given.json}")
    if given.plot is not None:
        tolerances = {solver.tolerance for solver in solvers.values()}
        tolerance = tolerances.pop() if len(tolerances) == 1 else None
        print(f"Wrote {_plot(diagnoses, tolerance, given.plot)}")
    first = next(iter(solvers))
    solved = all(diagnosis.runs[first].has_converged for diagnosis in diagnoses)
    return 0 if solved else EXIT_NOT_CONVERGED


def _plot(diagnoses: Sequence[Diagnosis], tolerance: float | None, path: Path) -> Path:
    from mace_scf_jax.reports.scf_convergence import solver_convergence  # slow to import
    from mace_scf_jax.reports.style import save

    return save(solver_convergence(diagnoses, tolerance=tolerance), path)


def _print(diagnoses: Sequence[Diagnosis]) -> None:
    """A row for each structure and solver, a summary of the solvers, and the findings."""
    console = Console(width=WIDTH, highlight=False, soft_wrap=True)
    table = Table(
        "configuration", "charge", "radius", "dQ/dμ", "solver", "status", "steps",
        "evaluations", "residual", box=ASCII,
    )  # fmt: skip
    for column in table.columns[1:4] + table.columns[6:]:
        column.justify = "right"
    for diagnosis in diagnoses:
        about = [
            f"{diagnosis.location.index} {diagnosis.formula}",
            f"{diagnosis.total_charge:+.3f}",
            f"{diagnosis.spectral_radius:.3f}",
            f"{diagnosis.charge_response:.3f}",
        ]
        for name, found in diagnosis.runs.items():
            status = found.status.name.lower().replace("_", " ")
            counts = (str(found.steps), str(found.evaluations))
            table.add_row(*about, name, status, *counts, f"{found.residual:.1e}")
            about = [""] * len(about)
    console.print(table)

    summary = Table("solver", "converged", "evaluations", "most", "largest residual", box=ASCII)
    for column in summary.columns[1:]:
        column.justify = "right"
    for name in diagnoses[0].runs:
        runs = [diagnosis.runs[name] for diagnosis in diagnoses]
        evaluations = [found.evaluations for found in runs]
        summary.add_row(
            name,
            f"{sum(found.has_converged for found in runs)} of {len(runs)}",
            f"{np.mean(evaluations):.1f}",
            str(max(evaluations)),
            f"{max(found.residual for found in runs):.1e}",
        )
    console.print(summary)
    for diagnosis in diagnoses:
        for finding in diagnosis.findings:
            console.print(f"{diagnosis.location}: {finding}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mace-scf-jax scf",
        description="Solve the self-consistent multipoles of structures, with one solver or "
        "several, and tell how strongly the model is coupled and whether the solution is stable.",
        allow_abbrev=False,
    )
    parser.add_argument("model", metavar="MODEL", help="file of a self-consistent model")
    parser.add_argument("structures", metavar="FILE", help="structures (any format of ASE)")
    parser.add_argument(
        "--plot",
        type=picture,
        metavar="PICTURE.png",
        help="residuals against evaluations (.png or .pdf)",
    )
    parser.add_argument("--json", type=Path, metavar="OUT.json", help="all numbers")
    parser.add_argument(
        "--batch_size",
        type=positive,
        default=16,
        metavar="N",
        help="structures solved together (default: 16)",
    )
    add_use_arguments(parser)
    add_scf_arguments(parser, several_solvers=True)
    return parser
