"""Solved fixed-point models: forces and stress, warm starts, initial states, the direct step."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fixed_point_models import BATCH, LEVELS, NUM_ATOMS, model, one_step, random_multipoles

from mace_scf_jax.models import DirectStep, SCFState, SelfConsistency, evaluate
from mace_scf_jax.scf import Anderson, Auto, Dense, LinearMixing, NewtonKrylov, SolverStatus

SLOW = pytest.mark.slow
TIGHT = Dense(tolerance=1e-12)
"""Where the solver does not matter: it compiles fastest. The charge of a random model hardly
answers to the level."""
MODULE, PARAMS = model()
REFERENCE = random_multipoles(BATCH, seed=4)
GRAPH = BATCH.replace(fermi_level=LEVELS, labels={"atomic_multipoles": REFERENCE})


@functools.cache
def evaluation(how, **derivatives):
    """A compiled evaluation of a batch, from a state if there is one."""
    return jax.jit(
        lambda graph, start=None: evaluate(
            MODULE, PARAMS, graph, how=how, start=start, **derivatives
        )
    )


@functools.cache
def charges():
    """Charges within reach, because the response of a random model is weak."""
    answer, _ = jax.jit(functools.partial(one_step, MODULE, PARAMS))(GRAPH, REFERENCE)
    return GRAPH.sum_atoms(answer[:, 0]) + jnp.where(GRAPH.graph_mask, 1e-3, 0.0)


def graph():
    return GRAPH.replace(total_charge=charges())


def random_direction(shape, seed=5):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


@pytest.mark.parametrize("constant_charge", [pytest.param(False, marks=SLOW), True])
def test_forces_and_stress_are_total_derivatives(constant_charge):
    how = SelfConsistency(TIGHT, constant_charge=constant_charge)
    outputs = evaluation(how, stress=True)(graph())
    np.testing.assert_array_equal(outputs["scf_status"], SolverStatus.CONVERGED)
    if constant_charge:
        np.testing.assert_allclose(outputs["total_charge"], charges(), atol=1e-10)
    else:
        np.testing.assert_array_equal(outputs["fermi_level"], LEVELS)
    motion = jnp.where(GRAPH.atom_mask[:, None], random_direction((GRAPH.num_atoms, 3)), 0.0)
    strain = 0.1 * random_direction((GRAPH.num_graphs, 3, 3), seed=6)
    strain = jnp.where(GRAPH.graph_mask[:, None, None], strain + jnp.swapaxes(strain, 1, 2), 0.0)
    energy, h = evaluation(how, forces=False), 2e-5

    def at(step):
        moved = graph().replace(positions=GRAPH.positions + step * motion)
        return jnp.sum(energy(moved.strained(step * strain))["energy"])

    expected = (at(h) - at(-h)) / (2 * h)
    actual = -jnp.vdot(outputs["forces"], motion) - jnp.vdot(outputs["virials"], strain)
    np.testing.assert_allclose(actual, expected, rtol=1e-6)


def test_the_solution_is_where_a_warm_start_stays():
    cold = evaluation(SelfConsistency(TIGHT), stress=True)(graph())
    assert np.all(np.asarray(cold["scf_steps"])[:2] > 0)
    warm = evaluation(SelfConsistency(TIGHT), forces=False)(graph(), SCFState.of(cold))
    np.testing.assert_array_equal(warm["scf_steps"], 0)
    for name in ("energy", "multipoles", "fermi_level"):
        np.testing.assert_allclose(warm[name], cold[name], rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize(
    ("density", "level"),
    [("from_data", "zero"), pytest.param("zero", "from_data", marks=SLOW)],
)
def test_the_start_does_not_matter(density, level):
    how = SelfConsistency(TIGHT, initial_density=density, initial_fermi_level=level)
    expected = evaluation(SelfConsistency(TIGHT), forces=False)(graph())
    outputs = evaluation(how, forces=False)(graph())
    for name in ("energy", "multipoles", "fermi_level"):
        np.testing.assert_allclose(outputs[name], expected[name], rtol=1e-7, atol=1e-7)


def test_a_warm_start_does_not_change_given_levels():
    how = SelfConsistency(TIGHT, constant_charge=False)
    start = SCFState(REFERENCE, LEVELS + 1.0)
    outputs = evaluation(how, forces=False)(graph(), start)
    np.testing.assert_array_equal(outputs["fermi_level"], LEVELS)


def test_padding_gets_nothing():
    outputs = evaluation(SelfConsistency(TIGHT), stress=True)(graph())
    for name, values in outputs.items():
        if values.shape[0] == GRAPH.num_atoms:
            np.testing.assert_array_equal(values[NUM_ATOMS:], 0.0, err_msg=name)
        elif values.shape[0] == GRAPH.num_graphs:
            np.testing.assert_array_equal(values[2:], 0.0, err_msg=name)


def test_one_direct_step_from_the_reference():
    """Forces are derivatives of the energy at fixed reference multipoles."""
    direct = jax.jit(lambda graph: evaluate(MODULE, PARAMS, graph, how=DirectStep()))
    outputs = direct(GRAPH)
    answer, expected = jax.jit(functools.partial(one_step, MODULE, PARAMS))(GRAPH, REFERENCE)
    np.testing.assert_allclose(outputs["multipoles"], answer, rtol=1e-12)
    np.testing.assert_allclose(outputs["energy"], expected["energy"], rtol=1e-12)
    np.testing.assert_array_equal(outputs["fermi_level"], LEVELS)
    motion, h = random_direction((GRAPH.num_atoms, 3)), 1e-4
    motion = jnp.where(GRAPH.atom_mask[:, None], motion, 0.0)
    one, minus_one, two, minus_two = (
        jnp.sum(direct(GRAPH.replace(positions=GRAPH.positions + s * h * motion))["energy"])
        for s in (1, -1, 2, -2)
    )
    expected = (8.0 * (one - minus_one) - (two - minus_two)) / (12.0 * h)
    np.testing.assert_allclose(-jnp.vdot(outputs["forces"], motion), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"initial_density": "guess"}, "expected local_guess or from_data or zero, found 'guess'"),
        ({"initial_fermi_level": "offset"}, "expected from_data or zero, found 'offset'"),
    ],
)
def test_unknown_starts(changes, message):
    with pytest.raises(ValueError, match=message):
        SelfConsistency(**changes)


def test_starts_that_need_labels():
    for how in (SelfConsistency(initial_density="from_data"), DirectStep()):
        with pytest.raises(ValueError, match="expected a batch with reference multipoles"):
            jax.eval_shape(functools.partial(evaluate, MODULE, PARAMS, how=how), BATCH)


@pytest.mark.parametrize(
    "solver",
    [
        pytest.param(LinearMixing(max_steps=2000, mixing=0.3, tolerance=1e-11), marks=SLOW),
        pytest.param(LinearMixing(max_steps=2000, mixing=0.8, tolerance=1e-11), marks=SLOW),
        Anderson(tolerance=1e-11),
        pytest.param(NewtonKrylov(tolerance=1e-11), marks=SLOW),
        pytest.param(Auto(tolerance=1e-11), marks=SLOW),
    ],
    ids=repr,
)
def test_forces_and_stress_do_not_depend_on_the_solver(solver):
    expected = evaluation(SelfConsistency(TIGHT), stress=True)(graph())
    outputs = evaluation(SelfConsistency(solver), stress=True)(graph())
    np.testing.assert_array_equal(outputs["scf_status"], SolverStatus.CONVERGED)
    for name in ("energy", "forces", "stress", "multipoles"):
        scale = np.max(np.abs(expected[name]))
        np.testing.assert_allclose(outputs[name], expected[name], atol=1e-8 * scale, rtol=0)
