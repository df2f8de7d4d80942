"""A self-consistent model in motion: as in ASE, its charge kept, its multipoles warm-started."""

from __future__ import annotations

import numpy as np
import pytest
from ase import units
from ase.md.verlet import VelocityVerlet
from tiny_models import molecule, tiny_model

import mace_scf_jax
from mace_scf_jax.models.families.fixed_point.self_consistency import SelfConsistency
from mace_scf_jax.scf import Anderson
from mace_scf_jax.simulate import MACESCFCalculator
from mace_scf_jax.simulate.settings import SimulationSettings
from mace_scf_jax.simulate.simulation import Simulation

TIGHT = SelfConsistency(Anderson(tolerance=1e-11))


@pytest.fixture(scope="module")
def model():
    return tiny_model("FixedPoint", scf=TIGHT)


@pytest.mark.slow
def test_steps_are_those_of_ase_and_start_from_the_one_before(model):
    cluster = molecule()
    energy_fn, prepare = mace_scf_jax.energy_function(model)
    settings = SimulationSettings("nve", timestep=0.2, temperature=300.0)
    simulation = Simulation(energy_fn, prepare, cluster, settings)
    atoms = simulation.to_atoms()
    simulation.advance(5)

    atoms.calc = MACESCFCalculator(model)
    VelocityVerlet(atoms, settings.timestep * units.fs).run(5)
    np.testing.assert_allclose(simulation.state.positions, atoms.positions, atol=1e-10)
    np.testing.assert_allclose(simulation.state.momenta, atoms.get_momenta(), atol=1e-9)

    context = simulation.state.evaluation.context
    charge = np.asarray(context.start.multipoles)[:, 0].sum()
    assert charge == pytest.approx(float(cluster.info.get("total_charge", 0.0)), abs=1e-9)
    assert np.any(context.start.memory.changes), "searches learned of the Jacobian"
    warm = simulation.observe()
    cold = energy_fn.results(simulation.state.positions, context.neighbours)
    assert bool(warm.converged)
    assert bool(cold.converged)
    assert int(warm.further["scf_steps"]) < int(cold.further["scf_steps"])
    np.testing.assert_allclose(warm.energy, cold.energy, atol=1e-9)
