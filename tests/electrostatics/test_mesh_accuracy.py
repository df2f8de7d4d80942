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
    SummationMethod,
    choose_mesh,
    resolve_method,
)
from mace_scf_jax.electrostatics.mesh_accuracy import (
    MESH_PAYS_FROM,
    relative_error,
    smooth_length,
)
from mace_scf_jax.electrostatics.sums.splines import influence, spline_weights, transform
from mace_scf_jax.electrostatics.sums.spreading import interpolate, monomial_positions, spread

from .tolerances import assert_close

SETTINGS = ElectrostaticsSettings(
    max_l=1,
    smearing_width=1.5,
    boundary="pbc",
    features=FieldFeatureSettings(max_l=1, widths=(1.5, 2.0)),
    method="mesh",
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
        assert all(length == smooth_length(length) for length in mesh.shape)
        spacing = max(np.linalg.norm(CELL, axis=1) / mesh.shape)
        assert relative_error(settings, spacing=spacing, order=mesh.order, skewness=1.02) < accuracy
        points.append(mesh.num_points * mesh.order**3)
    assert points == sorted(points)
    larger = choose_mesh(SETTINGS, 2.0 * CELL, num_atoms=12000)
    assert larger.num_points > 4 * choose_mesh(SETTINGS, CELL, num_atoms=1500).num_points


def test_one_grid_for_several_cells_is_fine_enough_for_each():
    mesh = choose_mesh(SETTINGS, np.stack([CELL, CELL[::-1]]), num_atoms=1500)
    alone = choose_mesh(SETTINGS, np.diag([31.2, 25.4, 31.2]), num_atoms=1500)
    assert mesh.order == alone.order
    assert min(np.subtract(mesh.shape, alone.shape)) >= 0


def test_lengths_that_transform_fast():
    assert [smooth_length(n) for n in (1, 11, 13, 97, 121, 127)] == [1, 12, 14, 98, 125, 128]


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
        dataclasses.replace(SETTINGS, method="grid")


@pytest.mark.parametrize(
    ("method", "num_atoms", "expected"),
    [
        ("auto", MESH_PAYS_FROM - 1, SummationMethod.DIRECT),
        ("auto", MESH_PAYS_FROM, SummationMethod.MESH),
        ("direct", 10**6, SummationMethod.DIRECT),
        ("mesh", 3, SummationMethod.MESH),
    ],
)
def test_the_method_is_chosen_by_size_unless_given(method, num_atoms, expected):
    settings = dataclasses.replace(SETTINGS, method=method)
    resolved = resolve_method(settings, CELL, num_atoms)
    assert resolved.method is expected
    assert (resolved.mesh is not None) == (expected is SummationMethod.MESH)
    assert resolve_method(resolved, CELL, num_atoms) == resolved


def test_open_boundary_has_no_mesh():
    settings = dataclasses.replace(SETTINGS, boundary="realspace")
    with pytest.raises(MeshError, match="open boundary"):
        resolve_method(settings, CELL, 1000)
    automatic = dataclasses.replace(settings, method="auto")
    assert resolve_method(automatic, CELL, 1000).method is SummationMethod.DIRECT
