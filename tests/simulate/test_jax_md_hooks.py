"""JAX-MD simulates and minimises with our energies, on the device, as ASE does."""

from __future__ import annotations

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase.md.verlet import VelocityVerlet
from jax_md_runs import FREE_SHIFT, STEP, THERMAL_ENERGY, masses, run
from tiny_models import assert_close, periodic, tiny_model

from mace_scf_jax.simulate import MACESCFCalculator
from mace_scf_jax.simulate.jax_md_hooks import jax_md_functions, to_box

with jax.numpy_dtype_promotion("standard"):
    pytest.importorskip("jax_md")
    from jax_md import minimize, quantity, simulate


@pytest.fixture(autouse=True)
def promotion_as_jax_md_needs_it():
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture(scope="module")
def hooks(model):
    return jax_md_functions(model, periodic(), skin=0.3, largest_strain=0.2)


@pytest.mark.slow
def test_nve_is_that_of_ase(model):
    neighbor_fn, energy_fn = jax_md_functions(model, periodic(), skin=0.3)
    atoms = periodic()
    positions = jnp.asarray(atoms.positions)
    neighbors = neighbor_fn.allocate(positions)
    init, step = simulate.nve(energy_fn, FREE_SHIFT, dt=STEP)
    start = init(jax.random.key(0), positions, kT=THERMAL_ENERGY, mass=masses(), neighbor=neighbors)

    def total_energy(state, neighbors):
        kinetic = quantity.kinetic_energy(momentum=state.momentum, mass=state.mass)
        return kinetic + energy_fn(state.position, neighbors)

    state, _, energies = run(step, start, neighbors, 100, total_energy)
    np.testing.assert_allclose(energies, energies[0], atol=1e-6)
    atoms.set_momenta(np.asarray(start.momentum))
    atoms.calc = MACESCFCalculator(model)
    VelocityVerlet(atoms, STEP).run(100)
    assert np.abs(atoms.positions - periodic().positions).max() > 0.3
    np.testing.assert_allclose(state.position, atoms.positions, atol=1e-12)
    np.testing.assert_allclose(state.momentum, atoms.get_momenta(), atol=1e-12)


def test_copies_by_pickle_serve(hooks):
    neighbor_fn, energy_fn = pickle.loads(pickle.dumps(hooks))
    positions = periodic().positions
    neighbors = pickle.loads(pickle.dumps(neighbor_fn.allocate(positions)))
    expected = hooks[1](positions, hooks[0].allocate(positions))
    assert energy_fn(positions, neighbors) == expected


def test_keywords_have_an_effect_or_are_refused():
    """Those of JAX-MD's own, such as the temperature, mean nothing here."""
    neighbor_fn, energy_fn = jax_md_functions(tiny_model("MACEQEq"), periodic())
    positions = periodic().positions
    neighbors = neighbor_fn.allocate(positions, kT=0.1)
    expected = energy_fn.energy_fn(positions, neighbors.neighbours, total_charge=1.0)
    found = energy_fn(positions, neighbors, total_charge=1.0, kT=0.1)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert abs(energy_fn(positions, neighbors) - expected) > 1e-3
    with pytest.raises(TypeError, match="'totalcharge'; did you mean 'total_charge'"):
        energy_fn(positions, neighbors, totalcharge=1.0)
    with pytest.raises(TypeError, match=r"update: unknown keyword 'boxx'"):
        neighbors.update(positions, boxx=3.0)


@pytest.mark.slow
def test_constant_pressure_conserves_its_invariant(hooks):
    neighbor_fn, energy_fn = hooks
    positions, box = jnp.asarray(periodic().positions), to_box(periodic().cell)
    neighbors = neighbor_fn.allocate(positions)
    init, step = simulate.npt_nose_hoover(
        energy_fn, FREE_SHIFT, dt=STEP, pressure=0.01, kT=THERMAL_ENERGY
    )
    start = init(jax.random.key(0), positions, box, mass=masses(), neighbor=neighbors)

    def invariant(state, neighbors):
        return simulate.npt_nose_hoover_invariant(
            energy_fn, state, 0.01, THERMAL_ENERGY, neighbor=neighbors
        )

    state, _, invariants = run(step, start, neighbors, 100, invariant)
    assert abs(np.linalg.det(state.box) / np.linalg.det(box) - 1.0) > 1e-3
    np.testing.assert_allclose(invariants, invariants[0], atol=1e-5)


@pytest.mark.parametrize(
    "thermostat", ["langevin", pytest.param("nose_hoover", marks=pytest.mark.slow)]
)
def test_constant_temperature(hooks, thermostat):
    neighbor_fn, energy_fn = hooks
    positions = jnp.asarray(periodic().positions)
    neighbors = neighbor_fn.allocate(positions)
    make = getattr(simulate, f"nvt_{thermostat}")
    init, step = make(energy_fn, FREE_SHIFT, dt=STEP, kT=THERMAL_ENERGY)
    start = init(jax.random.key(0), positions, mass=masses(), neighbor=neighbors)

    def temperature(state, _):
        return quantity.temperature(momentum=state.momentum, mass=state.mass)

    _, _, temperatures = run(step, start, neighbors, 20, temperature)
    assert np.isfinite(temperatures).all()
    assert np.ptp(temperatures) > 0.0


def test_minimisation_goes_downhill(hooks):
    neighbor_fn, energy_fn = hooks
    positions = jnp.asarray(periodic().positions)
    neighbors = neighbor_fn.allocate(positions)
    init, step = minimize.fire_descent(energy_fn, FREE_SHIFT)
    start = init(positions, mass=1.0, neighbor=neighbors)
    _, _, energies = run(
        step, start, neighbors, 60, lambda state, neighbors: energy_fn(state.position, neighbors)
    )
    assert energies[-1] < energies[0]


def test_wrapped_and_fractional_positions_are_the_same(model, hooks):
    neighbor_fn, energy_fn = hooks
    atoms = periodic()
    box = to_box(atoms.cell)
    positions = jnp.asarray(atoms.positions)
    neighbors = neighbor_fn.allocate(positions)
    energy, forces = jax.value_and_grad(energy_fn)(positions, neighbors)
    moved = positions - jnp.asarray(atoms.cell)[1] * jnp.asarray([0.0, 1, 0, -2, 0])[:, None]
    wrapped, wrapped_forces = jax.value_and_grad(energy_fn)(moved, neighbors)
    assert_close(wrapped, energy, 1e-13)
    assert_close(wrapped_forces, forces, 1e-10)
    assert_close(energy_fn.results(moved, neighbors).forces, -forces, 1e-10)

    fractional_fn, fractional_energy_fn = jax_md_functions(
        model, atoms, fractional_coordinates=True, skin=0.3, largest_strain=0.2
    )
    fractional = jnp.asarray(atoms.get_scaled_positions())
    list_of_fractional = fractional_fn.allocate(fractional, box=box)
    energies = jax.value_and_grad(fractional_energy_fn)(fractional, list_of_fractional, box=box)
    assert_close(energies[0], energy, 1e-13)
    assert_close(energies[1], forces, 1e-10)


def test_a_perturbation_strains_the_box(hooks):
    neighbor_fn, energy_fn = hooks
    atoms = periodic()
    neighbors = neighbor_fn.allocate(atoms.positions)
    by_factor = jax.grad(lambda factor: energy_fn(atoms.positions, neighbors, perturbation=factor))(
        1.0
    )
    stress = energy_fn.results(atoms.positions, neighbors, stress=True).stress
    assert_close(by_factor, jnp.trace(stress) * atoms.get_volume(), 1e-10)


def test_a_list_that_overflows_is_allocated_with_more_room(hooks):
    neighbor_fn, energy_fn = hooks
    positions = periodic().positions
    neighbors = neighbor_fn.allocate(positions)
    smaller = 0.7 * to_box(periodic().cell)
    dense = neighbors.update(0.7 * positions, box=smaller)
    assert bool(dense.did_buffer_overflow)
    assert np.isnan(energy_fn(0.7 * positions, dense, box=smaller))
    allocated = neighbor_fn.allocate(0.7 * positions, box=smaller, extra_capacity=3)
    assert not bool(allocated.did_buffer_overflow)
    assert np.isfinite(energy_fn(0.7 * positions, allocated, box=smaller))
    usual = neighbor_fn.allocate(0.7 * positions, box=smaller)
    room = [lists.neighbours.graph.neighbours_per_atom for lists in (usual, allocated)]
    assert room[1] >= room[0] + 3
