"""Arguments of the commands that look at a training run."""

from __future__ import annotations

import argparse


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
            f"--{name}-epoch",
            type=int,
            metavar="N",
            help=f"{which} epoch of what is drawn against epochs",
        )
    parser.add_argument(
        "--stage", metavar="NAME", help="stage whose model the parity plots are of (default: last)"
    )
    parser.add_argument(
        "--no_parity",
        "--no-parity",
        dest="parity",
        action="store_false",
        help="no parity plots, which need the model and the structures and some computing",
    )
