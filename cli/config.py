"""``mace-scf-jax config``: the training options as a commented file or as documentation."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from mace_scf_jax.models import FAMILIES
from mace_scf_jax.training.config.option_reference import default_configuration, reference_page

WHEN_INTERRUPTED = "interrupted"


def run(words: Sequence[str]) -> int:
    """Print what the words after ``mace-scf-jax config`` ask for; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="mace-scf-jax config",
        description="Print the options of mace-scf-jax train.",
        allow_abbrev=False,
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--defaults",
        action="store_true",
        help="as a configuration file with a comment for each option: "
        "mace-scf-jax config --defaults > config.yaml",
    )
    what.add_argument(
        "--reference",
        action="store_true",
        help="as the page docs/reference/options.md of the documentation",
    )
    parser.add_argument(
        "--model",
        choices=FAMILIES,
        metavar="FAMILY",
        help=f"with --defaults: only what matters to one family ({', '.join(FAMILIES)})",
    )
    given = parser.parse_args(words)
    if given.reference and given.model is not None:
        parser.error("--model goes with --defaults only")
    print(reference_page() if given.reference else default_configuration(given.model), end="")
    return 0
