"""Self-consistent models in JAX-MD: the steps of ASE, warm-started, heated, under pressure."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase.md.verlet import VelocityVerlet
from jax_md_runs import FREE_SHIFT, STEP, THERMAL_ENERGY, masses, run
from tiny_models import periodic, tiny_model

from mace_scf_jax.models import SelfConsistency
from mace_scf_jax.scf import Dense
from mace_scf_jax.simulate import MACESCFCalculator
from mace_scf_jax.simulate.jax_md_hooks import jax_md_functions, to_box

with jax.numpy_dtype_promotion("standard"):
    pytest.importorskip("jax_md")
    from jax_md import simulate

TIGHT = SelfConsistency(Dense(tolerance=1e-12))


@pytest.fixture(autouse=True)
def promotion_as_jax_md_needs_it():
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture(scope="module")
def model():
    return tiny_model("FixedPoint", scf=TIGHT)


@pytest.fixture(scope="module")
def hooks(model):
    return jax_md_functions(model, periodic(), skin=0.3, largest_strain=0.2)


@pytest.mark.slow
def test_warm_started_steps_within_a_scan_are_those_of_ase(model):
    neighbor_fn, energy_fn = jax_md_functions(model, periodic(), skin=0.3)
    atoms = periodic()
    positions = jnp.asarray(atoms.positions)
    neighbors = neighbor_fn.allocate(positions)
    init, step = simulate.nve(energy_fn, FREE_SHIFT, dt=STEP)
    start = init(jax.random.key(0), positions, kT=THERMAL_ENERGY, mass=masses(), neighbor=neighbors)
    scf_state = energy_fn.results(positions, neighbors, forces=False).scf_state

    @jax.jit
    def simulated(state, neighbors, scf_state):
        def body(carry, _):
            state, neighbors, scf_state = carry
            neighbors = neighbors.update(state.position)
            state = step(state, neighbor=neighbors, start=scf_state)
            found = energy_fn.results(state.position, neighbors, start=scf_state, forces=False)
            return (state, neighbors, found.scf_state), (
                found.converged,
                jnp.sum(found.multipoles[:, 0]),
            )

        return jax.lax.scan(body, (state, neighbors, scf_state), length=20)

    (state, _, _), (converged, charges) = simulated(start, neighbors, scf_state)
    assert np.all(converged)
    np.testing.assert_allclose(charges, atoms.info.get("total_charge", 0.0), atol=1e-10)
    atoms.set_momenta(np.asarray(start.momentum))
    atoms.calc = MACESCFCalculator(model)
    VelocityVerlet(atoms, STEP).run(20)
    assert np.abs(atoms.positions - periodic().positions).max() > 0.05
    np.testing.assert_allclose(state.position, atoms.positions, atol=1e-10)


@pytest.mark.slow
def test_heat_and_pressure(hooks):
    neighbor_fn, energy_fn = hooks
    positions, box = jnp.asarray(periodic().positions), to_box(periodic().cell)
    neighbors = neighbor_fn.allocate(positions)
    init, step = simulate.nvt_langevin(energy_fn, FREE_SHIFT, dt=STEP, kT=THERMAL_ENERGY)
    start = init(jax.random.key(0), positions, mass=masses(), neighbor=neighbors)
    state, neighbors, energies = run(
        step, start, neighbors, 20, lambda state, neighbors: energy_fn(state.position, neighbors)
    )
    assert np.all(np.isfinite(energies))
    assert np.ptp(energies) > 0.0

    init, step = simulate.npt_nose_hoover(
        energy_fn, FREE_SHIFT, dt=STEP, pressure=0.01, kT=THERMAL_ENERGY
    )
    start = init(jax.random.key(0), positions, box, mass=masses(), neighbor=neighbors)

    def invariant(state, neighbors):
        return simulate.npt_nose_hoover_invariant(
            energy_fn, state, 0.01, THERMAL_ENERGY, neighbor=neighbors
        )

    state, _, invariants = run(step, start, neighbors, 60, invariant)
    assert abs(np.linalg.det(state.box) / np.linalg.det(box) - 1.0) > 1e-4
    # what the integrator leaves at this time step, as for other models
    np.testing.assert_allclose(invariants, invariants[0], atol=1e-5)
