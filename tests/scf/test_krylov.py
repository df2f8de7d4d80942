"""Krylov spaces: linear systems of several sizes, small spaces, singular and broken operators."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from mace_scf_jax.scf.krylov import gmres, restarted_gmres


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


def solutions(matrices, right):
    return np.linalg.solve(matrices, right[..., None])[..., 0]


def test_gmres_solves_every_system():
    matrices, right = random_systems([1, 3, 6, 2])
    solution, steps, residual = jax.jit(
        lambda b: gmres(
            lambda x: jnp.einsum("sij,sj->si", matrices, x), b, max_steps=10, tolerance=1e-12
        )
    )(right)
    np.testing.assert_allclose(solution, solutions(matrices, right), atol=1e-10)
    # no more than the size of the system
    np.testing.assert_array_equal(steps, [1, 3, 6, 0])
    assert np.all(np.asarray(residual) < 1e-12)


def test_the_estimated_residual_is_the_residual():
    matrices, right = random_systems([8, 8, 8])
    for tolerance in (0.3, 1e-2):
        solution, _, residual = gmres(
            lambda x: jnp.einsum("sij,sj->si", matrices, x),
            right,
            max_steps=8,
            tolerance=tolerance,
        )
        left = np.linalg.norm(right - np.einsum("sij,sj->si", matrices, solution), axis=-1)
        expected = residual * np.linalg.norm(right, axis=-1)
        np.testing.assert_allclose(left, expected, atol=1e-12)
        assert np.all(np.asarray(residual) <= tolerance)


def test_small_krylov_spaces_are_started_anew():
    matrices, right = random_systems([20, 12, 2], seed=1)
    matrices = jnp.eye(20) + 0.1 * (matrices - 2 * jnp.eye(20))
    solution = jax.jit(
        lambda b: restarted_gmres(
            lambda x: jnp.einsum("sij,sj->si", matrices, x), b, max_steps=8, tolerance=1e-12
        )
    )(right)
    np.testing.assert_allclose(solution, solutions(matrices, right), atol=1e-11)


def test_singular_and_broken_systems_stay_by_themselves():
    matrices = jnp.asarray([np.diag([1.0, 0.0]), np.diag([2.0, 1.0]), np.diag([np.nan, 1.0])])
    solution, _, residual = gmres(
        lambda x: jnp.einsum("sij,sj->si", matrices, x),
        jnp.asarray([[1.0, 1.0], [1.0, 0.0], [1.0, 1.0]]),
        max_steps=3,
        tolerance=1e-12,
    )
    np.testing.assert_allclose(solution[1], [0.5, 0.0])
    assert np.all(np.isfinite(solution))
    assert residual[0] > 0.5
