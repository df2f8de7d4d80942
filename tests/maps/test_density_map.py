"""Densities in space: what they integrate to, and that Poisson's equation holds."""

from __future__ import annotations

import ase
import numpy as np
import pytest
from tiny_models import molecule, periodic, slab

from mace_scf_jax.electrostatics import ElectrostaticsSettings
from mace_scf_jax.simulate import density_at, multipoles_of_atoms, potential_at, volume_grid
from mace_scf_jax.units import COULOMB_CONSTANT

SETTINGS = ElectrostaticsSettings(
    max_l=1, smearing_width=0.8, kspace_cutoff_factor=2.0, boundary="auto"
)
STEP = 1e-3
"""Å; second derivatives by central differences of gradients are right to 1e-6."""


def sources_of(atoms):
    multipoles = np.random.default_rng(5).normal(size=(len(atoms), 4))
    multipoles[:, 0] -= multipoles[:, 0].mean()
    return multipoles_of_atoms(atoms, multipoles, settings=SETTINGS)


def test_one_charge_and_one_dipole():
    atoms = ase.Atoms("H", positions=[[1.0, 2.0, 3.0]])
    point = atoms.positions[0] + [0.3, -0.2, 0.5]
    width = SETTINGS.smearing_width
    gaussian = np.exp(-0.5 * 0.38 / width**2) / (2.0 * np.pi * width**2) ** 1.5
    for multipoles, expected in (
        ([0.7, 0.0, 0.0, 0.0], 0.7 * gaussian),
        ([0.0, 0.1, 0.2, 0.4], (0.4 * 0.3 - 0.1 * 0.2 + 0.2 * 0.5) / width**2 * gaussian),
    ):
        sources = multipoles_of_atoms(atoms, np.array([multipoles]), settings=SETTINGS)
        np.testing.assert_allclose(density_at(sources, point), expected, rtol=1e-10)


@pytest.mark.parametrize("make", [molecule, periodic, slab])
def test_poissons_equation(make):
    """The potential of the density is the one that is mapped."""
    atoms = make()
    sources = sources_of(atoms)
    points = atoms.positions.mean(axis=0) + np.random.default_rng(1).normal(scale=0.7, size=(3, 3))
    ends = points[:, None, None] + STEP * np.multiply.outer([1.0, -1.0], np.eye(3))
    gradient = potential_at(sources, ends).gradient
    laplacian = np.trace(gradient[:, 0] - gradient[:, 1], axis1=1, axis2=2) / (2.0 * STEP)
    density = density_at(sources, points)
    wanted = -laplacian / (4.0 * np.pi * COULOMB_CONSTANT)
    np.testing.assert_allclose(density, wanted, atol=1e-4 * np.max(np.abs(density)))


def test_images_and_the_integral():
    atoms = periodic()
    multipoles = np.random.default_rng(5).normal(size=(len(atoms), 4))
    sources = multipoles_of_atoms(atoms, multipoles, settings=SETTINGS)
    grid = volume_grid(atoms, spacing=0.3)
    values = density_at(sources, grid.points, points_at_once=512)
    charge = values.mean() * atoms.get_volume()
    np.testing.assert_allclose(charge, multipoles[:, 0].sum(), atol=1e-6)
    moved = grid.points[:2, :2, :2] + atoms.cell[0] - 2.0 * atoms.cell[2]
    np.testing.assert_allclose(density_at(sources, moved), values[:2, :2, :2], atol=1e-12)


def test_points_that_are_none():
    with pytest.raises(ValueError, match=r"points: found an array of shape \(2, 3\), expected fin"):
        density_at(sources_of(molecule()), np.full((2, 3), np.nan))
