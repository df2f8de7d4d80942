"""Arguments of the commands that look at a training run."""

from __future__ import annotations

import argparse
from typing import Any


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Which run, and what of it.

    Args:
        parser: of the command.
    """
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
