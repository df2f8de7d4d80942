"""``mace-scf-jax report``: one HTML page about a training run."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from mace_scf_jax_cli import work
from mace_scf_jax_cli.arguments import add_run_arguments, what_to_draw

WHEN_INTERRUPTED = "interrupted; no report was written"


def run(words: Sequence[str]) -> int:
    """Report as the words after ``mace-scf-jax report`` say; returns the exit status."""
    given = _parser().parse_args(words)
    work.begin()
    from mace_scf_jax.reports.html_report import html_report  # slow to import
    from mace_scf_jax.reports.pictures import draw
    from mace_scf_jax.reports.training_run import RunError, find_runs

    runs = find_runs(given.run)
    if given.output is not None and len(runs) > 1:
        raise RunError(
            f"{given.output}: one page cannot hold the {len(runs)} members of a committee; leave "
            f"--output out, or name the folder of a member, such as {runs[0].files.work}"
        )
    for found in runs:
        pictures = draw(found, **what_to_draw(given))
        path = given.output or found.files.work / f"{found.tag}_report.html"
        path.write_text(html_report(found, pictures), encoding="utf-8")
        print(path)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mace-scf-jax report",
        description="Write a report of a training run, or of each member of a committee, as one "
        "HTML page that needs nothing beside it: errors, pictures, data, settings, versions, "
        "compilations, warnings.",
        allow_abbrev=False,
    )
    add_run_arguments(parser)
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FILE.html",
        help="the page (default: <name>_run-<seed>_report.html in the folder of the run or member)",
    )
    return parser
