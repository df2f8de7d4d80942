"""Infrared spectrum of a liquid, from the dipoles of a trajectory.

    python spectrum.py nve.xyz --timestep 2 --output spectrum.png

The absorption is that of the current J = dP/dt at constant energy (linear response, classical),

    n(ω) α(ω) = 1/(6 ε₀ c V k_B T) ∫ ⟨J(0)·J(t)⟩ exp(iωt) dt.

With ``--reference`` the same is computed with the force field that made the labels.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import ase.io
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from ase import units
from ase.md.verlet import VelocityVerlet
from scipy import constants, signal

WIDTH = 1.0
"""Length of the windows that are averaged over, in ps: the resolution is its inverse."""


def absorption(dipoles, timestep, volume, temperature):
    """Wavenumbers in cm⁻¹ and absorption n α in cm⁻¹.

    Args:
        dipoles: [frames, 3] in e Å, of positions that were not wrapped.
        timestep: between frames, in fs.
        volume: in Å³.
        temperature: in K.
    """
    seconds = timestep * 1e-15
    current = np.diff(dipoles, axis=0) * constants.e * constants.angstrom / seconds
    window = min(len(current), round(1000.0 * WIDTH / timestep))
    frequency, density = signal.welch(current, 1.0 / seconds, "hann", window, axis=0)
    correlation = 0.5 * density.sum(axis=1)  # of both signs of the frequency, summed over x, y, z
    correlation /= np.sinc(frequency * seconds) ** 2  # a difference is less than a derivative
    volume = volume * constants.angstrom**3
    factor = 6.0 * constants.epsilon_0 * constants.c * volume * constants.k * temperature
    return 0.01 * frequency / constants.c, 0.01 * correlation / factor


def of_trajectory(file: Path, timestep: float):
    """The absorption of a trajectory that ``mace-scf-jax md`` wrote."""
    frames = ase.io.read(file, ":")
    dipoles = np.array([frame.get_dipole_moment() for frame in frames])
    temperature = np.mean([frame.get_temperature() for frame in frames])
    return absorption(dipoles, timestep, frames[0].get_volume(), temperature)


def of_force_field(file: Path, timestep: float, steps_between: int):
    """The same number of frames, from the same start, with the force field of the labels."""
    from make_data import CHARGES, FlexibleWater

    frames = ase.io.read(file, ":")
    atoms = frames[0].copy()
    atoms.calc = FlexibleWater(atoms)
    dynamics = VelocityVerlet(atoms, timestep / steps_between * units.fs)
    charges = np.tile(CHARGES, len(atoms) // 3)
    dipoles, temperatures = [], []
    for _ in frames:
        dipoles.append(charges @ atoms.positions)
        temperatures.append(atoms.get_temperature())
        dynamics.run(steps_between)
    return absorption(np.array(dipoles), timestep, atoms.get_volume(), np.mean(temperatures))


def main() -> None:
    """Draw the spectrum."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("trajectory", type=Path)
    parser.add_argument("--timestep", type=float, default=2.0, help="between frames, fs")
    parser.add_argument("--reference", action="store_true", help="compare with the force field")
    parser.add_argument("--output", type=Path, default=Path("spectrum.png"))
    given = parser.parse_args()
    spectra = {"model": of_trajectory(given.trajectory, given.timestep)}
    if given.reference:
        spectra["force field of the labels"] = of_force_field(given.trajectory, given.timestep, 4)
    figure, axes = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
    for (name, (wavenumber, values)), colour in zip(
        spectra.items(), ("#0072B2", "#D55E00"), strict=False
    ):
        axes.plot(wavenumber, values, color=colour, label=name)
    axes.set(xlim=(0, 4500), ylim=(0, None), xlabel="wavenumber / cm⁻¹", ylabel="n α / cm⁻¹")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(given.output, dpi=160)
    print(f"Wrote {given.output}")


if __name__ == "__main__":
    main()
