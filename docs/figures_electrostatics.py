"""Figures of the page on electrostatics: ``python docs/figures_electrostatics.py [name …]``."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from mace_scf_jax.data.reciprocal import half_space_indices
from mace_scf_jax.electrostatics import (
    ElectrostaticsSettings,
    FieldFeatureSettings,
    Mesh,
    System,
    prepare,
    system_energy,
    system_field_features,
)

FOLDER = Path(__file__).parent / "figures"
BLUES = ("#9ecae1", "#4292c6", "#2171b5", "#08306b")
BLUE, ORANGE, GREY = "#2171b5", "#d95f02", "#777777"
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


@dataclasses.dataclass(frozen=True)
class Atoms:
    """Positions (Å), multipoles (e Å^l) and cell (Å, rows) of one structure."""

    positions: np.ndarray
    multipoles: np.ndarray
    cell: np.ndarray


def liquid(seed: int, max_l: int, *, length: float = 7.0, per_edge: int = 2) -> Atoms:
    """Atoms on a jittered lattice in a slightly skewed cell, neutral, with random multipoles."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[np.arange(per_edge)] * 3), axis=-1).reshape(-1, 3)
    fractional = (grid + rng.uniform(-0.2, 0.2, grid.shape)) / per_edge
    cell = length * (np.eye(3) + np.tril(rng.uniform(-0.1, 0.1, (3, 3)), -1))
    multipoles = 0.3 * rng.normal(size=(len(grid), (max_l + 1) ** 2))
    multipoles[:, 0] -= multipoles[:, 0].mean()
    return Atoms(fractional @ cell, multipoles, cell)


def water(charge: float = 0.0) -> Atoms:
    """A water molecule near the origin with charges and atomic dipoles."""
    positions = np.array([[0.0, 0.0, 0.0], [0.757, 0.0, 0.586], [-0.757, 0.0, 0.586]])
    multipoles = np.zeros((3, 4))
    multipoles[:, 0] = np.array([-0.8, 0.4, 0.4]) + charge / 3
    multipoles[:, 2] = [0.1, -0.02, -0.02]  # along z
    return Atoms(positions, multipoles, np.eye(3))


def prepared(
    atoms: Atoms,
    settings: ElectrostaticsSettings,
    *,
    cutoff: float | None = None,
    pad_to: int | None = None,
) -> System:
    """The geometry with all reciprocal vectors up to a cutoff, by default that of the settings."""
    if settings.boundary.value == "realspace":
        indices = np.zeros((0, 3), dtype=int)
    else:
        indices = half_space_indices(atoms.cell, cutoff or settings.kspace_cutoff)
    missing = 0 if pad_to is None else pad_to - len(indices)
    mask = np.arange(len(indices) + missing) < len(indices)
    return _prepare(
        jnp.asarray(atoms.positions),
        jnp.ones(len(atoms.positions), dtype=bool),
        jnp.asarray(atoms.cell),
        jnp.ones(3, dtype=bool),
        jnp.asarray(np.pad(indices, ((0, missing), (0, 0)))),
        jnp.asarray(mask),
        settings=settings,
    )


_prepare = jax.jit(prepare, static_argnames="settings")
_energy = jax.jit(system_energy)
_features = jax.jit(system_field_features)


def energy(atoms: Atoms, settings: ElectrostaticsSettings, **keywords) -> float:
    """Coulomb energy in eV."""
    return float(_energy(prepared(atoms, settings, **keywords), jnp.asarray(atoms.multipoles)))


def cutoff_figure() -> Figure:
    """Error of energies and features against the cutoff, for each degree."""
    factors = np.arange(0.5, 2.76, 0.125)
    figure, axes = plt.subplots(1, 2, figsize=(8.0, 3.4), sharey=True)
    for max_l, colour in enumerate(BLUES):
        settings = ElectrostaticsSettings(
            max_l=max_l,
            smearing_width=1.0,
            boundary="pbc",
            features=FieldFeatureSettings(max_l=max_l, widths=(1.0, 1.5)),
        )
        structures = [liquid(seed, max_l) for seed in range(6)]
        per_factor = settings.kspace_cutoff / settings.kspace_cutoff_factor
        most = max(len(half_space_indices(s.cell, 3.2 * per_factor)) for s in structures)
        outputs = {}
        for factor in (*factors, 3.2):
            systems = [
                (prepared(s, settings, cutoff=factor * per_factor, pad_to=most), s.multipoles)
                for s in structures
            ]
            outputs[factor] = (
                np.array([_energy(system, p) for system, p in systems]),
                np.array([_features(system, p) for system, p in systems]),
            )
        for axis, index in zip(axes, (0, 1), strict=True):
            exact = outputs[3.2][index]
            errors = [_rms(outputs[factor][index] - exact) / _rms(exact) for factor in factors]
            axis.semilogy(factors, errors, "o-", color=colour, label=f"l ≤ {max_l}")
    for axis, title in zip(axes, ("energy", "field features"), strict=True):
        axis.axvline(1.25, color=GREY, linestyle=":", linewidth=1.2)
        axis.set_title(title)
        axis.set_xlabel("kspace_cutoff_factor")
        axis.set_ylim(3e-17, 3)
    axes[0].text(1.28, 1.2e-16, "default", color=GREY)
    axes[0].set_ylabel("relative error (rms)")
    axes[1].legend(title="multipoles", loc="upper right")
    return figure


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(values**2)))


def slab_figure() -> Figure:
    """Energy of a polar slab against the thickness of the vacuum."""
    layer = liquid(3, 1, length=5.0)
    tilt = np.array([0.0, 0.0, 0.15, 0.0])  # a dipole along z on every atom
    thickness = np.ptp(layer.positions[:, 2])
    heights = np.linspace(thickness + 5.0, thickness + 50.0, 19)
    atoms = [
        Atoms(layer.positions, layer.multipoles + tilt, np.diag([5.0, 5.0, height]))
        for height in heights
    ]
    energies = {}
    for boundary in ("pbc", "slab"):
        settings = ElectrostaticsSettings(
            max_l=1, smearing_width=1.0, boundary=boundary, kspace_cutoff_factor=1.8
        )
        most = len(half_space_indices(atoms[-1].cell, settings.kspace_cutoff)) + 200
        energies[boundary] = np.array([energy(a, settings, pad_to=most) for a in atoms])
    vacuum = heights - thickness
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.0, 3.3))
    limit = energies["slab"][-1]
    names = {"pbc": "periodic sum alone", "slab": "with slab correction"}
    for boundary, colour in (("pbc", ORANGE), ("slab", BLUE)):
        deviation = energies[boundary] - limit
        left.plot(vacuum, deviation, "o-", color=colour, label=names[boundary])
        drawn = vacuum[:-1] if boundary == "slab" else vacuum
        right.semilogy(drawn, np.abs(deviation[: len(drawn)]), "o-", color=colour)
    figure.supxlabel("vacuum thickness (Å)", fontsize=10)
    left.set_ylabel("energy − limit (eV)")
    left.legend()
    right.set_ylabel("|energy − limit| (eV)")
    return figure


def molecule_figure() -> Figure:
    """Error of a molecule in a box against the open boundary, as the box grows."""
    lengths = np.array([8.0, 10.0, 12.0, 15.0, 18.0, 22.0, 27.0, 33.0])
    figure, axes = plt.subplots(1, 2, figsize=(8.0, 3.4), sharey=True)
    cases = ((0.0, "neutral molecule", (-3, -5)), (1.0, "charge +1", (-1, -3)))
    for axis, (charge, title, powers) in zip(axes, cases, strict=True):
        molecule = water(charge)

        def settings(boundary):
            return ElectrostaticsSettings(
                max_l=1, smearing_width=0.7, boundary=boundary, kspace_cutoff_factor=1.6
            )

        exact = energy(molecule, settings("realspace"))
        for boundary, colour, label, power in (
            ("pbc", ORANGE, "periodic sum alone", powers[0]),
            ("molecule_in_box", BLUE, "with molecule correction", powers[1]),
        ):
            errors = np.abs(
                [
                    energy(
                        dataclasses.replace(molecule, cell=length * np.eye(3)), settings(boundary)
                    )
                    - exact
                    for length in lengths
                ]
            )
            axis.loglog(lengths, errors, "o-", color=colour, label=label)
            guide = 2.2 * errors[-1] * (lengths / lengths[-1]) ** power
            axis.loglog(lengths[-4:], guide[-4:], "--", color=GREY, linewidth=1.1)
            axis.text(
                lengths[-2], guide[-2] * 1.3, f"$L^{{{power}}}$", color=GREY, ha="left", va="bottom"
            )
        axis.set_title(title)
        axis.set_xlabel("box length L (Å)")
        axis.set_xticks([8, 10, 15, 20, 30], ["8", "10", "15", "20", "30"])
        axis.minorticks_off()
    axes[0].set_ylabel("|energy − open boundary| (eV)")
    axes[0].legend(loc="lower left")
    return figure


def mesh_figure() -> Figure:
    """Error of the mesh sum against the spacing of its grid, for several spline orders."""
    atoms = liquid(1, 1, length=9.6, per_edge=3)
    shapes = (10, 12, 14, 16, 18, 20, 24, 28, 32, 40, 48)
    direct = ElectrostaticsSettings(
        max_l=1, smearing_width=1.0, boundary="pbc", kspace_cutoff_factor=2.5
    )
    exact, exact_forces = _energy_and_forces(atoms, direct)
    spacing = np.max(np.linalg.norm(atoms.cell, axis=1)) / np.array(shapes)
    figure, axes = plt.subplots(1, 2, figsize=(8.0, 3.4), sharey=True)
    for order, colour in zip((4, 6, 8, 10), BLUES, strict=True):
        errors = []
        for points in shapes:
            mesh = Mesh((points,) * 3, order)
            value, forces = _energy_and_forces(atoms, direct, mesh)
            errors.append(
                (abs(value / exact - 1), _rms(forces - exact_forces) / _rms(exact_forces))
            )
        for axis, error in zip(axes, np.array(errors).T, strict=True):
            axis.loglog(spacing, error, "o-", color=colour, label=f"order {order}")
    for axis, title in zip(axes, ("energy", "forces"), strict=True):
        axis.set_title(title)
        axis.set_xlabel("largest grid spacing / σ")
        axis.set_xticks([0.2, 0.3, 0.5, 0.7, 1.0], ["0.2", "0.3", "0.5", "0.7", "1.0"])
        axis.minorticks_off()
    axes[0].set_ylabel("relative error")
    axes[1].legend(title="splines", loc="lower right")
    return figure


def _energy_and_forces(
    atoms: Atoms, settings: ElectrostaticsSettings, mesh: Mesh | None = None
) -> tuple[float, np.ndarray]:
    indices = half_space_indices(atoms.cell, settings.kspace_cutoff)

    @jax.jit
    def compute(positions):
        def total(positions):
            system = prepare(
                positions,
                jnp.ones(len(positions), dtype=bool),
                jnp.asarray(atoms.cell),
                jnp.ones(3, dtype=bool),
                jnp.asarray(indices),
                jnp.ones(len(indices), dtype=bool),
                settings=settings,
                mesh=mesh,
            )
            return system_energy(system, jnp.asarray(atoms.multipoles))

        return jax.value_and_grad(total)(positions)

    value, gradient = compute(jnp.asarray(atoms.positions))
    return float(value), -np.asarray(gradient)


FIGURES: dict[str, Callable[[], Figure]] = {
    "kspace_cutoff": cutoff_figure,
    "slab_vacuum": slab_figure,
    "molecule_in_box": molecule_figure,
    "mesh_spacing": mesh_figure,
}


def main(names: list[str]) -> None:
    """Draw the named figures, or all."""
    FOLDER.mkdir(exist_ok=True)
    with plt.rc_context(STYLE):
        for name in names or FIGURES:
            figure = FIGURES[name]()
            figure.savefig(FOLDER / f"{name}.png")
            plt.close(figure)


if __name__ == "__main__":
    main(sys.argv[1:])
