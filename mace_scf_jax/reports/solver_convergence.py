"""How the residuals of structures fall, solver by solver."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mace_scf_jax.predict.scf_diagnosis import Diagnosis, SolverRun
from mace_scf_jax.reports.style import COLOURS, GREY, drawing, new_figure


def solver_convergence(diagnoses: Sequence[Diagnosis], *, tolerance: float | None = None) -> Figure:
    """Residual of every structure against the evaluations of F that it took.

    One colour per solver, one line per structure; a cross marks the end of a search that failed.
    Solvers that evaluate F several times in a step are drawn as if evenly.

    Args:
        diagnoses: of the structures.
        tolerance: residual of a converged structure, if it is the same for all solvers.
    """
    with drawing():
        figure = new_figure(6.4, 3.8)
        axes = figure.subplots()
        for name, colour in zip(diagnoses[0].runs, COLOURS, strict=False):
            runs = [diagnosis.runs[name] for diagnosis in diagnoses]
            solved = sum(run.has_converged for run in runs)
            axes.plot([], [], color=colour, label=f"{name} ({solved} of {len(runs)} converged)")
            opacity = float(np.clip(4.0 / len(runs), 0.25, 0.9))
            for run in runs:
                _draw(axes, run, colour, opacity if run.has_converged else 0.9)
        if tolerance is not None:
            axes.axhline(tolerance, color=GREY, linewidth=0.8, linestyle="--", label="tolerance")
        axes.set(yscale="log", xlabel="evaluations of the map F", ylabel="residual / e Å$^l$")
        axes.set_xlim(left=0.0)
        axes.legend(loc="upper right")
    return figure


def _draw(axes: Axes, run: SolverRun, colour: str, opacity: float) -> None:
    """One line, from the initial residual to the last."""
    history = np.array(run.history)
    at = np.linspace(0.0, run.evaluations, len(history))
    shown = np.where(np.isfinite(history) & (history > 0.0), history, np.nan)
    marker = "o" if run.has_converged else "x"
    axes.plot(at, shown, color=colour, alpha=opacity, linewidth=1.1)
    axes.plot(at[-1], shown[-1], marker, color=colour, alpha=opacity, markersize=4.0)
