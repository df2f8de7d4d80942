"""Minima at fixed total: closed forms, both solvers, first and second derivatives."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mace_scf_jax.scf import LinearSolver, quadratic_minimum, stationary_value

SIZE = 6
MASK = jnp.asarray([True, True, False, True, True, True])
SOLVERS = tuple(LinearSolver)


def matrix_and_slope(seed=0):
    """A matrix that is positive definite for charges of zero sum only, and a slope."""
    rng = np.random.default_rng(seed)
    factor = rng.normal(size=(SIZE, SIZE))
    matrix = factor @ factor.T + np.eye(SIZE)
    return jnp.asarray(matrix - 20.0 * np.ones((SIZE, SIZE))), jnp.asarray(rng.normal(size=SIZE))


def minimum(matrix, slope, total, solver):
    return quadratic_minimum(
        lambda q: matrix @ q, lambda q: slope @ q, jnp.ones(SIZE), MASK, total, solver=solver
    )


@pytest.mark.parametrize("solver", SOLVERS)
def test_minimum_solves_the_bordered_system(solver):
    matrix, slope = matrix_and_slope()
    assert np.linalg.eigvalsh(matrix)[0] < 0.0
    result = jax.jit(lambda a, b: minimum(a, b, jnp.asarray(0.7), solver))(matrix, slope)
    kept = np.flatnonzero(MASK)
    bordered = np.zeros((len(kept) + 1, len(kept) + 1))
    bordered[:-1, :-1] = np.asarray(matrix)[np.ix_(kept, kept)]
    bordered[-1, :-1] = bordered[:-1, -1] = 1.0
    expected = np.linalg.solve(bordered, [*-np.asarray(slope)[kept], 0.7])
    np.testing.assert_allclose(result.unknowns[kept], expected[:-1], atol=1e-10)
    np.testing.assert_allclose(result.multiplier, -expected[-1], atol=1e-9)
    np.testing.assert_allclose(jnp.sum(result.unknowns), 0.7, atol=1e-14)
    assert result.unknowns[2] == 0.0
    assert result.residual < 1e-9


def test_nothing_to_minimise():
    matrix, slope = matrix_and_slope()
    none = jnp.zeros(SIZE, dtype=bool)
    for solver in SOLVERS:
        result = quadratic_minimum(
            lambda q: matrix @ q,
            lambda q: slope @ q,
            jnp.ones(SIZE),
            none,
            jnp.asarray(0.0),
            solver=solver,
        )
        np.testing.assert_array_equal(result.unknowns, 0.0)
        np.testing.assert_array_equal([result.multiplier, result.residual], 0.0)


def test_without_a_minimum_the_dense_solver_gives_no_number():
    matrix, slope = matrix_and_slope()
    result = minimum(-matrix, slope, jnp.asarray(0.0), LinearSolver.DENSE)
    assert np.all(np.isnan(result.unknowns[np.asarray(MASK)]))


def energy(scale, solver):
    """Value at the minimum for a matrix and slope that depend on one number."""
    matrix, slope = matrix_and_slope()
    scaled = matrix * (1.0 + scale) + jnp.diag(jnp.sin(3.0 * scale + jnp.arange(6.0)) ** 2)

    def lagrangian(unknowns, parameters):
        charges, multiplier = unknowns
        matrix, slope, total = parameters
        value = 0.5 * charges @ matrix @ charges + slope @ charges
        return value + multiplier * (total - jnp.sum(charges))

    total = 0.3 + scale
    result = minimum(scaled, slope * jnp.cos(scale), total, solver)
    unknowns = (result.unknowns, result.multiplier)
    return stationary_value(lagrangian, unknowns, (scaled, slope * jnp.cos(scale), total))


@pytest.mark.parametrize("solver", SOLVERS)
def test_derivatives_of_the_minimum_are_right_to_third_order(solver):
    functions = [lambda scale: energy(scale, solver)]
    for _ in range(3):
        functions.append(jax.grad(functions[-1]))
    step = 1e-5
    for function, derivative in itertools.pairwise(functions):
        upper, lower = (jax.jit(function)(jnp.asarray(0.2 + s)) for s in (step, -step))
        np.testing.assert_allclose(
            jax.jit(derivative)(jnp.asarray(0.2)), (upper - lower) / (2.0 * step), rtol=1e-7
        )


def test_systems_are_solved_each_on_its_own():
    matrices, slopes = (
        jax.vmap(lambda factor: matrix_and_slope()[0] * factor)(jnp.asarray([1.0, 100.0])),
        jnp.stack([matrix_and_slope(seed)[1] for seed in (1, 2)]),
    )
    for solver in SOLVERS:
        together = jax.vmap(lambda a, b, s=solver: minimum(a, b, jnp.asarray(1.0), s))(
            matrices, slopes
        )
        for index in range(2):
            alone = minimum(matrices[index], slopes[index], jnp.asarray(1.0), solver)
            np.testing.assert_allclose(together.unknowns[index], alone.unknowns, atol=1e-12)
