"""Scores of dipoles and Born effective charges as plain text."""

from __future__ import annotations

import io

from rich.box import ASCII
from rich.console import Console
from rich.table import Table

from mace_scf_jax.predict.response_scores import ALL, Agreement, ResponseScores

_COLUMNS = ("numbers", "RMSE", "slope", "R²", "Pearson²")


def response_table(scores: ResponseScores) -> str:
    """A table of all scores, and what has to be known to read it.

    Args:
        scores: of a file.
    """
    grid = Table(box=ASCII)
    grid.add_column("", no_wrap=True)
    for name in _COLUMNS:
        grid.add_column(name, justify="right", no_wrap=True)
    if scores.dipole is not None:
        grid.add_row("dipole / e Å", *_cells(scores.dipole))
    for name, agreement in scores.born_charges.items():
        label = "Born charges / e" if name == ALL else f"  {name}"
        grid.add_row(label, *_cells(agreement))
    text = io.StringIO()
    Console(file=text, width=10_000, color_system=None, markup=False).print(grid)
    heading, *below = _sentences(scores)
    return "\n".join([heading, text.getvalue().rstrip("\n"), *below])


def _cells(agreement: Agreement) -> list[str]:
    numbers = (agreement.slope, agreement.r_squared, agreement.pearson_squared)
    return [
        str(agreement.count),
        f"{agreement.rmse:.4f}",
        *("-" if number != number else f"{number:.3f}" for number in numbers),
    ]


def _sentences(scores: ResponseScores) -> list[str]:
    """What heads the table, then what stands below it."""
    heading = (
        f"Born charges Z_ab = ∂D_a/∂r_b of {scores.num_structures} structures, D = Σ q r, positive "
        f"where electrons are missing; labels: {scores.order}, {scores.reason}"
    )
    sums = [
        f"{of} rms {rule.rms:.2g} e, largest {rule.largest:.2g} e"
        for of, rule in (("labels", scores.sum_rule_of_labels), ("predictions", scores.sum_rule))
    ]
    below = [
        f"Σ Z - Q·1: {'; '.join(sums)}",
        f"√eps_infty of the model: {scores.scale:.4g}, which is given and not fitted; slope: "
        "Σ p r / Σ r² of predictions p and labels r",
    ]
    if scores.num_charged:
        below.append(
            f"Dipoles of {scores.num_charged} charged structures: about the origin of the "
            "coordinates"
        )
    if scores.born_charges[ALL].slope < 0.0:
        below.append(
            "The slope is negative: the charges of the model have the opposite sign of those of "
            "the labels"
        )
    return [heading, *below]
