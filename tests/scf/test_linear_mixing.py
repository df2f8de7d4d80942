"""Linear mixing: known solutions, charges, rules of ending, derivatives, bad input."""

from __future__ import annotations

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fixed_point_problems import affine_system, problem_of, states_of, zeros

from mace_scf_jax.pytorch.verification.fixed_point import ReferenceMixing
from mace_scf_jax.scf import FixedPointProblem, LinearMixing, SolverStatus

SETTINGS = LinearMixing(max_steps=200, mixing=0.5, tolerance=1e-12)
AS_REFERENCE = ReferenceMixing(max_steps=200, mixing=0.5, tolerance=1e-12)
SYSTEMS = [affine_system(0, 2, radius=0.5), affine_system(1, 3, radius=0.2)]
CHARGES = [0.4, -0.2]
LEVELS = jnp.asarray([0.3, -0.2, 0.0])


def solve(problem, settings=SETTINGS, levels=LEVELS):
    return jax.jit(lambda start: settings.find(problem, start, levels))(zeros(problem))


def test_constant_level():
    problem = problem_of(SYSTEMS, None, room=5)
    solution = solve(problem)
    expected = [system.solution(level) for system, level in zip(SYSTEMS, LEVELS, strict=False)]
    found = np.concatenate(states_of(problem, solution.state))
    np.testing.assert_allclose(found, np.concatenate(expected), atol=1e-11)
    np.testing.assert_array_equal(solution.state[~np.asarray(problem.site_mask)], 0.0)
    np.testing.assert_array_equal(solution.level, LEVELS)
    np.testing.assert_array_equal(solution.status, SolverStatus.CONVERGED)
    assert np.all(np.asarray(solution.residual) < 1e-12)
    # the eigenvalues of the mixed map, 1 - α (1 - λ), tell how many steps it takes
    assert 30 < solution.steps[0] < 120


def test_constant_charge():
    problem = problem_of(SYSTEMS, CHARGES, room=5)
    solution = solve(problem)
    expected, levels = zip(
        *(s.solution_with_charge(q) for s, q in zip(SYSTEMS, CHARGES, strict=True)), strict=True
    )
    found = np.concatenate(states_of(problem, solution.state))
    np.testing.assert_allclose(found, np.concatenate(expected), atol=1e-10)
    np.testing.assert_allclose(solution.level[:2], levels, atol=1e-9)
    np.testing.assert_allclose(solution.charge_error, 0.0, atol=1e-10)
    np.testing.assert_array_equal(solution.status, SolverStatus.CONVERGED)


@pytest.mark.parametrize("charges", [None, CHARGES], ids=["constant level", "constant charge"])
def test_the_batch_does_not_matter(charges):
    together = solve(problem_of(SYSTEMS, charges, room=4))
    for index, system in enumerate(SYSTEMS):
        own_charge = None if charges is None else [charges[index]]
        levels = jnp.asarray([LEVELS[index], 0.0])
        alone = solve(problem_of([system], own_charge), levels=levels)
        own = together.state[index, : system.num_sites]
        np.testing.assert_allclose(own, alone.state[0], atol=1e-14)
        np.testing.assert_allclose(together.level[index], alone.level[0], rtol=1e-13)
        assert together.steps[index] == alone.steps[0]


def test_the_rules_of_the_reference_end_all_systems_together():
    problem = problem_of(SYSTEMS, None)
    own = solve(problem)
    assert own.steps[0] != own.steps[1]
    together = solve(problem, AS_REFERENCE)
    np.testing.assert_array_equal(together.steps, np.max(own.steps))


def test_one_bad_system_ends_alone():
    systems = [SYSTEMS[0], affine_system(2, 3, radius=3.0)]
    problem = problem_of(systems, None, room=4)
    solution = solve(problem)
    expected = [SolverStatus.CONVERGED, SolverStatus.DIVERGED, SolverStatus.CONVERGED]
    np.testing.assert_array_equal(solution.status, expected)
    np.testing.assert_allclose(solution.state[0, :2], SYSTEMS[0].solution(0.3), atol=1e-11)
    assert np.all(np.isfinite(solution.state))
    reference = solve(problem, AS_REFERENCE)
    np.testing.assert_array_equal(reference.status, SolverStatus.DIVERGED)
    np.testing.assert_array_equal(reference.steps, solution.steps[1])


def test_large_charges_of_large_systems_are_no_divergence():
    """40 sites of half a charge: -20 in all."""

    def step(state, levels):
        return jnp.full_like(state, -0.5)

    problem = FixedPointProblem(
        map=step,
        site_mask=jnp.ones((1, 40), bool),
        charge=None,
    )
    level = jnp.zeros(1)
    assert solve(problem, levels=level).status[0] == SolverStatus.CONVERGED
    assert solve(problem, AS_REFERENCE, levels=level).status[0] == SolverStatus.DIVERGED


def test_not_a_number_ends_a_system_with_its_last_state():
    def step(state, levels):
        return jnp.where(jnp.abs(state) > 0.5, jnp.nan, state + 0.4)

    problem = FixedPointProblem(
        map=step,
        site_mask=jnp.ones((1, 1), bool),
        charge=None,
    )
    settings = LinearMixing(max_steps=10, mixing=1.0)
    solution = solve(problem, settings, levels=jnp.zeros(1))
    assert solution.status[0] == SolverStatus.DIVERGED
    np.testing.assert_allclose(solution.state, [[[0.8, 0.8]]])
    assert solution.steps[0] == 2


def test_charge_that_does_not_answer_to_the_level():
    """Nothing is spread, the level moves by one unit a step, and no number is lost."""
    system = dataclasses.replace(SYSTEMS[0], response=0.0 * SYSTEMS[0].response)
    settings = LinearMixing(max_steps=5, mixing=0.5)
    solution = solve(problem_of([system], [3.0]), settings, levels=jnp.zeros(2))
    assert solution.status[0] == SolverStatus.MAX_STEPS
    np.testing.assert_allclose(solution.level, [-5.0, 0.0])
    assert np.all(np.isfinite(solution.state))


def test_no_steps():
    problem = problem_of(SYSTEMS, CHARGES)
    solution = solve(problem, LinearMixing(max_steps=0, mixing=0.5, keep_states=True))
    np.testing.assert_array_equal(solution.state, 0.0)
    np.testing.assert_array_equal(solution.status, SolverStatus.MAX_STEPS)
    assert solution.states.shape == (1, 3, 3, 2)
    # the argument of the step that was not taken has the wanted charges
    np.testing.assert_allclose(problem.charges(solution.argument)[:2], CHARGES, atol=1e-14)


def test_history_and_states_are_those_of_the_steps():
    problem = problem_of(SYSTEMS, None)
    solution = solve(problem, LinearMixing(max_steps=4, mixing=0.5, keep_states=True))
    by_hand = [zeros(problem)]
    for _ in range(4):
        image = problem.evaluate(by_hand[-1], LEVELS)
        by_hand.append(by_hand[-1] + 0.5 * (image - by_hand[-1]))
    np.testing.assert_allclose(solution.states, by_hand, atol=1e-15)
    changes = [problem.mean_size(b - a) for a, b in itertools.pairwise(by_hand)]
    np.testing.assert_allclose(solution.history, changes, atol=1e-15)
    np.testing.assert_array_equal(solution.residual, solution.history[-1])
    np.testing.assert_array_equal(solution.argument, by_hand[-2])


@pytest.mark.parametrize("charges", [None, CHARGES], ids=["constant level", "constant charge"])
def test_derivatives_through_the_loop(charges):
    """First and second, against the closed form of the solution."""
    system = SYSTEMS[0]
    own_charge = None if charges is None else [charges[0]]

    def dipole(strength):
        problem = problem_of([system], own_charge)
        scaled = dataclasses.replace(problem, map=lambda p, m: strength * problem.map(p, m))
        solution = SETTINGS.find(scaled, zeros(problem), LEVELS[:2])
        return jnp.sum(solution.state[:, :, 1] ** 2)

    def closed_form(strength):
        scaled = type(system)(*(strength * part for part in dataclasses.astuple(system)))
        if own_charge is None:
            state = scaled.solution(0.3)
        else:
            state, _ = scaled.solution_with_charge(own_charge[0])
        return np.sum(state[:, 1] ** 2)

    first, second = jax.jit(lambda x: (jax.grad(dipole)(x), jax.grad(jax.grad(dipole))(x)))(
        jnp.asarray(1.0)
    )
    h = 1e-4
    below, at, above = (closed_form(1.0 + shift) for shift in (-h, 0.0, h))
    np.testing.assert_allclose(first, (above - below) / (2 * h), rtol=1e-6)
    np.testing.assert_allclose(second, (above - 2 * at + below) / h**2, rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_steps": -1}, "max_steps: expected 0 or more, found -1"),
        ({"mixing": 0.0}, r"mixing: expected a number in \(0, 1\], found 0.0"),
        ({"mixing": 1.5}, r"mixing: expected a number in \(0, 1\], found 1.5"),
        ({"tolerance": 0.0}, "tolerance: expected a positive number, found 0.0"),
    ],
)
def test_settings_that_make_no_sense(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SETTINGS, **changes)
