"""Grid and splines chosen from the accuracy, the choice of the method, and splines themselves."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.interpolate import BSpline

from mace_scf_jax.electrostatics import (
    ElectrostaticsSettings,
    ElectrostaticsSettingsError,
    FieldFeatureSettings,
    Mesh,
    MeshError,
    choose_mesh,
)
from mace_scf_jax.electrostatics.mesh_choice import (
    MESH_PAYS_ABOVE,
    _say,
    grid_length,
    relative_error,
)
from mace_scf_jax.electrostatics.sums.splines import influence, spline_weights, transform
from mace_scf_jax.electrostatics.sums.spreading import interpolate, monomial_positions, spread
from mace_scf_jax.mesh import common_mesh

from .tolerances import assert_close

SETTINGS = ElectrostaticsSettings(
    max_l=1,
    smearing_width=1.5,
    boundary="pbc",
    features=FieldFeatureSettings(max_l=1, widths=(1.5, 2.0)),
    sums="mesh",
)
CELL = np.array([[20.0, 0.0, 0.0], [4.0, 25.0, 0.0], [0.0, -3.0, 31.0]])


@pytest.mark.parametrize("order", [4, 7, 14])
def test_weights_are_those_of_cardinal_splines(order):
    offsets = np.linspace(0.0, 1.0, 7)
    weights = np.asarray(spline_weights(jnp.asarray(offsets), order=order, max_derivative=3))
    spline = BSpline.basis_element(np.arange(order + 1), extrapolate=False)
    arguments = offsets[:, None] + np.arange(order)[::-1]
    for derivative in range(4):
        expected = np.nan_to_num(spline(arguments, nu=derivative))
        inner = slice(1, -1)  # the highest derivative jumps at grid points
        assert_close(weights[inner, derivative], expected[inner], 1e-12)
    np.testing.assert_allclose(weights[:, 0].sum(axis=-1), 1.0, rtol=1e-13)


def test_the_influence_undoes_well_resolved_modes_and_drops_the_highest():
    factor = influence(24, 8)
    fractions = np.fft.fftfreq(24)
    np.testing.assert_allclose(factor[:4] * transform(fractions[:4], 8) ** 2, 1.0, rtol=1e-6)
    assert factor[12] == 0.0
    assert np.all(influence(15, 8) > 0.0)


@pytest.mark.parametrize("num_points", [5, 1030])
def test_interpolation_is_the_transpose_of_spreading(num_points):
    """With more points than are visited at once, too."""
    rng = np.random.default_rng(1)
    shape, order, max_l = (5, 6, 9), 5, 2
    points = jnp.asarray(rng.uniform(-20.0, 20.0, (num_points, 3)))
    coefficients = jnp.asarray(rng.normal(size=(num_points, len(monomial_positions(max_l)))))
    grid = jnp.asarray(rng.normal(size=shape))
    on_grid = jax.jit(lambda u, c: spread(u, c, shape=shape, order=order, max_l=max_l))(
        points, coefficients
    )
    at_points = jax.jit(lambda u, g: interpolate(u, g, order=order, max_l=max_l))(points, grid)
    np.testing.assert_allclose(np.vdot(on_grid, grid), np.vdot(coefficients, at_points), rtol=1e-11)
    # Derivatives of a partition of unity vanish, so the grid holds the sum of the charges.
    np.testing.assert_allclose(jnp.sum(on_grid), jnp.sum(coefficients[:, 0]), rtol=1e-10)


def test_the_mesh_grows_with_accuracy_and_cell_and_has_lengths_that_transform_fast():
    points = []
    for accuracy in (1e-3, 1e-5, 1e-8):
        settings = dataclasses.replace(SETTINGS, mesh_accuracy=accuracy)
        mesh = choose_mesh(settings, CELL, num_atoms=1500)
        assert all(length == grid_length(length) for length in mesh.shape)
        spacing = max(np.linalg.norm(CELL, axis=1) / mesh.shape)
        assert relative_error(settings, spacing=spacing, order=mesh.order, skewness=1.02) < accuracy
        points.append(mesh.num_points * mesh.order**3)
    assert points == sorted(points)
    larger = choose_mesh(SETTINGS, 2.0 * CELL, num_atoms=12000)
    assert larger.num_points > 4 * choose_mesh(SETTINGS, CELL, num_atoms=1500).num_points


def test_one_grid_for_several_cells_is_fine_enough_for_each():
    mesh = choose_mesh(SETTINGS, np.stack([CELL, CELL[::-1]]), num_atoms=1500)
    alone = [choose_mesh(SETTINGS, cell, num_atoms=1500) for cell in (CELL, CELL[::-1])]
    assert common_mesh(alone) == mesh
    assert {mesh.order} == {one.order for one in alone}
    assert all(min(np.subtract(mesh.shape, one.shape)) >= 0 for one in alone)
    assert common_mesh([]) is None
    assert common_mesh([None, None]) is None
    with pytest.raises(MeshError, match="with and without a mesh"):
        common_mesh([mesh, None])


def test_similar_cells_have_the_same_grid():
    scales = np.linspace(1.0, 1.03, 7)
    meshes = {
        choose_mesh(SETTINGS, scale * CELL, num_atoms=100 + i) for i, scale in enumerate(scales)
    }
    assert len(meshes) <= 2


def test_lengths_that_transform_fast():
    assert [grid_length(n) for n in (5, 11, 13, 16, 17, 97, 121, 127)] == [
        5,
        12,
        14,
        16,
        18,
        112,
        128,
        128,
    ]


@pytest.mark.parametrize("strain", [0.05, 0.3])
def test_a_mesh_serves_the_range_of_cells_that_it_is_chosen_for(strain):
    """Every cell within the strain, and not one far beyond; sheared ones too."""
    mesh = choose_mesh(SETTINGS, CELL, num_atoms=1500, largest_strain=strain)
    rng = np.random.default_rng(0)
    for _ in range(20):
        axes, _ = np.linalg.qr(rng.normal(size=(3, 3)))
        tensor = axes @ np.diag(rng.uniform(-strain, strain, 3)) @ axes.T
        assert bool(mesh.serves(jnp.asarray(CELL @ (np.eye(3) + tensor))))
    assert not bool(mesh.serves(jnp.asarray(CELL * (1.0 + strain) * 1.25)))
    flat = CELL @ np.diag([1.0, 1.0, 0.02])
    assert not bool(mesh.serves(jnp.asarray(flat + 0.5 * flat[[1, 2, 0]])))


@pytest.mark.parametrize(
    ("changes", "cell", "message"),
    [
        ({"mesh_accuracy": 1e-13}, CELL, "1e-13"),
        ({"mesh_accuracy": 2.0}, CELL, "between"),
        ({"smearing_width": 1e-3}, CELL, "grid points"),
        ({}, np.zeros((3, 3)), "volume"),
        ({}, np.full((3, 3), np.nan), "volume"),
    ],
)
def test_what_no_mesh_can_do_is_refused(changes, cell, message):
    with pytest.raises(MeshError, match=message):
        choose_mesh(dataclasses.replace(SETTINGS, **changes), cell, num_atoms=10)


def test_meshes_smaller_than_their_splines_are_refused():
    with pytest.raises(MeshError, match="at least 8"):
        Mesh((8, 7, 9), order=8)


def test_unknown_methods_are_refused():
    with pytest.raises(ElectrostaticsSettingsError, match="direct, mesh, auto"):
        dataclasses.replace(SETTINGS, sums="grid")


@pytest.mark.parametrize(
    ("sums", "num_atoms", "has_mesh"),
    [
        ("auto", MESH_PAYS_ABOVE, False),
        ("auto", MESH_PAYS_ABOVE + 1, True),
        ("direct", 10**6, False),
        ("mesh", 3, True),
    ],
)
def test_the_method_is_chosen_by_size_unless_given(sums, num_atoms, has_mesh):
    settings = dataclasses.replace(SETTINGS, sums=sums)
    assert (choose_mesh(settings, CELL, num_atoms) is not None) == has_mesh


def test_what_auto_decides_is_logged_once(caplog):
    _say.cache_clear()
    settings = dataclasses.replace(SETTINGS, sums="auto")
    with caplog.at_level("INFO"):
        for num_atoms in (10, 20, 1000, 2000):
            choose_mesh(settings, CELL, num_atoms)
    assert [record.message.rpartition(": ")[2] for record in caplog.records] == [
        "directly, over wavevectors",
        "on a mesh",
    ]


def test_open_boundary_has_no_mesh():
    settings = dataclasses.replace(SETTINGS, boundary="realspace")
    with pytest.raises(MeshError, match="open boundary"):
        choose_mesh(settings, CELL, 1000)
    assert choose_mesh(dataclasses.replace(settings, sums="auto"), CELL, 1000) is None


def test_settings_of_earlier_versions():
    fields = {"max_l": 1, "smearing_width": 1.5, "method": "direct", "mesh": None}
    settings = ElectrostaticsSettings.from_dict(fields)
    assert settings == ElectrostaticsSettings(max_l=1, smearing_width=1.5, sums="direct")
    assert ElectrostaticsSettings.from_dict(dataclasses.asdict(SETTINGS)) == SETTINGS
