"""The integrators sample what they should, for potentials whose averages are known."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from mace_scf_jax.simulate import dynamics
from mace_scf_jax.simulate.dynamics import (
    Barostat,
    Evaluation,
    EvaluationStatus,
    MotionState,
    Thermostat,
)

THERMAL_ENERGY = 0.03
USABLE = jnp.asarray(int(EvaluationStatus.USABLE))
MASSES = jnp.asarray([1.0, 4.0, 16.0] * 20)


def springs(positions, cell, context):
    """Atoms bound to the origin, and a stress of their own making: none."""
    energy = 0.5 * jnp.sum(positions**2)
    return Evaluation(energy, -positions, jnp.zeros((3, 3)), USABLE, context)


def ideal_gas(positions, cell, context):
    """No forces."""
    zero = jnp.zeros_like(positions)
    return Evaluation(jnp.zeros(()), zero, jnp.zeros((3, 3)), USABLE, context)


def start(evaluate, length=10.0):
    positions = 0.1 * jax.random.normal(jax.random.key(1), (len(MASSES), 3))
    momenta = dynamics.random_momenta(jax.random.key(2), MASSES, jnp.asarray(THERMAL_ENERGY))
    cell = length * jnp.eye(3)
    evaluation = evaluate(positions, cell, None)
    return MotionState(positions, momenta, cell, jax.random.key(0), jnp.zeros(()), evaluation)


def averages(evaluate, observe, *, num_steps, timestep, **baths):
    """Mean of what `observe` tells, over the last nine tenths of a run."""
    make_step = functools.partial(
        dynamics.step, evaluate=evaluate, masses=MASSES, timestep=jnp.asarray(timestep), **baths
    )

    @jax.jit
    def run(state):
        def body(state, _):
            state = make_step(state)
            return state, observe(state)

        return jax.lax.scan(body, state, length=num_steps)

    state, observed = run(start(evaluate))
    return state, jax.tree.map(lambda values: values[num_steps // 10 :].mean(axis=0), observed)


def test_langevin_dynamics_has_equipartition():
    """For springs BAOAB has the exact average potential energy, whatever the time step."""
    thermostat = Thermostat(jnp.asarray(THERMAL_ENERGY), jnp.asarray(1.0))

    def observe(state):
        kinetic = dynamics.kinetic_energy(state.momenta, MASSES)
        return kinetic, state.evaluation.energy, kinetic + state.evaluation.energy - state.heat

    _, (kinetic, potential, conserved) = averages(
        springs, observe, num_steps=40_000, timestep=0.1, thermostat=thermostat
    )
    expected = 1.5 * len(MASSES) * THERMAL_ENERGY
    np.testing.assert_allclose(potential, expected, rtol=0.01)
    np.testing.assert_allclose(kinetic, expected, rtol=0.01)
    first = start(springs)
    initial = first.evaluation.energy + dynamics.kinetic_energy(first.momenta, MASSES)
    np.testing.assert_allclose(conserved, initial, rtol=0.02)


def test_an_ideal_gas_has_its_volume():
    """⟨V⟩ = (N + 1) k_B T / P."""
    expected = 1000.0
    pressure = (len(MASSES) + 1) * THERMAL_ENERGY / expected
    barostat = Barostat(
        jnp.asarray(THERMAL_ENERGY), jnp.asarray(pressure), jnp.asarray(0.1 / pressure)
    )
    thermostat = Thermostat(jnp.asarray(THERMAL_ENERGY), jnp.asarray(1.0))
    _, (mean, square) = averages(
        ideal_gas,
        lambda state: (dynamics.volume(state.cell), dynamics.volume(state.cell) ** 2),
        num_steps=60_000,
        timestep=0.1,
        thermostat=thermostat,
        barostat=barostat,
    )
    np.testing.assert_allclose(mean, expected, rtol=0.03)
    np.testing.assert_allclose(
        np.sqrt(square - mean**2), expected / np.sqrt(len(MASSES) + 1), rtol=0.15
    )


def test_without_baths_it_is_velocity_verlet():
    state = start(springs)
    after = dynamics.step(state, springs, masses=MASSES, timestep=jnp.asarray(0.2))
    velocity = state.momenta / MASSES[:, None]
    acceleration = state.evaluation.forces / MASSES[:, None]
    expected = state.positions + 0.2 * velocity + 0.02 * acceleration
    np.testing.assert_allclose(after.positions, expected, atol=1e-15)
    momenta = state.momenta + 0.1 * (state.evaluation.forces + after.evaluation.forces)
    np.testing.assert_allclose(after.momenta, momenta, atol=1e-15)
    assert float(after.heat) == 0.0


def test_a_run_stops_before_the_first_step_that_is_not_usable():
    def breaks_after_five(positions, cell, count):
        zero = jnp.zeros_like(positions)
        status = jnp.where(count < 5, USABLE, jnp.asarray(int(EvaluationStatus.OUTGROWN)))
        return Evaluation(jnp.zeros(()), zero, None, status, count + 1)

    first = start(lambda positions, cell, _: breaks_after_five(positions, cell, jnp.asarray(0)))
    make_step = functools.partial(
        dynamics.step, evaluate=breaks_after_five, masses=MASSES, timestep=jnp.asarray(1.0)
    )
    run = jax.jit(functools.partial(dynamics.advance, make_step=make_step))
    state, done, status = run(first, jnp.asarray(3))
    assert (int(done), int(status)) == (3, EvaluationStatus.USABLE)
    state, done, status = run(state, jnp.asarray(3))
    assert (int(done), int(status)) == (1, EvaluationStatus.OUTGROWN)
    flown = first.positions + 4.0 * first.momenta / MASSES[:, None]
    np.testing.assert_allclose(state.positions, flown, rtol=1e-12)
    assert int(run(state, jnp.asarray(3))[1]) == 0
