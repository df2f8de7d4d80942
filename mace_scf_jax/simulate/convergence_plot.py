"""Picture of how the residuals of structures fall, solver by solver."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mace_scf_jax.simulate.scf_diagnosis import Diagnosis, SolverRun

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("#1b6ca8", "#d95f02", "#4c9f70", "#7b4fa3", "#8c6d31")
STYLE = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e5e5e5",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "savefig.dpi": 160,
    "figure.constrained_layout.use": True,
}


def plot_convergence(
    path: str | Path, diagnoses: Sequence[Diagnosis], *, tolerance: float | None = None
) -> None:
    """Draw the residual of every structure against the evaluations that it took.

    One colour per solver, one line per structure; a cross marks the end of a search that failed.
    Solvers that evaluate F several times in a step are drawn as if evenly.

    Args:
        path: of the picture; its ending says in which format.
        diagnoses: of the structures.
        tolerance: residual of a converged structure, if it is the same for all solvers.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = list(diagnoses[0].runs)
    with pyplot.rc_context(STYLE):
        figure, axes = pyplot.subplots(figsize=(6.4, 4.0))
        for name, colour in zip(names, COLOURS, strict=False):
            runs = [diagnosis.runs[name] for diagnosis in diagnoses]
            solved = sum(run.has_converged for run in runs)
            label = f"{name} ({solved} of {len(runs)} converged)"
            axes.plot([], [], color=colour, label=label)
            opacity = float(np.clip(4.0 / len(runs), 0.25, 0.9))
            for run in runs:
                _draw(axes, run, colour, opacity if run.has_converged else 0.9)
        if tolerance is not None:
            axes.axhline(tolerance, color="0.4", linewidth=0.8, linestyle="--")
            axes.annotate(
                "tolerance",
                (1.0, tolerance),
                xycoords=("axes fraction", "data"),
                ha="right",
                va="bottom",
                color="0.4",
                fontsize=8,
            )
        axes.set(yscale="log", xlabel="evaluations of the map F", ylabel="residual (e Å$^l$)")
        axes.set_xlim(left=0)
        axes.legend(loc="upper right")
        figure.savefig(path)
        pyplot.close(figure)


def _draw(axes: "Axes", run: SolverRun, colour: str, opacity: float) -> None:
    """One line, from the initial residual to the last."""
    history = np.array(run.history)
    at = np.linspace(0.0, run.evaluations, len(history))
    shown = np.where(np.isfinite(history) & (history > 0.0), history, np.nan)
    marker = "o" if run.has_converged else "x"
    axes.plot(at, shown, color=colour, alpha=opacity, linewidth=1.1)
    axes.plot(at[-1], shown[-1], marker, color=colour, alpha=opacity, markersize=4.0)
