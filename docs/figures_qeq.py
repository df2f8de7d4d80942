"""Figure of docs/families/qeq.md: ``python docs/figures_qeq.py``.

Polarizability per atom of straight chains of equal atoms whose charges `equilibrate` finds.
"""

from __future__ import annotations

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from mace_scf_jax.electrostatics import ElectrostaticsSettings, prepare
from mace_scf_jax.models.families.qeq.model import equilibrate
from mace_scf_jax.scf import LinearSolver

FILE = Path(__file__).parent / "figures" / "qeq_overpolarisation.png"
COLOURS = {5.0: "#9ecae1", 10.0: "#4292c6", 20.0: "#08306b"}
"""By hardness in eV/e²."""
ORANGE = "#d95f02"
STYLE = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e5e5e5",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "lines.markersize": 4.5,
    "savefig.dpi": 160,
    "figure.constrained_layout.use": True,
}
SETTINGS = ElectrostaticsSettings(max_l=0, smearing_width=1.0, boundary="realspace")
SPACING = 1.5
"""Between neighbours, in Å."""
FIELD = 0.01
"""Along the chain, in V/Å."""
LENGTHS = (2, 4, 8, 16, 32, 64, 128)


@jax.jit
def chain_dipole(along: jax.Array, hardness: jax.Array) -> jax.Array:
    """Dipole in e Å of a chain in the field, along itself.

    Args:
        along: coordinates of the atoms in Å.
        hardness: of every atom in eV/e².
    """
    size = along.shape[0]
    system = prepare(
        jnp.stack([along, 0.0 * along, 0.0 * along], axis=-1),
        jnp.ones(size, dtype=bool),
        jnp.eye(3),
        jnp.zeros(3, dtype=bool),
        jnp.zeros((0, 3), dtype=int),
        jnp.zeros(0, dtype=bool),
        settings=SETTINGS,
    )
    solve = functools.partial(equilibrate, solver=LinearSolver.DENSE)
    minimum, _ = solve(system, FIELD * along, jnp.full(size, hardness), jnp.asarray(0.0))
    return jnp.sum(minimum.unknowns * along)


def polarizability(atoms: int, hardness: float) -> float:
    """Polarizability per atom along a chain in e Å²/V."""
    along = SPACING * (jnp.arange(atoms) - 0.5 * (atoms - 1))
    return float(-chain_dipole(along, jnp.asarray(hardness)) / FIELD / atoms)


def main() -> None:
    """Draw the figure and print its numbers."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(5.6, 3.8))
        for hardness, colour in COLOURS.items():
            values = [polarizability(atoms, hardness) for atoms in LENGTHS]
            print(f"{hardness:4.0f} eV/e²:", *(f"{value:.3f}" for value in values))
            axes.loglog(LENGTHS, values, "o-", color=colour, label=f"hardness {hardness:g} eV/e²")
        short = [polarizability(atoms, 10.0) for atoms in LENGTHS[:2]]
        axes.axhline(short[-1], color=ORANGE, linestyle="--", linewidth=1.2)
        axes.annotate(
            "an insulator: each atom responds\nas in a short chain",
            (128, short[-1]),
            xytext=(0, -5),
            textcoords="offset points",
            ha="right",
            va="top",
            color=ORANGE,
        )
        axes.set_xticks(LENGTHS, labels=[str(atoms) for atoms in LENGTHS])
        axes.minorticks_off()
        axes.set_xlabel("atoms in the chain, 1.5 Å apart")
        axes.set_ylabel("polarizability per atom, e Å²/V")
        axes.legend(loc="upper left")
        figure.savefig(FILE)
        plt.close(figure)


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    main()
