"""Energies as pure functions: those of predictions, differentiable, never silently wrong."""

from __future__ import annotations

import dataclasses
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compilations import compilations
from tiny_models import (
    assert_close,
    molecule,
    periodic,
    slab,
    tiny_model,
)

import mace_scf_jax
from mace_scf_jax.data.errors import DataError
from mace_scf_jax.electrostatics import atomic_dipole_contributions
from mace_scf_jax.models import SCFState, SelfConsistency
from mace_scf_jax.scf import Dense

STRAIN = np.array([[0.02, 0.01, 0.0], [0.01, -0.03, 0.005], [0.0, 0.005, 0.01]])


@pytest.fixture(scope="module")
def functions(model):
    return mace_scf_jax.energy_function(model, largest_strain=0.1)


@pytest.fixture(scope="module")
def neighbours(functions):
    return functions[1](periodic())


def assert_results_equal(results, prediction):
    assert bool(results.valid)
    named = {field.name for field in dataclasses.fields(results)} - {"further", "valid"}
    values = {name: getattr(results, name) for name in named} | results.further
    values = {name: value for name, value in values.items() if value is not None}
    values = {name: value for name, value in values.items() if not np.isnan(value).all()}
    assert values.keys() == prediction.keys() - {"virials"}
    for name, value in values.items():
        if name != "charge_residual":
            assert_close(value, prediction[name], 1e-10, name)


@pytest.mark.parametrize(
    ("family", "atoms"),
    [
        pytest.param("MACE", slab(), id="MACE, slab"),
        pytest.param(
            "LocalSplitCharges", periodic(), id="LocalSplitCharges, crystal", marks=pytest.mark.slow
        ),
        pytest.param("MACEQEq", molecule(), id="MACEQEq, molecule"),
    ],
)
def test_results_are_predictions(family, atoms):
    model = tiny_model(family)
    energy_fn, prepare = mace_scf_jax.energy_function(model, skin=0.7)
    results = energy_fn.results(atoms.positions, prepare(atoms), stress=True)
    assert_results_equal(results, model.predict(atoms, stress=True))


def test_the_skin_changes_nothing(model, neighbours):
    atoms = periodic()
    energies, edges = [], []
    for skin in (0.1, 0.3, 0.5):
        energy_fn, prepare = mace_scf_jax.energy_function(model, skin=skin, largest_strain=0.1)
        prepared = prepare(atoms, previous=neighbours)
        edges.append(int(prepared.graph.edge_mask.sum()))
        energies.append(float(energy_fn(atoms.positions, prepared)))
    assert edges[0] < edges[1] < edges[2]
    np.testing.assert_allclose(energies[1:], energies[0], rtol=1e-12)


def test_neighbours_serve_until_the_skin_is_used_up(functions, neighbours):
    energy_fn, prepare = functions
    atoms = periodic()
    direction = np.random.default_rng(3).normal(size=(5, 3))
    direction /= np.linalg.norm(direction, axis=1).max()
    atoms.positions += 0.24 * direction
    stale = energy_fn(atoms.positions, neighbours)
    fresh = energy_fn(atoms.positions, prepare(atoms, previous=neighbours))
    np.testing.assert_allclose(stale, fresh, rtol=1e-12)

    atoms.positions += 0.02 * direction
    assert np.isnan(energy_fn(atoms.positions, neighbours))
    assert np.isnan(jax.grad(energy_fn)(jnp.asarray(atoms.positions), neighbours)).all()
    assert not energy_fn.results(atoms.positions, neighbours).valid
    assert np.isnan(energy_fn(np.full((5, 3), np.nan), neighbours))


def test_a_cell_outside_the_prepared_range_is_not_served(functions, neighbours):
    energy_fn, _ = functions
    atoms = periodic()
    larger = np.eye(3) * 1.11
    assert neighbours.serves_cell(jnp.asarray(atoms.cell @ (np.eye(3) * 1.09)))
    assert not neighbours.serves_cell(jnp.asarray(atoms.cell @ larger))
    moved = neighbours.update(
        jnp.asarray(atoms.positions @ larger), jnp.asarray(atoms.cell @ larger)
    )
    assert np.isnan(energy_fn(atoms.positions @ larger, moved, cell=atoms.cell @ larger))


def test_everything_is_nan_where_the_energy_is(functions, neighbours):
    """Far moved atoms, and positions that are no numbers."""
    energy_fn, _ = functions
    for moved in (periodic().positions + 3.0 * np.eye(5, 3), np.full((5, 3), np.nan)):
        results = energy_fn.results(moved, neighbours, stress=True)
        assert not results.valid
        values = {name: value for name, value in vars(results).items() if value is not None}
        values |= values.pop("further")
        for name in values.keys() - {"valid"}:
            assert np.isnan(values[name]).all(), name


def test_the_energy_is_nan_when_neighbours_do_not_fit(model):
    energy_fn, prepare = mace_scf_jax.energy_function(model, extra_capacity=0.0)
    spread, dense = molecule(), molecule()
    spread.positions *= 2.0
    neighbours = prepare(spread).update(jnp.asarray(dense.positions))
    assert bool(neighbours.overflow)
    assert np.isnan(energy_fn(dense.positions, neighbours))
    grown = prepare(dense, previous=neighbours)
    assert not bool(grown.overflow)
    assert np.isfinite(energy_fn(dense.positions, grown))


def test_copies_by_pickle_serve(functions, neighbours):
    energy_fn, prepare, neighbours = pickle.loads(pickle.dumps((*functions, neighbours)))
    positions = periodic().positions
    expected = functions[0](positions, neighbours)
    assert energy_fn(positions, neighbours) == expected
    assert energy_fn(positions, prepare(periodic(), previous=neighbours)) == expected


def test_arrays_of_a_much_denser_state_are_not_kept(functions, neighbours):
    _, prepare = functions
    dense = periodic()
    dense.set_cell(0.6 * dense.cell.array, scale_atoms=True)
    large = prepare(dense, previous=neighbours)
    assert large.sizes.work() > 3 * neighbours.sizes.work()
    assert prepare(periodic(), previous=large).sizes == neighbours.sizes
    denser = periodic()
    denser.set_cell(0.95 * denser.cell.array, scale_atoms=True)
    little_larger = prepare(denser, previous=neighbours)
    assert prepare(periodic(), previous=little_larger).sizes == little_larger.sizes


def test_a_mesh_of_a_much_larger_cell_is_not_kept(model):
    _, prepare = mace_scf_jax.energy_function(model, sums="mesh")
    cells = {}
    for factor in (1.5, 2.0, 3.0):
        cells[factor] = periodic()
        cells[factor].set_cell(factor * periodic().cell.array, scale_atoms=True)
    small, medium, large = map(prepare, cells.values())
    meshes = [each.graph.mesh.num_points for each in (small, medium, large)]
    assert meshes[0] < meshes[1] < 2 * meshes[0] < meshes[2]
    assert prepare(cells[1.5], previous=large).graph.mesh == small.graph.mesh
    assert prepare(cells[1.5], previous=medium).graph.mesh == medium.graph.mesh


def test_derivatives_are_forces_stress_and_dipole(functions, neighbours):
    energy_fn, _ = functions
    atoms = periodic()
    positions, zero = jnp.asarray(atoms.positions), jnp.zeros((3, 3))
    results = energy_fn.results(positions, neighbours, stress=True)
    by_position, by_strain, by_field = jax.grad(
        lambda positions, strain, field: energy_fn(
            positions, neighbours, strain=strain, external_field=field
        ),
        argnums=(0, 1, 2),
    )(positions, zero, jnp.zeros(3))
    assert_close(by_position, -results.forces, 1e-12)
    assert_close(by_strain / atoms.get_volume(), results.stress, 1e-12)
    dipole = np.sum(atomic_dipole_contributions(positions, results.multipoles), axis=0)
    assert_close(by_field, dipole, 1e-12)
    assert np.isnan(results.dipole).all()  # there is a period in all directions


@pytest.mark.parametrize("family", [pytest.param("FixedPoint", marks=pytest.mark.slow), "MACEQEq"])
def test_forces_are_the_gradient_of_a_compiled_energy_that_is_solved_for(family):
    energy_fn, prepare = mace_scf_jax.energy_function(tiny_model(family))
    atoms = molecule()
    neighbours = prepare(atoms)
    gradient = jax.grad(jax.jit(energy_fn))(jnp.asarray(atoms.positions), neighbours)
    assert_close(-gradient, energy_fn.results(atoms.positions, neighbours).forces, 1e-9)


@pytest.mark.slow
def test_a_search_starts_from_a_state():
    model = tiny_model("FixedPoint", scf=SelfConsistency(Dense(tolerance=1e-10)))
    energy_fn, prepare = mace_scf_jax.energy_function(model)
    positions, neighbours = molecule().positions, prepare(molecule())
    cold = energy_fn.results(positions, neighbours, forces=False)
    warm = energy_fn.results(positions, neighbours, start=cold.scf_state, forces=False)
    assert int(cold.further["scf_steps"]) > int(warm.further["scf_steps"]) == 0
    np.testing.assert_allclose(warm.energy, cold.energy, rtol=1e-9)


def test_finite_differences_of_strain_and_cell(functions, neighbours):
    energy_fn, _ = functions
    atoms = periodic()
    step = 1e-4
    plus, minus = (
        energy_fn(atoms.positions, neighbours, strain=sign * step * STRAIN) for sign in (1, -1)
    )
    stress = energy_fn.results(atoms.positions, neighbours, stress=True).stress
    expected = atoms.get_volume() * np.sum(stress * STRAIN)
    assert_close((plus - minus) / (2 * step), expected, 1e-7)
    deformation = np.eye(3) + STRAIN
    strained = energy_fn(atoms.positions, neighbours, strain=STRAIN)
    in_new_cell = energy_fn(
        atoms.positions @ deformation, neighbours, cell=np.asarray(atoms.cell) @ deformation
    )
    assert_close(in_new_cell, strained, 1e-13)


def test_inside_a_scan_and_mapped(functions, neighbours):
    energy_fn, _ = functions
    rng = np.random.default_rng(0)
    path = periodic().positions + rng.normal(scale=0.01, size=(4, 5, 3))

    @jax.jit
    def along(path, neighbours):
        return jax.lax.scan(lambda carry, at: (carry, energy_fn(at, neighbours)), 0, path)[1]

    one_by_one = [float(energy_fn(at, neighbours)) for at in path]
    np.testing.assert_allclose(along(jnp.asarray(path), neighbours), one_by_one, rtol=1e-13)
    mapped = jax.vmap(energy_fn, in_axes=(0, None))(jnp.asarray(path), neighbours)
    np.testing.assert_allclose(mapped, one_by_one, rtol=1e-13)


def test_moving_atoms_and_renewed_neighbours_compile_nothing(functions, neighbours):
    energy_fn, prepare = functions
    atoms = periodic()
    energy_fn(atoms.positions, neighbours)
    rng = np.random.default_rng(1)
    with compilations() as compiled:
        for _ in range(5):
            atoms.positions += rng.normal(scale=0.05, size=(5, 3))
            neighbours = prepare(atoms, previous=neighbours)
            assert np.isfinite(energy_fn(atoms.positions, neighbours))
    assert compiled == []


def test_the_charge_is_an_argument():
    energy_fn, prepare = mace_scf_jax.energy_function(tiny_model("MACEQEq"))
    atoms = periodic()
    neighbours = prepare(atoms)
    results = energy_fn.results(atoms.positions, neighbours, total_charge=0.25, forces=False)
    assert_close(results.total_charge, 0.25, 1e-12)
    by_charge = jax.grad(lambda charge: energy_fn(atoms.positions, neighbours, total_charge=charge))
    assert_close(by_charge(0.25), results.further["chemical_potential"], 1e-9)


def test_bad_input_is_refused(model, functions, neighbours):
    energy_fn, prepare = functions
    for option, message in (
        ({"skin": 0.0}, "skin: found 0.0, expected a positive length"),
        ({"largest_strain": 1.0}, "largest_strain: found 1.0"),
        ({"extra_capacity": -1.0}, "extra_capacity: found -1.0"),
    ):
        with pytest.raises(ValueError, match=message):
            mace_scf_jax.energy_function(model, **option)
    gold = periodic()
    gold.symbols[0] = "Au"
    with pytest.raises(DataError, match="found element Au, unknown to the model"):
        prepare(gold)
    with pytest.raises(DataError, match="found those of other atoms"):
        prepare(periodic()[::-1], previous=neighbours)
    with pytest.raises(ValueError, match=r"expected a self-consistent model, .* LocalCharges"):
        energy_fn(periodic().positions, neighbours, start=SCFState(jnp.ones((5, 4)), jnp.ones(1)))
    with pytest.raises(ValueError, match="fermi_level: models of the family LocalCharges do not"):
        energy_fn(periodic().positions, neighbours, fermi_level=-3.0)
    with pytest.raises(ValueError, match=r"found shape \(4, 3\), expected \(5, 3\)"):
        energy_fn(periodic().positions[:4], neighbours)
