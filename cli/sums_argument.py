"""The option of several commands on how electrostatic sums are done."""

from __future__ import annotations

import argparse
import logging
import sys

CHOICES = "mace_scf_jax.electrostatics.mesh_choice"
"""Logger that says what ``auto`` decides."""


class _ToTerminal(logging.Handler):
    """Prints messages as they are, beside the output of a command."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one message."""
        print(record.getMessage(), file=sys.stderr)


_TO_TERMINAL = _ToTerminal()


def add_sums_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``--sums``; what ``auto`` decides is printed once.

    Args:
        parser: of the command.
    """
    parser.add_argument(
        "--sums",
        choices=("auto", "direct", "mesh"),
        help="how periodic Coulomb sums are done: direct, over wavevectors; on a mesh; auto: by "
        "the number of atoms (default: as the model file says)",
    )
    logging.getLogger(CHOICES).setLevel(logging.INFO)
    logging.getLogger(CHOICES).addHandler(_TO_TERMINAL)
