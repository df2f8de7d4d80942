"""Potentials in space: known values, their gradients, grids that hold what they say."""

from __future__ import annotations

import dataclasses

import ase
import jax
import numpy as np
import pytest
from ase.io.cube import read_cube_data
from compilations import compilations
from tiny_models import (
    assert_close,
    molecule,
    periodic,
    slab,
    tiny_settings,
)

from mace_scf_jax.electrostatics import ElectrostaticsSettings, system_potential
from mace_scf_jax.simulate import (
    multipoles_of_atoms,
    plane_grid,
    potential_at,
    predicted_multipoles,
    volume_grid,
    write_cube_file,
)
from mace_scf_jax.units import COULOMB_CONSTANT

SETTINGS = ElectrostaticsSettings(
    max_l=1, smearing_width=0.8, kspace_cutoff_factor=1.2, boundary="auto"
)
STRUCTURES = {"open": molecule, "crystal": periodic, "slab": slab}
POINTS_AT_ONCE = 8
"""So that a few points are several chunks."""


def sources_of(atoms: ase.Atoms, field=None, *, charge: float | None = None, settings=SETTINGS):
    multipoles = np.random.default_rng(5).normal(size=(len(atoms), settings.num_multipoles))
    if charge is not None:
        multipoles[:, 0] += (charge - multipoles[:, 0].sum()) / len(atoms)
    return multipoles_of_atoms(atoms, multipoles, settings=settings, external_field=field)


def potential(sources, points):
    return potential_at(sources, points, points_at_once=POINTS_AT_ONCE)


@pytest.mark.parametrize("kind", STRUCTURES)
def test_at_atoms_and_gradients(kind):
    atoms = STRUCTURES[kind]()
    field = np.array([0.1, -0.2, 0.3])
    sources = sources_of(atoms, field)
    expected = jax.jit(lambda given: system_potential(given.prepared(), given.multipoles))(
        jax.tree.map(np.asarray, sources)
    )
    at_atoms = potential(sources, atoms.positions)
    assert_close(at_atoms.potential, expected + atoms.positions @ field, 1e-12)

    points = atoms.positions[:3] + np.random.default_rng(1).normal(scale=0.7, size=(2, 3, 3))
    found = potential(sources, points)
    assert found.potential.shape == (2, 3)
    step = 1e-4
    moved = points[..., None, None, :] + step * np.stack([np.eye(3), -np.eye(3)], axis=1)
    values = potential(sources, moved).potential
    assert_close(found.gradient, (values[..., 0] - values[..., 1]) / (2 * step), 1e-6)

    if kind == "crystal":
        free = sources_of(atoms)
        assert_close(
            potential(free, points + atoms.cell[0] - 2 * atoms.cell[2]).potential,
            potential(free, points).potential,
            1e-10,
        )


def test_a_distant_point_sees_a_point_charge():
    atoms = molecule()
    sources = sources_of(atoms, charge=2.0)
    direction = np.array([2.0, -1.0, 2.0]) / 3.0
    distances = np.array([1e3, 1e4])
    # about the centre of charge there is no dipole: corrections fall like 1/r²
    centre = np.asarray(sources.dipole()) / 2.0
    found = potential(sources, centre + distances[:, None] * direction)
    expected = 2.0 * COULOMB_CONSTANT / distances
    assert np.all(np.abs(found.potential / expected - 1.0) < 100.0 / distances**2)
    assert_close(found.gradient[1], -expected[1] / distances[1] * direction, 1e-5)


def test_no_number_of_points_compiles_anew():
    sources = sources_of(molecule())
    potential(sources, np.zeros((1, 3)))
    with compilations() as compiled:
        many = potential(sources, np.random.default_rng(0).normal(size=(3 * POINTS_AT_ONCE + 1, 3)))
        assert many.potential.shape == (3 * POINTS_AT_ONCE + 1,)
        assert potential(sources, np.zeros((0, 3))).gradient.shape == (0, 3)
    assert compiled == []


def test_the_mean_over_a_crystal_is_zero_and_a_cube_file_holds_it(tmp_path):
    atoms = periodic()
    grid = volume_grid(atoms, spacing=0.5)
    assert grid.points.shape == (*grid.shape, 3)
    assert np.all(np.linalg.norm(grid.vectors, axis=1) / grid.shape <= 0.5)
    values = potential_at(sources_of(atoms), grid.points, points_at_once=64).potential
    assert np.abs(values).max() > 1.0
    np.testing.assert_allclose(values.mean(), 0.0, atol=1e-10)

    write_cube_file(tmp_path / "v.cube", atoms, grid, values)
    read, framed = read_cube_data(str(tmp_path / "v.cube"))
    np.testing.assert_allclose(read, values, atol=1e-5)
    np.testing.assert_allclose(framed.positions, atoms.positions, atol=1e-5)
    np.testing.assert_allclose(framed.cell, atoms.cell, atol=1e-4)


def test_grids_surround_the_atoms():
    box = volume_grid(molecule(), spacing=0.5, margin=3.0)
    low, high = molecule().positions.min(axis=0), molecule().positions.max(axis=0)
    np.testing.assert_allclose(box.origin, low - 3.0)
    np.testing.assert_allclose(np.diag(box.vectors), high - low + 6.0)

    layer = slab()
    layer.positions[:, 2] += 20.0  # far from the cell
    heights = volume_grid(layer, spacing=0.5).points[..., 2]
    z = layer.positions[:, 2]
    np.testing.assert_allclose(heights.min(), 0.5 * (z.min() + z.max() - layer.cell[2, 2]))

    plane = plane_grid(layer, "zx", height=0.7, spacing=0.4, margin=2.0)
    points = plane.points
    np.testing.assert_allclose(points[..., 1], 0.7)
    np.testing.assert_allclose(points[..., 2].min(), z.min() - 2.0)
    assert points[1, 0, 2] > points[0, 0, 2]
    assert points[0, 0, 0] == 0.0
    assert points[..., 0].max() < layer.cell[0, 0] + layer.cell[1, 0]


def test_sources_are_those_of_the_model(model):
    atoms = molecule()
    prediction = model.predict(atoms, forces=False)
    sources = predicted_multipoles(model, atoms, prediction)
    assert sources.settings.boundary.value == "realspace"
    assert sources.settings.smearing_width == model.settings.electrostatics.smearing_width
    np.testing.assert_array_equal(sources.multipoles, prediction["multipoles"])
    plain = dataclasses.replace(model, settings=tiny_settings("MACE"))
    with pytest.raises(ValueError, match=r"expected a model with charges, found .* MACE"):
        predicted_multipoles(plain, atoms, prediction)


def test_what_makes_no_sense_is_refused():
    atoms = molecule()
    sources = sources_of(atoms)
    with pytest.raises(ValueError, match=r"points: found an array of shape \(4, 3\)"):
        potential_at(sources, np.full((4, 3), np.inf))
    with pytest.raises(ValueError, match=r"multipoles: found shape \(5, 1\), expected \(5, 4\)"):
        multipoles_of_atoms(atoms, np.zeros((5, 1)), settings=SETTINGS)
    with pytest.raises(ValueError, match=r"external field: found .*, expected three finite"):
        sources_of(atoms, np.full(3, np.nan))
    with pytest.raises(ValueError, match="plane: found 'xx'"):
        plane_grid(atoms, "xx")
    with pytest.raises(ValueError, match=r"spacing of the grid: found 0\.0 Å"):
        volume_grid(atoms, spacing=0.0)
    with pytest.raises(ValueError, match=r"spacing 0\.001 Å makes"):
        volume_grid(atoms, spacing=0.001)
