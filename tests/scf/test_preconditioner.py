"""Preconditioned searches: few evaluations, the same solutions and derivatives, bad matrices."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fixed_point_problems import COMPONENTS, affine_system, problem_of, zeros

from mace_scf_jax.scf import (
    Anderson,
    Auto,
    Dense,
    NewtonKrylov,
    SlopePreconditioner,
    SolverStatus,
    solve,
)

SYSTEMS = [affine_system(0, 2, radius=0.5), affine_system(1, 3, radius=3.0)]
CHARGES = [0.4, -0.2]
LEVELS = jnp.asarray([0.3, -0.2, 0.0])
MODES = pytest.mark.parametrize("charges", [None, CHARGES], ids=["constant level", "charge"])
SLOW_MODES = pytest.mark.parametrize(
    "charges",
    [pytest.param(None, marks=pytest.mark.slow), CHARGES],
    ids=["constant level", "charge"],
)
LARGEST = 3
"""Sites of a system."""


def slopes(factor=1.0):
    """∂F/∂p of both systems and of the one that holds the padding."""
    matrices = np.zeros((3, LARGEST * COMPONENTS, LARGEST * COMPONENTS))
    for matrix, system in zip(matrices, SYSTEMS, strict=False):
        size = len(system.matrix)
        matrix[:size, :size] = factor * system.matrix
    return jnp.asarray(matrices)


def problem(charges, matrices):
    return dataclasses.replace(
        problem_of(SYSTEMS, charges, room=LARGEST),
        preconditioner=None if matrices is None else SlopePreconditioner.of_slopes(matrices),
    )


def find(solver, given):
    return jax.jit(lambda p: solver.find(given, p, LEVELS))(zeros(given))


@MODES
@pytest.mark.parametrize(
    "solver", [pytest.param(Auto(), marks=pytest.mark.slow), Anderson(), NewtonKrylov()], ids=type
)
def test_affine_maps_are_solved_by_the_first_step(solver, charges):
    found = find(solver, problem(charges, slopes()))
    expected = find(Dense(tolerance=1e-13), problem(charges, None))
    np.testing.assert_array_equal(found.status, SolverStatus.CONVERGED)
    np.testing.assert_array_equal(found.steps, [1, 1, 0])
    np.testing.assert_allclose(found.state, expected.state, atol=1e-12)
    np.testing.assert_allclose(found.level, expected.level, atol=1e-11)
    if not isinstance(solver, NewtonKrylov):
        np.testing.assert_array_equal(found.evaluations, [2, 2, 1])


@SLOW_MODES
def test_a_rough_preconditioner_changes_the_way_and_not_the_end(charges):
    solver = Anderson(tolerance=1e-12)
    found = find(solver, problem(charges, slopes(0.8)))
    expected = find(solver, problem(charges, None))
    np.testing.assert_array_equal(found.status, SolverStatus.CONVERGED)
    np.testing.assert_allclose(found.state, expected.state, atol=1e-10)


@SLOW_MODES
def test_derivatives_do_not_see_it(charges):
    def state(strength, given):
        scaled = dataclasses.replace(
            given, map=lambda p, m: strength * (given.map(p, m) - 0.01 * p**2)
        )
        solution = solve(scaled, zeros(given), LEVELS, solver=Anderson(tolerance=1e-13))
        value = jnp.sum(jnp.sin(solution.state)) + jnp.sum(solution.level)
        return value, jnp.all(solution.status == SolverStatus.CONVERGED)

    found = []
    for given in (problem(charges, None), problem(charges, slopes())):
        first = jax.grad(functools.partial(state, given=given), has_aux=True)
        (value, converged), second = jax.jit(jax.value_and_grad(first, has_aux=True))(1.0)
        assert converged
        found.append((value, second))
    np.testing.assert_allclose(*found, rtol=1e-8)


@pytest.mark.slow
def test_gradients_of_compiled_searches():
    given = problem(CHARGES, slopes())

    def total(strength):
        scaled = dataclasses.replace(given, map=lambda p, m: strength * given.map(p, m))
        return jnp.sum(solve(scaled, zeros(given), LEVELS).state ** 2)

    value, h = jax.grad(jax.jit(total))(1.0), 1e-5
    np.testing.assert_allclose(value, (total(1.0 + h) - total(1.0 - h)) / (2 * h), rtol=1e-6)


def test_transposed_solutions():
    matrices = slopes()
    made = SlopePreconditioner.of_slopes(matrices)
    right = jnp.asarray(np.random.default_rng(0).normal(size=matrices.shape[:2]))
    for transposed in (False, True):
        solution = made.solve(right, transposed=transposed)
        operator = np.eye(matrices.shape[-1]) - np.asarray(matrices)
        operator = np.swapaxes(operator, 1, 2) if transposed else operator
        np.testing.assert_allclose(np.einsum("sij,sj->si", operator, solution), right, atol=1e-12)


@pytest.mark.parametrize("entry", [1.0, np.nan], ids=["singular", "not a number"])
def test_a_matrix_without_inverse_is_left_out(entry):
    matrices = slopes().at[0].set(entry * jnp.eye(LARGEST * COMPONENTS))
    made = SlopePreconditioner.of_slopes(matrices)
    right = jnp.ones(matrices.shape[:2])
    solution = made.solve(right)
    np.testing.assert_array_equal(solution[0], right[0])
    exact = SlopePreconditioner.of_slopes(slopes()).solve(right)
    np.testing.assert_array_equal(solution[1], exact[1])
    found = find(Anderson(), problem(CHARGES, matrices))
    np.testing.assert_array_equal(found.status, SolverStatus.CONVERGED)


def test_matrices_of_another_size_are_refused():
    given = problem_of(SYSTEMS, None, room=LARGEST + 1)
    given = dataclasses.replace(given, preconditioner=SlopePreconditioner.of_slopes(slopes()))
    message = r"matrices for states of shape \(3, 8\) .* found \(3, 6, 6\)"
    with pytest.raises(ValueError, match=message):
        find(Auto(), given)
