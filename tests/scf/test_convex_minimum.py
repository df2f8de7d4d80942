"""Minima of convex functions at a fixed sum: independent minimiser, status, derivatives."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from mace_scf_jax.scf import LinearSolver, SolverStatus, convex_minimum, quadratic_minimum

SIZE = 6
MASK = jnp.asarray([True, True, False, True, True, True])
NORMAL = jnp.asarray([1.0, 0.0, 1.0, 2.0, 1.0, 0.0])
"""Some unknowns are free of the constraint."""


def matrix_and_slope(seed=0):
    rng = np.random.default_rng(seed)
    factor = rng.normal(size=(SIZE, SIZE))
    matrix = factor @ factor.T + 0.5 * np.eye(SIZE)
    return jnp.asarray(matrix), jnp.asarray(5.0 * rng.normal(size=SIZE))


def rest(slope, strength):
    return lambda x: slope @ x + 0.25 * strength * jnp.sum(x**2) ** 2


def minimum(matrix, slope, strength, total, solver=LinearSolver.DENSE, **options):
    return convex_minimum(
        lambda x: matrix @ x,
        rest(slope, strength),
        NORMAL,
        MASK,
        jnp.asarray(total),
        solver=solver,
        **options,
    )


@pytest.mark.parametrize("solver", LinearSolver)
@pytest.mark.parametrize("strength", [0.1, 100.0])
def test_minimum_is_that_of_another_minimiser(solver, strength):
    matrix, slope = matrix_and_slope()
    result = jax.jit(lambda a, b: minimum(a, b, strength, 0.7, solver))(matrix, slope)
    assert result.status == SolverStatus.CONVERGED
    assert 2 <= result.steps <= 20
    kept = np.flatnonzero(MASK)
    curved, falling, normal = np.asarray(matrix)[np.ix_(kept, kept)], slope[kept], NORMAL[kept]

    def value(x):
        return 0.5 * x @ curved @ x + falling @ x + 0.25 * strength * (x @ x) ** 2

    def gradient(x):
        return curved @ x + falling + strength * (x @ x) * x

    expected = scipy.optimize.minimize(
        value,
        np.zeros(len(kept)),
        jac=gradient,
        method="SLSQP",
        constraints={"type": "eq", "fun": lambda x: normal @ x - 0.7, "jac": lambda x: normal},
        options={"ftol": 1e-16, "maxiter": 500},
    )
    np.testing.assert_allclose(result.unknowns[kept], expected.x, atol=1e-6)
    np.testing.assert_allclose(
        gradient(np.asarray(result.unknowns)[kept]), result.multiplier * normal, atol=1e-9
    )
    np.testing.assert_allclose(NORMAL @ result.unknowns, 0.7, atol=1e-14)
    assert result.unknowns[2] == 0.0
    assert result.residual < 1e-9


def test_a_quadratic_function_takes_one_step():
    matrix, slope = matrix_and_slope()
    ones = jnp.ones(SIZE)
    result = convex_minimum(
        lambda x: matrix @ x,
        lambda x: slope @ x,
        ones,
        MASK,
        jnp.asarray(0.7),
        solver=LinearSolver.DENSE,
    )
    linear = quadratic_minimum(
        lambda x: matrix @ x,
        lambda x: slope @ x,
        ones,
        MASK,
        jnp.asarray(0.7),
        solver=LinearSolver.DENSE,
    )
    assert result.steps == 1
    np.testing.assert_allclose(result.unknowns, linear.unknowns, atol=1e-12)
    np.testing.assert_allclose(result.multiplier, linear.multiplier, rtol=1e-12)


def test_nothing_to_minimise():
    matrix, slope = matrix_and_slope()
    result = convex_minimum(
        lambda x: matrix @ x,
        rest(slope, 1.0),
        NORMAL,
        jnp.zeros(SIZE, dtype=bool),
        jnp.asarray(0.0),
        solver=LinearSolver.DENSE,
    )
    np.testing.assert_array_equal(result.unknowns, 0.0)
    assert result.status == SolverStatus.CONVERGED
    assert result.steps == 0


def test_failures_are_told():
    matrix, slope = matrix_and_slope()
    stopped = minimum(matrix, slope, 100.0, 0.7, max_steps=2)
    assert stopped.status == SolverStatus.MAX_STEPS
    assert stopped.steps == 2
    assert stopped.residual > 1e-3
    assert minimum(-matrix, slope, 0.0, 0.7).status == SolverStatus.SINGULAR


@pytest.mark.parametrize(
    "solver",
    [LinearSolver.DENSE, pytest.param(LinearSolver.CONJUGATE_GRADIENTS, marks=pytest.mark.slow)],
)
def test_derivatives_of_the_unknowns_are_right_to_third_order(solver):
    matrix, slope = matrix_and_slope()
    weights = jnp.asarray(np.random.default_rng(1).normal(size=SIZE))

    def projection(scale):
        curved = matrix * (1.0 + scale) + jnp.diag(jnp.sin(3.0 * scale + jnp.arange(6.0)) ** 2)
        strength = jnp.exp(scale)
        result = minimum(curved, slope * jnp.cos(scale), strength, 0.3 + scale, solver)
        return weights @ result.unknowns + result.multiplier

    functions = [projection]
    for _ in range(3):
        functions.append(jax.grad(functions[-1]))
    step = 1e-5
    for function, derivative in itertools.pairwise(functions):
        upper, lower = (jax.jit(function)(jnp.asarray(0.2 + s)) for s in (step, -step))
        np.testing.assert_allclose(
            jax.jit(derivative)(jnp.asarray(0.2)), (upper - lower) / (2.0 * step), rtol=1e-6
        )


def test_systems_are_solved_each_on_its_own():
    matrix, _ = matrix_and_slope()
    slopes = jnp.stack([matrix_and_slope(seed)[1] * (seed + 1.0) for seed in (1, 2)])
    together = jax.vmap(lambda b: minimum(matrix, b, 3.0, 1.0))(slopes)
    for index in range(2):
        alone = minimum(matrix, slopes[index], 3.0, 1.0)
        np.testing.assert_allclose(together.unknowns[index], alone.unknowns, atol=1e-12)
        assert together.steps[index] == alone.steps
