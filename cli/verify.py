"""``mace-scf-jax verify``: recompute reference files and show the deviations."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.box import ASCII
from rich.console import Console
from rich.table import Table

from mace_scf_jax.late import import_all
from mace_scf_jax_cli import work

if TYPE_CHECKING:
    from mace_scf_jax.pytorch.verification import Deviation, verify

WHEN_INTERRUPTED = "interrupted; the remaining files were not compared"
EXIT_DEVIATION = 1
EXIT_UNREADABLE = 2


def run(words: Sequence[str]) -> int:
    """Compare the files named after ``mace-scf-jax verify``.

    Returns:
        0 if all outputs agree, 1 if one deviates by more than its tolerance, 2 if a file cannot
        be compared.
    """
    parser = argparse.ArgumentParser(
        prog="mace-scf-jax verify",
        description="Recompute files in the reference format; print, per output, the largest "
        "absolute deviation, the largest deviation relative to the largest value, and the "
        "tolerance of the latter (or of the former, marked abs). Exit status 1 if a tolerance is "
        "exceeded.",
    )
    parser.add_argument("files", nargs="+", metavar="FILE.npz", help="reference files")
    status, paths = 0, parser.parse_args(words).files
    import_all(__name__, __file__)
    work.begin()
    for path in paths:
        try:
            deviations = verify(path)
        except ValueError as error:
            where = "" if path in str(error) else f"{path}: "
            print(f"error: {where}{error}", file=sys.stderr)
            status = EXIT_UNREADABLE
            continue
        _show(path, deviations)
        if not all(deviation.passed for deviation in deviations):
            status = max(status, EXIT_DEVIATION)
    return status


def _limit(deviation: Deviation) -> str:
    """What the relative deviation is compared with, or the absolute one if only that counts."""
    if deviation.tolerance > 0.0:
        return f"{deviation.tolerance:.0e}"
    return f"{deviation.floor:.0e} abs"


def _show(path: str, deviations: Sequence[Deviation]) -> None:
    table = Table(box=ASCII)
    table.add_column("output", no_wrap=True)
    for heading in ("absolute", "relative", "tolerance", "result"):
        table.add_column(heading, justify="right", no_wrap=True)
    for deviation in deviations:
        table.add_row(
            deviation.output,
            f"{deviation.absolute:.1e}",
            f"{deviation.relative:.1e}",
            _limit(deviation),
            "ok" if deviation.passed else "EXCEEDED",
        )
    print(path)
    Console(markup=False, width=120).print(table)
