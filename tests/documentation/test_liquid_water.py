"""The programs of the tutorial compute what they say."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parents[2] / "examples/liquid_water"


@pytest.fixture
def example(monkeypatch):
    """Makes the modules of the example known."""
    monkeypatch.syspath_prepend(FOLDER)
    yield
    for name in ("make_data", "spectrum"):
        sys.modules.pop(name, None)


@pytest.mark.usefixtures("example")
def test_forces_of_the_labels_are_derivatives():
    from make_data import FlexibleWater, box_of_water

    atoms = box_of_water(2, np.random.default_rng(0))
    atoms.calc = FlexibleWater(atoms)
    forces, step = atoms.get_forces(), 1e-4
    np.testing.assert_allclose(forces.sum(axis=0), 0.0, atol=1e-10)
    for atom, component in ((0, 0), (1, 2), (14, 1)):
        energies = []
        for sign in (1.0, -1.0):
            moved = atoms.copy()
            moved.positions[atom, component] += sign * step
            energies.append(atoms.calc.get_potential_energy(moved))
        slope = (energies[1] - energies[0]) / (2.0 * step)
        np.testing.assert_allclose(slope, forces[atom, component], rtol=1e-6, atol=1e-6)


@pytest.mark.usefixtures("example")
def test_an_oscillating_dipole_has_one_line():
    from spectrum import absorption

    wavenumber, timestep = 3400.0, 2.0  # cm⁻¹, fs
    time = timestep * np.arange(10_000)
    angle = 2.0 * np.pi * 2.99792458e-5 * wavenumber * time
    dipoles = np.stack([np.cos(angle), 0.0 * angle, 0.0 * angle], axis=-1)
    found, values = absorption(dipoles, timestep, volume=1000.0, temperature=300.0)
    assert abs(found[values.argmax()] - wavenumber) < 20.0  # half the resolution of 1 ps
    # ∫ n α dν: mean square of the current, half of its amplitude squared, over 12 ε₀ c² V k T
    e, angstrom, k, epsilon, c = (
        1.602176634e-19,
        1e-10,
        1.380649e-23,
        8.8541878128e-12,
        2.99792458e8,
    )
    square = 0.5 * (e * angstrom * 2.0 * np.pi * c * 100.0 * wavenumber) ** 2
    area = square / (12.0 * epsilon * c**2 * 1e-27 * k * 300.0) * 1e-4  # cm⁻²
    # the factor from differences to derivatives varies over the width of the line: 6e-6
    np.testing.assert_allclose(np.trapezoid(values, found), area, rtol=2e-5)
