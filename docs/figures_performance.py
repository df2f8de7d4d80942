"""Figure of docs/reference/performance.md: ``python docs/figures_performance.py``.

The numbers are those that ``benchmarks/electrostatics.py`` and ``benchmarks/open_sum.py`` printed
on two cores of an x86-64 server.
"""

from __future__ import annotations

from pathlib import Path

from mace_scf_jax.reports import style

FILE = Path(__file__).parent / "figures/performance_electrostatics.png"
PANELS = {
    "periodic": {
        "graph_longrange": {192: 1.2, 648: 11.1, 2000: 83.7},
        "direct": {192: 0.31, 400: 0.65, 648: 1.7, 1000: 4.3, 2000: 18.7},
        "mesh": {
            192: 0.41,
            400: 0.60,
            648: 1.0,
            1000: 1.3,
            2000: 5.0,
            10_000: 12.6,
            50_000: 81.0,
            100_000: 149.0,
        },
    },
    "no periodic direction": {
        "pairs": {500: 58.0, 1000: 231.0, 2000: 860.0},
        "grid": {500: 23.0, 1000: 26.0, 2000: 56.0, 4000: 67.0, 7000: 129.0, 10_000: 206.0},
    },
}
"""Milliseconds of an energy with its gradient, by number of atoms."""
COLOURS = {
    "graph_longrange": style.GREY,
    "direct": style.COLOURS[1],
    "pairs": style.COLOURS[1],
    "mesh": style.COLOURS[0],
    "grid": style.COLOURS[0],
}


def main() -> None:
    """Draw the figure."""
    with style.drawing():
        figure, axes = style.panels(2, width=3.6, height=3.0)
        for panel, (title, sums) in zip(axes, PANELS.items(), strict=True):
            for name, times in sums.items():
                panel.loglog(
                    [*times], [*times.values()], "o-", color=COLOURS[name], label=name, markersize=4
                )
            panel.set(title=title, xlabel="atoms", ylabel="energy and gradient / ms")
            panel.legend()
    style.save(figure, FILE)


if __name__ == "__main__":
    main()
