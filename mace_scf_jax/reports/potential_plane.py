"""Picture of an electrostatic potential on a plane, with the atoms near it."""

from __future__ import annotations

import itertools

import ase
import numpy as np
from ase.data import chemical_symbols
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mace_scf_jax.maps.potential_map import Grid, plane_axes
from mace_scf_jax.reports.style import INK, drawing, new_figure

NEAR = 0.8
"""Atoms that are not farther from the plane are drawn, Å."""
COLOUR_MAP = "RdBu_r"
LEVELS = 12
"""Contour lines."""
SATURATED = 99.0
"""Percentile of |V| beyond which colours do not change."""


def potential_plane(
    atoms: ase.Atoms,
    grid: Grid,
    potential: Float[np.ndarray, "first second"],
    axes: str,
    *,
    label: str = "potential / V",
) -> Figure:
    """Draw a potential, or a density, on a plane: red where it is positive, blue where negative.

    Args:
        atoms: the structure; its atoms and their images within 0.8 Å of the plane are drawn.
        grid: on the plane, as `plane_grid` makes it.
        potential: on the grid, in V.
        axes: the axes along the plane, such as ``xz``.
        label: of the scale of colours.
    """
    along = plane_axes(axes)
    (normal,) = {0, 1, 2} - set(along)
    starts = [grid.origin[axis] for axis in along]
    lengths = [grid.vectors[row, axis] for row, axis in enumerate(along)]
    first, second = (
        start + length * np.arange(number) / number
        for start, length, number in zip(starts, lengths, grid.shape, strict=True)
    )
    limit = float(np.percentile(np.abs(potential), SATURATED)) or 1.0
    with drawing():
        width = 4.6
        height = np.clip(0.8 * width * lengths[1] / lengths[0], 1.8, 7.0)
        figure = new_figure(width, float(height) + 0.5)
        panel = figure.subplots()
        panel.grid(visible=False)
        image = panel.imshow(
            potential.T,
            origin="lower",
            extent=(
                starts[0],
                starts[0] + lengths[0],
                starts[1],
                starts[1] + lengths[1],
            ),
            cmap=COLOUR_MAP,
            vmin=-limit,
            vmax=limit,
            interpolation="bilinear",
            aspect="equal",
        )
        if min(potential.shape) > 1:
            panel.contour(
                first,
                second,
                potential.T,
                levels=np.linspace(-limit, limit, LEVELS),
                colors=INK,
                linewidths=0.35,
                linestyles="solid",
                alpha=0.6,
            )
        _draw_atoms(panel, atoms, along, normal, grid)
        panel.set(
            xlabel=f"{axes[0]} / Å",
            ylabel=f"{axes[1]} / Å",
            title=f"{'xyz'[normal]} = {grid.origin[normal]:.2f} Å",
        )
        panel.set_xlim(starts[0], starts[0] + lengths[0])
        panel.set_ylim(starts[1], starts[1] + lengths[1])
        bar = figure.colorbar(image, ax=panel, label=label, extend="both", shrink=0.9)
        bar.outline.set_linewidth(0.5)
    return figure


def _draw_atoms(
    panel: Axes, atoms: ase.Atoms, along: tuple[int, int], normal: int, grid: Grid
) -> None:
    """Atoms and images near the plane, as circles with the symbols of their elements."""
    repeats = [(-2, -1, 0, 1, 2) if flag else (0,) for flag in atoms.pbc]
    shifts = np.array(list(itertools.product(*repeats))) @ np.array(atoms.cell)
    positions = (atoms.positions[:, None] + shifts).reshape(-1, 3)
    numbers = np.repeat(atoms.numbers, len(shifts))
    shown = np.abs(positions[:, normal] - grid.origin[normal]) <= NEAR
    for row, axis in enumerate(along):
        inside = positions[:, axis] - grid.origin[axis]
        shown &= (inside >= 0.0) & (inside <= grid.vectors[row, axis])
    for number, position in zip(numbers[shown], positions[shown], strict=True):
        place = (position[along[0]], position[along[1]])
        panel.plot(*place, "o", markersize=11.0, color="white", markeredgecolor=INK,
                   markeredgewidth=0.6, alpha=0.85)  # fmt: skip
        panel.annotate(
            chemical_symbols[number], place, ha="center", va="center", fontsize=6.5, color=INK
        )
