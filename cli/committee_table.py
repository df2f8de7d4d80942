"""How far the members of a committee disagree about the structures of a file, as text."""

from __future__ import annotations

import io

import numpy as np
from rich.box import ASCII
from rich.console import Console
from rich.table import Table

from mace_scf_jax.predict.evaluation import CommitteeFileEvaluation
from mace_scf_jax.predict.uncertainty import UNCERTAINTIES, rank

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
