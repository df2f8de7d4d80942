"""Open directions in simulations: nothing is far enough away to see what does not exist."""

from __future__ import annotations

import dataclasses
import functools

import ase
import jax.numpy as jnp
import numpy as np
import pytest
from ase import units
from scipy.spatial.transform import Rotation
from tiny_models import (
    CHARGED_FAMILIES,
    assert_close,
    molecule,
    periodic,
    slab,
    tiny_model,
)

import mace_scf_jax
from mace_scf_jax.data.configuration import from_atoms
from mace_scf_jax.predict.model import Model
from mace_scf_jax.simulate import MACESCFCalculator, dynamics
from mace_scf_jax.simulate.settings import SimulationSettings
from mace_scf_jax.simulate.simulation import Simulation


@functools.cache
def exact_model() -> Model:
    """The tiny model with the boundary condition exact; its charges do not add up to zero."""
    model = tiny_model()
    electrostatics = dataclasses.replace(model.settings.electrostatics, boundary="exact")
    settings = dataclasses.replace(model.settings, electrostatics=electrostatics)
    return dataclasses.replace(model, settings=settings)


@functools.cache
def calculator() -> MACESCFCalculator:
    return MACESCFCalculator(exact_model())


def evaluated(atoms: ase.Atoms) -> tuple[float, np.ndarray]:
    atoms = atoms.copy()
    atoms.calc = calculator()
    return atoms.get_potential_energy(), atoms.get_forces()


def charged_slab() -> ase.Atoms:
    atoms = slab()
    atoms.info["total_charge"] = 1.0
    return atoms


def test_a_slab_may_stand_anywhere_and_lie_anyhow():
    atoms = charged_slab()
    energy, forces = evaluated(atoms)
    np.testing.assert_allclose(forces.sum(axis=0), 0.0, atol=1e-11 * np.abs(forces).max())
    rotation = Rotation.random(rng=np.random.default_rng(1)).as_matrix()
    shifted, higher, tilted, standing = (atoms.copy() for _ in range(4))
    shifted.positions += [0.3, 0.2, 11.0]
    higher.cell[2] = [0.5, 0.0, 300.0]
    vectors = {exact_model().prepare(from_atoms(each)).num_kvectors for each in (atoms, higher)}
    assert len(vectors) == 1, "vacuum costs nothing"
    tilted.set_cell(atoms.cell @ rotation.T, scale_atoms=True)
    standing.set_cell(atoms.cell[[1, 2, 0]])
    standing.pbc = [True, False, True]
    for other, turn in zip((shifted, higher, tilted, standing), (1, 1, rotation, 1), strict=True):
        turn = turn * np.eye(3) if np.isscalar(turn) else turn
        found, of_other = evaluated(other)
        assert_close(found, energy, 1e-10)
        assert_close(of_other, forces @ turn.T, 1e-9)


def test_an_open_structure_has_no_cell():
    atoms = molecule()
    del atoms.info["external_field"]
    energy, forces = evaluated(atoms)
    for cell in (None, [30, 30, 60], [264, 264, 264]):
        other = atoms.copy()
        other.set_cell(cell)
        assert exact_model().prepare(from_atoms(other)).num_kvectors == 0
        found, of_other = evaluated(other)
        assert_close(found, energy, 1e-12)
        assert_close(of_other, forces, 1e-12)
    rotation = Rotation.random(rng=np.random.default_rng(2)).as_matrix()
    turned = atoms.copy()
    turned.positions = atoms.positions @ rotation.T + [100.0, -3.0, 7.0]
    found, of_other = evaluated(turned)
    assert_close(found, energy, 1e-10)
    assert_close(of_other, forces @ rotation.T, 1e-9)


@pytest.mark.parametrize("mode", ["mixed_periodic", "exact"])
def test_neighbours_tell_when_a_structure_outgrows_what_was_made_for_it(mode):
    """The box of an open structure, the repeat of a slab."""
    model = tiny_model() if mode == "mixed_periodic" else exact_model()
    atoms = molecule() if mode == "mixed_periodic" else charged_slab()
    atoms.info.clear()
    energy_fn, prepare = mace_scf_jax.energy_function(model)
    neighbours = prepare(atoms)
    moved = atoms.copy()
    moved.positions[:3, 2] += 25.0
    neighbours = neighbours.update(jnp.asarray(moved.positions))
    results = energy_fn.results(jnp.asarray(moved.positions), neighbours)
    assert not bool(results.valid)
    assert np.isnan(results.energy)
    again = prepare(moved)
    results = energy_fn.results(jnp.asarray(moved.positions), again)
    assert bool(results.valid)
    assert_close(results.energy, model.predict(moved)["energy"], 1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["mixed_periodic", "exact"])
def test_ions_that_fly_apart(mode):
    """Far beyond the box of the start, energies are those of a fresh preparation."""
    model = tiny_model() if mode == "mixed_periodic" else exact_model()
    pair = ase.Atoms("OH", [[0.0, 0.0, 0.0], [0.0, 0.3, 2.0]])
    pair.set_velocities(np.array([[0.0, 0.0, -0.1], [0.0, 0.0, 0.3]]) / units.fs)
    simulation = Simulation(
        *mace_scf_jax.energy_function(model), pair, SimulationSettings("nve", timestep=0.2)
    )
    totals, energies = [], []
    for _ in range(5):
        state = simulation.state
        energies.append(float(state.evaluation.energy))
        kinetic = dynamics.kinetic_energy(state.momenta, simulation.masses)
        totals.append(energies[-1] + float(kinetic))
        expected = model.predict(simulation.to_atoms())["energy"]
        assert_close(energies[-1], expected, 1e-12)
        simulation.advance(320 if mode == "exact" else 40)
    distance = simulation.to_atoms().get_distance(0, 1)
    assert distance > (100.0 if mode == "exact" else 15.0)
    if mode == "exact":
        assert simulation.preparations == 1
        # What the integrator leaves at steps of 0.2 fs, against what potential and kinetic energy
        # exchange.
        np.testing.assert_allclose(totals, totals[0], atol=1e-4 * np.ptp(energies))


@pytest.mark.slow
def test_a_charged_slab_in_dynamics_feels_no_net_force():
    atoms = charged_slab()
    atoms.set_momenta(np.zeros((5, 3)))
    functions = mace_scf_jax.energy_function(exact_model())
    simulation = Simulation(*functions, atoms, SimulationSettings("nve", timestep=0.05))
    start = simulation.to_atoms()
    simulation.advance(40)
    momenta = np.asarray(simulation.state.momenta)
    assert np.abs(momenta).max() > 0.01
    np.testing.assert_allclose(momenta.sum(axis=0), 0.0, atol=1e-10 * np.abs(momenta).max())
    assert np.abs(simulation.to_atoms().positions - start.positions).max() > 1e-3


def test_crystals_are_what_they_were():
    atoms = periodic()
    found = exact_model().predict(atoms, stress=True)
    for name, values in tiny_model().predict(atoms, stress=True).items():
        assert_close(found[name], values, 1e-10)


@pytest.mark.parametrize(
    "family",
    [
        family if family == "MACEQEq" else pytest.param(family, marks=pytest.mark.slow)
        for family in CHARGED_FAMILIES
    ],
)
def test_every_family_knows_its_open_directions(family):
    """Slabs and open structures of one prediction, alone and together, wherever they are."""
    model = tiny_model(family).using(pbc_handling="exact")
    flat, small = charged_slab(), molecule()
    del small.info["external_field"]
    standing, elsewhere = flat.copy(), small.copy()
    standing.set_cell(flat.cell[[1, 2, 0]])
    standing.pbc = [True, False, True]
    standing.positions += [0.3, 0.2, 11.0]
    elsewhere.set_cell([60, 30, 30])
    elsewhere.positions += [40.0, -3.0, 7.0]
    found = model.predict([flat, standing, small, elsewhere, periodic()])
    for one, other in (found[:2], found[2:4]):
        for name in ("energy", "forces", "multipoles"):
            assert_close(other[name], one[name], 1e-8, name)
        net = one["forces"].sum(axis=0)
        np.testing.assert_allclose(net, 0.0, atol=1e-8 * np.abs(one["forces"]).max())
    of_crystal = tiny_model(family).using(pbc_handling="pbc").predict([periodic()])[0]
    assert_close(found[-1]["forces"], of_crystal["forces"], 1e-9)
