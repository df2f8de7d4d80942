"""Newton's method with Krylov spaces: known solutions, one step for affine maps, derivatives."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fixed_point_problems import affine_system, problem_of, zeros

from mace_scf_jax.scf import FixedPointProblem, FixedPointStatus, NewtonKrylov
from mace_scf_jax.scf import solve as solve_fixed_point
from mace_scf_jax.scf.krylov import gmres, restarted_gmres

SETTINGS = NewtonKrylov(max_steps=10, tolerance=1e-11, krylov_steps=12)
SYSTEMS = [affine_system(0, 2, radius=0.5), affine_system(1, 3, radius=3.0)]
"""Linear mixing diverges for the second."""
CHARGES = [0.4, -0.2]
LEVELS = jnp.asarray([0.3, -0.2, 0.0])
MODES = pytest.mark.parametrize("charges", [None, CHARGES], ids=["constant level", "charge"])


def solve(problem, settings=SETTINGS, levels=LEVELS, start=None):
    start = zeros(problem) if start is None else start
    return jax.jit(lambda p: solve_fixed_point(problem, p, levels, solver=settings))(start)


def random_systems(sizes, *, seed=0):
    """Regular matrices and right sides of several sizes; the last right side is zero."""
    rng = np.random.default_rng(seed)
    count, size = len(sizes), max(sizes)
    exists = np.arange(size) < np.asarray(sizes)[:, None]
    matrices = rng.normal(size=(count, size, size)) + 2 * np.eye(size)
    matrices = np.where(exists[:, :, None] & exists[:, None, :], matrices, np.eye(size))
    right = np.where(exists, rng.normal(size=(count, size)), 0.0)
    right[-1] = 0.0
    return jnp.asarray(matrices), jnp.asarray(right)


def test_gmres_solves_every_system():
    matrices, right = random_systems([1, 3, 6, 2])
    solution, steps, residual = jax.jit(
        lambda b: gmres(
            lambda x: jnp.einsum("sij,sj->si", matrices, x), b, max_steps=10, tolerance=1e-12
        )
    )(right)
    expected = np.linalg.solve(matrices, right[..., None])[..., 0]
    np.testing.assert_allclose(solution, expected, atol=1e-10)
    # no more than the size of the system
    np.testing.assert_array_equal(steps, [1, 3, 6, 0])
    assert np.all(np.asarray(residual) < 1e-12)


def test_small_krylov_spaces_are_started_anew():
    matrices, right = random_systems([20, 12, 2], seed=1)
    matrices = jnp.eye(20) + 0.1 * (matrices - 2 * jnp.eye(20))
    solution = jax.jit(
        lambda b: restarted_gmres(
            lambda x: jnp.einsum("sij,sj->si", matrices, x), b, max_steps=8, tolerance=1e-12
        )
    )(right)
    expected = np.linalg.solve(matrices, right[..., None])[..., 0]
    np.testing.assert_allclose(solution, expected, atol=1e-11)


def test_gmres_of_a_singular_system_stays_finite():
    matrices = jnp.asarray([np.diag([1.0, 0.0]), np.diag([2.0, 1.0]), np.diag([jnp.nan, 1.0])])
    solution, _, residual = gmres(
        lambda x: jnp.einsum("sij,sj->si", matrices, x),
        jnp.asarray([[1.0, 1.0], [1.0, 0.0], [1.0, 1.0]]),
        max_steps=3,
        tolerance=1e-12,
    )
    np.testing.assert_allclose(solution[1], [0.5, 0.0])
    assert np.all(np.isfinite(solution))
    assert residual[0] > 0.5


@MODES
def test_an_affine_map_takes_one_step(charges):
    problem = problem_of(SYSTEMS, charges, padding=2)
    solution = solve(problem)
    if charges is None:
        expected = [s.solution(m) for s, m in zip(SYSTEMS, LEVELS, strict=False)]
    else:
        expected, levels = zip(
            *(s.solution_with_charge(q) for s, q in zip(SYSTEMS, charges, strict=True)), strict=True
        )
        np.testing.assert_allclose(solution.level[:2], levels, rtol=1e-9)
        np.testing.assert_allclose(solution.charge_error, 0.0, atol=1e-12)
    np.testing.assert_allclose(solution.state[:5], np.concatenate(expected), atol=1e-10)
    np.testing.assert_array_equal(solution.status, FixedPointStatus.CONVERGED)
    np.testing.assert_array_equal(solution.steps, [1, 1, 0])


def curved_problem(charges):
    """A map with a quadratic term."""
    problem = problem_of(SYSTEMS, charges)
    return dataclasses.replace(problem, map=lambda p, m: problem.map(p, m) - 0.1 * p**2)


@MODES
def test_a_curved_map_in_a_batch_and_alone(charges):
    together = solve(curved_problem(charges))
    np.testing.assert_array_equal(together.status, FixedPointStatus.CONVERGED)
    problem = curved_problem(charges)
    image = problem.evaluate(together.state, together.level)
    np.testing.assert_allclose(image, together.state, atol=1e-10)
    first = problem_of(SYSTEMS[:1], None if charges is None else charges[:1])
    alone = dataclasses.replace(first, map=lambda p, m: first.map(p, m) - 0.1 * p**2)
    solution = solve(alone, levels=LEVELS[jnp.asarray([0, 2])])
    np.testing.assert_allclose(together.state[:2], solution.state, atol=1e-13)
    assert together.steps[0] == solution.steps[0]


def test_warm_start_takes_no_step():
    problem = curved_problem(None)
    solution = solve(problem)
    again = solve(problem, start=solution.state)
    np.testing.assert_array_equal(again.steps, 0)
    np.testing.assert_array_equal(again.state, solution.state)


def test_charge_that_does_not_answer_to_the_level():
    system = dataclasses.replace(SYSTEMS[0], response=0.0 * SYSTEMS[0].response)
    solution = solve(problem_of([system, SYSTEMS[1]], [3.0, -0.2]))
    expected = [FixedPointStatus.SINGULAR, FixedPointStatus.CONVERGED, FixedPointStatus.CONVERGED]
    np.testing.assert_array_equal(solution.status, expected)
    assert np.all(np.isfinite(solution.state))
    assert np.all(np.isfinite(solution.level))


def test_a_map_without_fixed_point_ends():
    """p = p² + 1 has no real solution."""
    problem = FixedPointProblem(
        map=lambda p, m: p**2 + 1.0,
        system_of_site=jnp.zeros(1, int),
        site_mask=jnp.ones(1, bool),
        num_systems=1,
        charge=None,
    )
    solution = solve(problem, levels=jnp.zeros(1))
    assert solution.status[0] in (FixedPointStatus.SINGULAR, FixedPointStatus.MAX_STEPS)
    assert np.all(np.isfinite(solution.state))


@MODES
def test_first_and_second_derivatives(charges):
    """Against finite differences of solutions, in a parameter of the map and in what is given."""

    def loss(x):
        problem = curved_problem(charges)
        scaled = dataclasses.replace(problem, map=lambda p, m: (1.0 + x[0]) * problem.map(p, m))
        levels = LEVELS
        if charges is None:
            levels = LEVELS.at[0].add(x[1])
        else:
            scaled = dataclasses.replace(scaled, charge=problem.charge.at[0].add(x[1]))
        solution = solve_fixed_point(scaled, zeros(problem), levels, solver=SETTINGS)
        return jnp.sum(jnp.sin(solution.state)) + 0.1 * jnp.sum(solution.level**2)

    x, h = jnp.asarray([0.05, 0.02]), 1e-4
    direction = jnp.asarray([1.0, -0.5])
    gradient = jax.jit(jax.grad(loss))
    value = jax.jit(loss)
    ahead, behind = x + h * direction, x - h * direction
    expected = (value(ahead) - value(behind)) / (2 * h)
    np.testing.assert_allclose(jnp.vdot(gradient(x), direction), expected, rtol=1e-6)
    curvature = jax.jit(jax.grad(lambda y: jnp.vdot(jax.grad(loss)(y), direction)))(x)
    expected = (gradient(ahead) - gradient(behind)) / (2 * h)
    np.testing.assert_allclose(curvature, expected, rtol=1e-5)


def test_no_steps_and_settings_that_make_no_sense():
    solution = solve(problem_of(SYSTEMS, CHARGES), NewtonKrylov(max_steps=0))
    np.testing.assert_array_equal(solution.state, 0.0)
    assert solution.status[0] == FixedPointStatus.MAX_STEPS
    for changes, message in (
        ({"max_steps": -1}, "max_steps: expected 0 or more, found -1"),
        ({"krylov_steps": 0}, "krylov_steps: expected 1 or more, found 0"),
        ({"tolerance": 0.0}, "tolerance: expected a positive number, found 0.0"),
    ):
        with pytest.raises(ValueError, match=message):
            NewtonKrylov(**changes)
