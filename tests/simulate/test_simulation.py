"""Simulations with a model: the same as ASE's, without recompiling, and honest about failures."""

from __future__ import annotations

import pickle

import jax
import numpy as np
import pytest
from ase import units
from ase.constraints import FixAtoms, FixBondLength, FixCartesian
from ase.md.verlet import VelocityVerlet
from compilations import compilations
from tiny_models import molecule, periodic, slab, tiny_model

import mace_scf_jax
from mace_scf_jax.simulate import (
    Committee,
    MACESCFCalculator,
    committee_energy_function,
    dynamics,
)
from mace_scf_jax.simulate.settings import SimulationError, SimulationSettings
from mace_scf_jax.simulate.simulation import Simulation

NVE = SimulationSettings("nve", timestep=0.2, temperature=300.0)


def total_energy(simulation):
    state = simulation.state
    kinetic = dynamics.kinetic_energy(state.momenta, simulation.masses)
    return float(state.evaluation.energy + kinetic)


@pytest.fixture(scope="module")
def finished(model):
    """A run of 100 steps in two parts, its start, its energies, and what was compiled."""
    simulation = Simulation(*mace_scf_jax.energy_function(model, skin=0.3), periodic(), NVE)
    start, energies = simulation.to_atoms(), [total_energy(simulation)]
    with compilations() as compiled:
        for num_steps in (70, 30):
            simulation.advance(num_steps)
            energies.append(total_energy(simulation))
    return simulation, start, energies, compiled


def test_the_same_as_velocity_verlet_of_ase(model, finished):
    simulation, atoms, *_ = finished
    start = atoms.positions.copy()
    atoms.calc = MACESCFCalculator(model)
    VelocityVerlet(atoms, NVE.timestep * units.fs).run(100)
    reached = simulation.to_atoms()
    moved = np.abs(reached.positions - start).max()
    assert moved > 2 * 0.3, "further than the skin: neighbours were renewed"
    np.testing.assert_allclose(reached.positions, atoms.positions, atol=1e-12)
    np.testing.assert_allclose(reached.get_momenta(), atoms.get_momenta(), atol=1e-12)


def test_a_copy_by_pickle_goes_on(model):
    simulation = Simulation(*mace_scf_jax.energy_function(model, skin=0.3), periodic(), NVE)
    simulation.advance(3)
    copied = pickle.loads(pickle.dumps(simulation))
    for each in (simulation, copied):
        each.advance(2)
    assert copied.steps_done == 5
    np.testing.assert_array_equal(copied.to_atoms().positions, simulation.to_atoms().positions)


def test_energy_is_conserved_and_nothing_recompiled(finished):
    simulation, _, energies, compiled = finished
    assert simulation.steps_done == 100
    assert simulation.preparations == 1
    assert compiled.count("jit(advance)") == 1
    exchanged = np.abs(energies[0] - float(simulation.state.evaluation.energy))
    assert exchanged > 0.01
    np.testing.assert_allclose(energies, energies[0], atol=1e-6)


@pytest.mark.slow
def test_neighbours_that_outgrow_their_arrays_are_prepared_again(model):
    """Atoms that were apart come together."""
    atoms = molecule()
    del atoms.info["external_field"]
    atoms.positions[:3] -= 1.5
    velocities = np.repeat([[3.0, 3.0, 3.0], [-3.0, -3.0, -3.0]], [3, 2], axis=0)
    atoms.set_velocities(velocities)
    results = []
    for extra_capacity in (0.0, 5.0):
        functions = mace_scf_jax.energy_function(model, extra_capacity=extra_capacity)
        simulation = Simulation(*functions, atoms, SimulationSettings("nve", timestep=1.0))
        simulation.advance(4)
        results.append(simulation)
    tight, roomy = results
    assert tight.preparations > 1
    assert roomy.preparations == 1
    np.testing.assert_allclose(tight.state.positions, roomy.state.positions, atol=1e-11)


@pytest.mark.slow
def test_a_snapshot_goes_on_where_it_was_made(model):
    functions = mace_scf_jax.energy_function(model, largest_strain=0.2)
    settings = SimulationSettings("npt", timestep=0.2, temperature=300.0, relaxation_time=0.1)
    simulation = Simulation(*functions, periodic(), settings, seed=3)
    simulation.advance(5)
    snapshot = simulation.snapshot()
    again = Simulation(*functions, periodic(), settings, snapshot=snapshot)
    # Compiled functions belong to a simulation; they are the same.
    again.__dict__["_advance"] = simulation._advance
    for one in (simulation, again):
        one.advance(5)
    assert again.steps_done == 10
    first, second = simulation.snapshot(), again.snapshot()
    assert np.abs(first.cell - snapshot.cell).max() > 1e-4
    for name in ("positions", "momenta", "cell", "heat"):
        np.testing.assert_allclose(getattr(second, name), getattr(first, name), atol=1e-11)
    np.testing.assert_array_equal(first.key, second.key)


def test_fixed_coordinates_stay_and_others_move(model):
    atoms = periodic()
    atoms.set_constraint([FixAtoms([0]), FixCartesian([2], mask=(False, False, True))])
    settings = SimulationSettings("nvt", timestep=0.5, temperature=300.0)
    simulation = Simulation(*mace_scf_jax.energy_function(model), atoms, settings)
    simulation.advance(4)
    reached = simulation.to_atoms()
    moved = np.abs(reached.positions - atoms.positions) > 0.0
    expected = np.ones_like(moved)
    expected[0], expected[2, 2] = False, False
    np.testing.assert_array_equal(moved, expected)
    np.testing.assert_array_equal(reached.get_momenta() != 0.0, expected)
    assert simulation.degrees_of_freedom == 3 * len(atoms) - 4
    npt = SimulationSettings("npt", temperature=300.0)
    atoms.pbc = True
    with pytest.raises(SimulationError, match="found fixed atoms, which the cell would move"):
        Simulation(*mace_scf_jax.energy_function(model, largest_strain=0.1), atoms, npt)


def test_a_committee_that_disagrees_stops():
    committee = Committee((tiny_model(seed=1), tiny_model(seed=2)))
    functions = committee_energy_function(committee)
    with pytest.raises(SimulationError, match="initial structure: the members of the committee"):
        Simulation(*functions, molecule(), NVE, largest_uncertainty=1e-6)
    with pytest.raises(SimulationError, match="largest uncertainty: found -1"):
        Simulation(*functions, molecule(), NVE, largest_uncertainty=-1.0)


def test_a_run_that_explodes_stops_at_the_last_good_step(model):
    functions = mace_scf_jax.energy_function(model)
    settings = SimulationSettings("nve", timestep=1e300, temperature=300.0)
    simulation = Simulation(*functions, periodic(), settings)
    with pytest.raises(SimulationError, match="step 1: positions or energy are not finite"):
        simulation.advance(10)
    assert simulation.steps_done == 0
    assert np.isfinite(np.asarray(simulation.state.positions)).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ensemble": "nvp"}, "ensemble: found 'nvp', expected nve, nvt, npt"),
        ({"ensemble": "nvt"}, "ensemble nvt needs a temperature"),
        ({"ensemble": "nve", "timestep": 0.0}, "timestep: found 0.0, expected a positive"),
        ({"ensemble": "nvt", "temperature": -1.0}, "temperature: found -1.0, expected a positive"),
        ({"ensemble": "nvt", "temperature": 1.0, "friction": np.nan}, "friction: found nan"),
        ({"ensemble": "npt", "temperature": 1.0, "compressibility": 0.0}, "compressibility: "),
        ({"ensemble": "npt", "temperature": 1.0, "pressure": np.inf}, "pressure: found inf"),
    ],
)
def test_settings_that_make_no_sense(options, message):
    with pytest.raises(SimulationError, match=message):
        SimulationSettings(**options)


def test_structures_that_do_not_suit(model):
    functions = mace_scf_jax.energy_function(model)
    with pytest.raises(SimulationError, match="neither momenta in the structure nor a temperature"):
        Simulation(*functions, periodic(), SimulationSettings("nve"))
    fixed = periodic()
    fixed.set_constraint(FixBondLength(0, 1))
    with pytest.raises(SimulationError, match="found the constraint FixBondLengths; simulations"):
        Simulation(*functions, fixed, NVE)
    fixed.set_constraint(FixAtoms(range(len(fixed))))
    with pytest.raises(SimulationError, match="found only fixed atoms"):
        Simulation(*functions, fixed, NVE)
    with pytest.raises(SimulationError, match="largest uncertainty: expected a committee"):
        Simulation(*functions, periodic(), NVE, largest_uncertainty=0.1)
    npt = SimulationSettings("npt", temperature=300.0)
    with pytest.raises(SimulationError, match="periodic in three directions, found pbc TTF"):
        Simulation(*functions, slab(), npt)
    with pytest.raises(SimulationError, match="with largest_strain above 0"):
        Simulation(*functions, periodic(), npt)


def test_momenta_have_the_temperature_and_no_drift():
    masses = jax.numpy.asarray([1.0, 16.0] * 2000)
    momenta = dynamics.random_momenta(jax.random.key(0), masses, jax.numpy.asarray(0.025))
    np.testing.assert_allclose(momenta.sum(axis=0), 0.0, atol=1e-10)
    kinetic = dynamics.kinetic_energy(momenta, masses)
    np.testing.assert_allclose(kinetic, 1.5 * 3999 * 0.025, rtol=0.03)
