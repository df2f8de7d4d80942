"""Figures of docs/tutorial.md: ``python docs/figures_tutorial.py FOLDER``.

FOLDER is where the commands of the tutorial were given. Learning curves and parity are the pictures
of these commands. Here are energy and temperature of the simulation, and the spectrum and radial
distribution functions of the model and of the force field that made the labels.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import ase.io
import numpy as np
from ase import units
from ase.md.verlet import VelocityVerlet

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "examples/liquid_water"))

import spectrum  # noqa: E402
from make_data import FlexibleWater  # noqa: E402

from mace_scf_jax.reports import style  # noqa: E402

FIGURES = Path(__file__).parent / "figures"
NAMES = ("model", "force field of the labels")
RADII = np.linspace(2.0, 4.6, 66)
"""Up to half of the cell, in Å."""


def radial_distribution(frames: list[ase.Atoms]) -> np.ndarray:
    """g(r) of the oxygen atoms between the radii."""
    oxygen = frames[0].numbers == 8
    upper = np.triu_indices(oxygen.sum(), 1)
    distances = [frame[oxygen].get_all_distances(mic=True)[upper] for frame in frames]
    counts, _ = np.histogram(distances, bins=RADII)
    shells = 4.0 / 3.0 * np.pi * np.diff(RADII**3) / frames[0].get_volume()
    return counts / (len(frames) * len(upper[0]) * shells)


def of_force_field(start: ase.Atoms, number: int) -> list[ase.Atoms]:
    """Frames 20 fs apart at constant energy, with the force field."""
    atoms = start.copy()
    atoms.calc = FlexibleWater(atoms)
    dynamics = VelocityVerlet(atoms, 0.5 * units.fs)
    frames = []
    for _ in range(number):
        dynamics.run(40)
        frames.append(atoms.copy())
    return frames


def draw_radial(frames: list[ase.Atoms]) -> None:
    """g(r) of both."""
    with style.drawing():
        figure, (axes,) = style.panels(1, width=5.6, height=3.4)
        middle = 0.5 * (RADII[1:] + RADII[:-1])
        for name, colour, those in zip(
            NAMES, style.COLOURS, (frames, of_force_field(frames[0], len(frames))), strict=False
        ):
            axes.plot(middle, radial_distribution(those), color=colour, label=name)
        axes.set(xlabel="O–O distance / Å", ylabel="g(r)", ylim=(0.0, None))
        axes.legend()
    style.save(figure, FIGURES / "tutorial_rdf.png")


def draw_spectrum(file: Path) -> None:
    """The absorption of both."""
    with style.drawing():
        figure, (axes,) = style.panels(1, width=6.4, height=3.4)
        spectra = (spectrum.of_trajectory(file, 2.0), spectrum.of_force_field(file, 2.0, 4))
        for name, colour, (wavenumber, values) in zip(NAMES, style.COLOURS, spectra, strict=False):
            axes.plot(wavenumber, values, color=colour, label=name)
            for low, high in ((0, 1200), (1200, 2200), (2700, 4200)):
                band = (wavenumber > low) & (wavenumber < high)
                centre = np.sum(wavenumber[band] * values[band]) / np.sum(values[band])
                area = np.trapezoid(values[band], wavenumber[band])
                print(f"{name}: {low}–{high} cm⁻¹, centre {centre:.0f}, area {area:.3g} cm⁻²")
        axes.set(xlim=(0, 4500), ylim=(0.0, None), xlabel="wavenumber / cm⁻¹", ylabel="n α / cm⁻¹")
        axes.legend()
    style.save(figure, FIGURES / "tutorial_spectrum.png")


def draw_log(file: Path, atoms: int) -> None:
    """Total energy and temperature."""
    with open(file, newline="") as text:
        rows = list(csv.DictReader(text))
    time, energy, temperature = (
        np.array([float(row[name]) for row in rows])
        for name in ("time_ps", "conserved_energy_eV", "temperature_K")
    )
    energy = 1000.0 * (energy - energy[0]) / atoms
    print(
        f"drift {1000 * np.polyfit(time, energy, 1)[0]:.1f} μeV/atom/ps, spread {energy.std():.3f}"
    )
    print(f"temperature {temperature.mean():.0f} ± {temperature.std():.0f} K, {time[-1]:.2f} ps")
    with style.drawing():
        figure, (left, right) = style.panels(2, width=3.6, height=2.6)
        left.plot(time, energy, color=style.COLOURS[0])
        left.set(xlabel="time / ps", ylabel="total energy / (meV/atom)", ylim=(-1.0, 1.0))
        right.plot(time, temperature, color=style.COLOURS[1], linewidth=0.8)
        right.set(xlabel="time / ps", ylabel="temperature / K")
    style.save(figure, FIGURES / "tutorial_nve.png")


def main() -> None:
    """Draw the figures."""
    file = Path(sys.argv[1]) / "nve.xyz"
    draw_log(file.with_suffix(".csv"), len(ase.io.read(file, 0)))
    draw_spectrum(file)
    draw_radial(ase.io.read(file, "::10"))


if __name__ == "__main__":
    main()
