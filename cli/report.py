"""``mace-scf-jax report``: one HTML page about a training run."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from mace_scf_jax_cli.run_arguments import add_run_arguments

WHEN_INTERRUPTED = "interrupted; no report was written"


def run(words: Sequence[str]) -> int:
    """Report as the words after ``mace-scf-jax report`` say; returns the exit status."""
    given = _parser().parse_args(words)
    from mace_scf_jax.reports.html_report import html_report  # slow to import
    from mace_scf_jax.reports.pictures import draw
    from mace_scf_jax.reports.training_run import find_run

    found = find_run(given.run)
    pictures = draw(
        found,
        min_epoch=given.min_epoch,
        max_epoch=given.max_epoch,
        stage=given.stage,
        with_parity=given.parity,
    )
    path = found.files.work / f"{found.tag}_report.html" if given.output is None else given.output
    path.write_text(html_report(found, pictures), encoding="utf-8")
    print(path)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mace-scf-jax report",
        description="Write a report of a training run as one HTML page that needs nothing beside "
        "it: errors, pictures, data, settings, versions, compilations, warnings.",
        allow_abbrev=False,
    )
    add_run_arguments(parser)
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FILE.html",
        help="the page (default: <name>_run-<seed>_report.html in the folder of the run)",
    )
    return parser
