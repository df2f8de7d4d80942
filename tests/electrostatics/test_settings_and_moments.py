"""Validation of settings and periodicity, moments, and energies in a field."""

from __future__ import annotations

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mace_scf_jax.electrostatics import (
    BoundaryError,
    BoundaryMode,
    ElectrostaticsInputError,
    ElectrostaticsSettings,
    ElectrostaticsSettingsError,
    FieldFeatureSettings,
    batch_coulomb_energy,
    batch_dipole,
    batch_external_field_energy,
    batch_external_field_features,
    batch_field_features,
    batch_total_charge,
    boundary_fault,
    check_inputs,
    check_pbc,
    check_slab_cell,
    dipole_cartesian,
    resolve_boundary,
)

from .systems import Sizes, batch, random_system


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_l": 4}, "max_l must be an integer from 0 to 3, found 4"),
        ({"max_l": 1.0}, "max_l must be an integer"),
        ({"smearing_width": 0.0}, "smearing_width must be positive"),
        ({"kspace_fade": -0.1}, "kspace_fade must be finite and not negative"),
        ({"kspace_cutoff_factor": float("nan")}, "kspace_cutoff_factor must be positive"),
        ({"boundary": "periodic"}, "boundary must be one of exact, realspace.*found 'periodic'"),
    ],
)
def test_settings_are_validated(changes, message):
    with pytest.raises(ElectrostaticsSettingsError, match=message):
        ElectrostaticsSettings(**{"max_l": 1, "smearing_width": 1.5} | changes)


def test_feature_settings_are_validated():
    with pytest.raises(ElectrostaticsSettingsError, match="at least one width"):
        FieldFeatureSettings(max_l=1, widths=())
    with pytest.raises(ElectrostaticsSettingsError, match=r"features.widths must be positive"):
        FieldFeatureSettings(max_l=1, widths=(1.0, -1.0))
    assert FieldFeatureSettings(max_l=2, widths=(1.0, 2.0)).num_features == 18


def test_cutoff_depends_on_the_narrowest_gaussian_and_the_highest_degree():
    plain = ElectrostaticsSettings(max_l=0, smearing_width=1.5)
    np.testing.assert_allclose(plain.kspace_cutoff, 1.25 * 0.75 * 3 / 1.5)
    featured = ElectrostaticsSettings(
        max_l=0, smearing_width=1.5, features=FieldFeatureSettings(max_l=1, widths=(2.0, 0.5))
    )
    np.testing.assert_allclose(featured.kspace_cutoff, 1.25 * 0.75 * 3 / 0.5 * 2**0.3)


@pytest.mark.parametrize(
    ("mode", "allowed"),
    [
        ("realspace", ["FFF"]),
        ("pbc", ["TTT"]),
        ("slab", ["TTF"]),
        ("molecule_in_box", ["FFF"]),
        ("mixed_periodic", ["TTT", "TTF", "FFF"]),
    ],
)
def test_allowed_periodicity(mode, allowed):
    for pattern in ("TTT", "TTF", "TFT", "FTT", "TFF", "FFT", "FTF", "FFF"):
        pbc = np.array([letter == "T" for letter in pattern])
        if pattern in allowed:
            check_pbc(pbc, mode)
        else:
            with pytest.raises(BoundaryError, match=f"structure 0 has pbc {pattern}.*'{mode}'"):
                check_pbc(pbc[None], mode)


def test_values_are_checked_on_the_host():
    system = random_system(0, 3)
    whole = (True, True, True)

    def check(positions=system.positions, multipoles=system.multipoles, **changes):
        keywords = {"cell": system.cell, "pbc": np.array(whole), "mode": "mixed_periodic"} | changes
        check_inputs(positions, multipoles, **keywords)

    check()
    check(cell=system.cell[[1, 0, 2]])
    open_flags = np.zeros(3, bool)
    check(cell=np.zeros((3, 3)), pbc=open_flags, mode="realspace")
    check(cell=np.zeros((3, 3)), pbc=open_flags, mode="auto")
    faulty = system.multipoles.copy()
    faulty[1, 2] = np.nan
    with pytest.raises(ElectrostaticsInputError, match=r"multipoles of atom 1: found \[.*nan"):
        check(multipoles=faulty)
    with pytest.raises(ElectrostaticsInputError, match="positions of atom 0: found"):
        check(positions=system.positions * np.inf)
    flat = system.cell.copy()
    flat[2] = flat[0] + flat[1]
    with pytest.raises(ElectrostaticsInputError, match="three independent lattice vectors"):
        check(cell=flat)
    with pytest.raises(BoundaryError, match="found pbc TFF, incompatible"):
        check(pbc=np.array([True, False, False]))
    with pytest.raises(BoundaryError, match=r"found a slab .* in the xy plane"):
        check(cell=system.cell[[2, 1, 0]], pbc=np.array([True, True, False]))


def test_left_handed_cells_are_right():
    settings = ElectrostaticsSettings(max_l=1, smearing_width=1.5)
    system = random_system(0, 3)
    energies = []
    for cell in (system.cell, -system.cell, system.cell[[1, 0, 2]]):
        graph, multipoles = batch([system.replace(cell=cell)], settings.kspace_cutoff)
        energy = jax.jit(functools.partial(batch_coulomb_energy, settings=settings))
        energies.append(float(energy(graph, multipoles)[0]))
    np.testing.assert_allclose(energies, energies[0], rtol=1e-12)


def test_auto_boundary_is_resolved_from_all_structures():
    open_structures = np.zeros((3, 3), bool)
    one_slab = open_structures.copy()
    one_slab[1, :2] = True
    assert resolve_boundary("auto", open_structures) is BoundaryMode.REALSPACE
    assert resolve_boundary("auto", one_slab) is BoundaryMode.MIXED_PERIODIC
    assert resolve_boundary("pbc", open_structures) is BoundaryMode.PBC


def test_unresolved_boundary_and_wrong_inputs_are_refused():
    graph, multipoles = batch([random_system(0, 3)], cutoff=1.5)

    def trace(function, **changes):
        settings = ElectrostaticsSettings(**{"max_l": 1, "smearing_width": 1.5} | changes)
        jax.eval_shape(functools.partial(function, settings=settings), graph, multipoles)

    with pytest.raises(BoundaryError, match="resolve 'auto'"):
        trace(batch_coulomb_energy, boundary="auto")
    with pytest.raises(ValueError, match="4 components per atom, expected 9 for max_l = 2"):
        trace(batch_coulomb_energy, max_l=2)
    with pytest.raises(ElectrostaticsSettingsError, match="features is not set"):
        trace(batch_field_features)


def test_slab_must_lie_in_the_plane():
    pbc = np.array([[True, True, False], [False, False, False]])
    cell = np.stack([np.diag([5.0, 5.0, 30.0]), np.full((3, 3), 2.0)])
    cell[0, 2] = [1.0, 2.0, 30.0]
    check_slab_cell(cell, pbc, "slab")
    cell[0, 1, 2] = 0.1
    with pytest.raises(
        BoundaryError, match=r"structure 0 is a slab .* with z components 0 and 0.1 Å"
    ):
        check_slab_cell(cell, pbc, "mixed_periodic")
    check_slab_cell(cell, pbc, "exact")


def test_charge_dipole_and_field_energy_of_a_padded_batch():
    systems = [random_system(0, 3), random_system(1, 2)]
    graph, multipoles = batch(systems, None, Sizes(atoms=7, graphs=3, slots=3, kvectors=0))
    field = np.array([[0.1, -0.2, 0.3], [0.0, 0.5, 0.0], [1.0, 1.0, 1.0]])
    graph = graph.replace(external_field=field)
    dipole = batch_dipole(graph, multipoles)
    charge = batch_total_charge(graph, multipoles)
    for index, system in enumerate(systems):
        charges, d_y, d_z, d_x = system.multipoles.T
        expected = charges @ system.positions + np.array([d_x.sum(), d_y.sum(), d_z.sum()])
        np.testing.assert_allclose(dipole[index], expected, rtol=1e-12)
        np.testing.assert_allclose(charge[index], charges.sum(), rtol=1e-12)
        np.testing.assert_allclose(
            batch_external_field_energy(graph, dipole)[index], expected @ field[index], rtol=1e-12
        )
    np.testing.assert_array_equal(dipole[2], 0.0)


def test_atomic_dipoles_in_cartesian_order():
    np.testing.assert_array_equal(
        dipole_cartesian(jnp.array([[9.0, 2.0, 3.0, 1.0, 8.0]])), [[1.0, 2.0, 3.0]]
    )
    np.testing.assert_array_equal(dipole_cartesian(jnp.ones((2, 1))), np.zeros((2, 3)))


def test_features_of_an_external_potential_have_degrees_zero_and_one_only():
    graph, _ = batch([random_system(0, 3)], None)
    features = FieldFeatureSettings(max_l=3, widths=(1.0, 2.0))
    values = batch_external_field_features(
        graph, jnp.array([0.7]), jnp.array([[0.1, 0.2, 0.3]]), features=features
    )
    assert values.shape == (3, 32)
    assert np.all(np.asarray(values[:, :8]) != 0.0)
    np.testing.assert_array_equal(values[:, 8:], 0.0)


@pytest.mark.parametrize(
    ("mode", "pbc", "charge", "reason"),
    [
        ("mixed_periodic", (True, True, False), 1.0, r"net charge \(\+1 e\).* where the slab"),
        ("slab", (True, True, False), -0.5, r"\(-0.5 e\)"),
        ("molecule_in_box", (False, False, False), 1.0, "depend on the box"),
        ("mixed_periodic", (False, False, False), -1.0, "periodic box"),
        ("mixed_periodic", (False, False, False), 0.0, None),
        ("mixed_periodic", (True, True, True), 1.0, None),
        ("realspace", (False, False, False), 1.0, None),
        ("pbc", (True, True, True), 1.0, None),
        ("exact", (True, True, False), 1.0, None),
        ("exact", (False, False, False), 1.0, None),
    ],
)
def test_where_a_boundary_condition_is_wrong(mode, pbc, charge, reason):
    found = boundary_fault(mode, np.array(pbc), charge)
    assert found is None if reason is None else re.search(reason, found)
