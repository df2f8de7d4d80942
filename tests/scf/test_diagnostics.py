"""Diagnostics: spectral radius and charge response against closed forms."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from fixed_point_problems import AffineSystem, affine_system, problem_of, zeros

from mace_scf_jax.scf import Dense, charge_response, spectral_radius

ROTATION = AffineSystem(
    np.asarray([[0.0, -1.7], [1.7, 0.0]]), np.asarray([[-0.2], [0.1]]), np.zeros(2)
)
"""Its eigenvalues are imaginary."""
SYSTEMS = [affine_system(0, 2, radius=0.5), affine_system(1, 3, radius=3.0), ROTATION]
LEVELS = jnp.asarray([0.3, -0.2, 0.0, 0.0])


def test_spectral_radius():
    problem = problem_of(SYSTEMS, [0.1, 0.2, 0.3], room=4)
    radius = jax.jit(lambda p: spectral_radius(problem, p, LEVELS))(zeros(problem))
    np.testing.assert_allclose(radius, [0.5, 3.0, 1.7, 0.0], rtol=1e-8)
    few = jax.jit(lambda p: spectral_radius(problem, p, LEVELS, steps=3))(zeros(problem))
    assert np.all(np.asarray(few) < 4.0)


def test_charge_response_is_the_slope_of_the_solution():
    problem = problem_of(SYSTEMS, [0.1, 0.2, 0.3], room=4)
    response = jax.jit(lambda p: charge_response(problem, p, LEVELS, solver=Dense()))(
        zeros(problem)
    )
    slopes = [np.sum((s.solution(1.0) - s.solution(0.0))[:, 0]) for s in SYSTEMS]
    np.testing.assert_allclose(response[:3], slopes, rtol=1e-9)
    assert response[3] == 0.0


def test_response_of_a_curved_map_depends_on_the_state():
    base = problem_of(SYSTEMS[:1], None)
    problem = dataclasses.replace(base, map=lambda p, m: base.map(p, m) - p**2)
    radius = [spectral_radius(problem, zeros(base) + shift, LEVELS[:2])[0] for shift in (0.0, 0.25)]
    np.testing.assert_allclose(radius[0], 0.5, rtol=1e-8)
    shifted = SYSTEMS[0].matrix - 0.5 * np.eye(4)
    np.testing.assert_allclose(radius[1], np.max(np.abs(np.linalg.eigvals(shifted))), rtol=1e-8)
