"""``mace-scf-jax plot``: pictures of a training run."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mace_scf_jax_cli import work
from mace_scf_jax_cli.arguments import add_run_arguments, what_to_draw

WHEN_INTERRUPTED = "interrupted; some pictures were not drawn"
FORMATS = ("png", "pdf")


def run(words: Sequence[str]) -> int:
    """Draw as the words after ``mace-scf-jax plot`` say; returns the exit status."""
    given = _parser().parse_args(words)
    work.begin()
    from mace_scf_jax.reports.pictures import draw  # slow to import, not needed for the help
    from mace_scf_jax.reports.style import save
    from mace_scf_jax.reports.training_run import find_runs

    for found in find_runs(given.run):
        pictures = draw(found, **what_to_draw(given))
        folder = found.files.work / "plots" if given.output is None else given.output
        folder.mkdir(parents=True, exist_ok=True)
        for picture in pictures.drawn:
            print(save(picture.figure, folder / f"{found.tag}_{picture.name}.{given.format}"))
        for reason in pictures.left_out:
            print(f"{found.tag}: left out: {reason}", file=sys.stderr)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mace-scf-jax plot",
        description="Draw learning curves, loss balance, SCF convergence and parity plots of a "
        "training run that is going on or over, or of each member of a committee.",
        allow_abbrev=False,
    )
    add_run_arguments(parser)
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FOLDER",
        help="folder of the pictures (default: plots in the folder of the run or member)",
    )
    parser.add_argument(
        "--format", choices=FORMATS, default="png", help="of the pictures (default: png)"
    )
    return parser
