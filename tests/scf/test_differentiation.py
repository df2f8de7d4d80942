"""Derivatives of solved states: finite differences of first and second order, failed systems."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fixed_point_problems import affine_system, problem_of, states_of, zeros

from mace_scf_jax.scf import (
    Anderson,
    Auto,
    Dense,
    Differentiation,
    LinearMixing,
    NewtonKrylov,
    Solver,
    SolverStatus,
    solve,
)

SYSTEMS = [affine_system(0, 2, radius=0.5), affine_system(1, 3, radius=0.2)]
CHARGES = [0.4, -0.2]
LEVELS = jnp.asarray([0.3, -0.2, 0.0])
MIXING = LinearMixing(max_steps=100, mixing=0.6, tolerance=1e-13)
REMATERIALISED = dataclasses.replace(MIXING, rematerialise=True)
DENSE = Dense(tolerance=1e-12)
"""Compiles fastest, where the solver does not matter."""
COARSE = NewtonKrylov(tolerance=1e-4)
"""Linearising makes its solutions exact."""


def curved(problem, strength):
    """A map with a quadratic term, scaled."""
    return dataclasses.replace(
        problem, map=lambda p, m: strength * (problem.map(p, m) - 0.1 * p**2)
    )


def slope(function, x, direction, h=2e-3):
    """Fourth-order differences of a value and a gradient along a direction."""
    values = [
        np.concatenate([np.ravel(part) for part in function(x + step * h * direction)[:2]])
        for step in (-2, -1, 1, 2)
    ]
    return (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * h)


@pytest.mark.parametrize(
    ("solver", "differentiation", "charges"),
    [
        (MIXING, "unroll", CHARGES),
        (REMATERIALISED, "unroll", None),
        (Auto(tolerance=1e-12), "implicit", CHARGES),
        pytest.param(Auto(tolerance=1e-12), "implicit", None, marks=pytest.mark.slow),
        (DENSE, "implicit", CHARGES),
        pytest.param(COARSE, "linearize_solve", CHARGES, marks=pytest.mark.slow),
        (COARSE, "linearize_solve", None),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Solver) else None,
)
def test_first_and_second_derivatives(solver, differentiation, charges):
    """Against finite differences, in a parameter of the map and in the charge or level."""
    base = problem_of(SYSTEMS, charges, room=4)

    def loss(x):
        problem, levels = curved(base, 1.0 + x[0]), LEVELS
        if charges is None:
            levels = LEVELS.at[0].add(x[1])
        else:
            problem = dataclasses.replace(problem, charge=base.charge.at[0].add(x[1]))
        solution = solve(
            problem,
            zeros(base),
            levels,
            solver=solver,
            differentiation=Differentiation(differentiation),
        )
        return jnp.sum(jnp.sin(solution.state)) + 0.1 * jnp.sum(solution.level**2)

    direction = jnp.asarray([1.0, -0.5])

    def along(x):
        value, gradient = jax.value_and_grad(loss)(x)
        return jnp.vdot(gradient, direction), (value, gradient)

    @jax.jit
    def derivatives(x):
        curvature, (value, gradient) = jax.grad(along, has_aux=True)(x)
        return value, gradient, curvature

    x = jnp.asarray([0.05, 0.02])
    _, gradient, curvature = derivatives(x)
    np.testing.assert_allclose(
        [jnp.vdot(gradient, direction), *curvature], slope(derivatives, x, direction), rtol=1e-6
    )


def test_the_gradient_of_a_compiled_function_is_the_compiled_gradient():
    """What the equations refer to may be arguments of a function compiled before."""
    base = problem_of(SYSTEMS, CHARGES, room=4)

    def loss(x, site_mask):
        problem = curved(dataclasses.replace(base, site_mask=site_mask), 1.0 + x)
        return jnp.sum(jnp.sin(solve(problem, zeros(base), LEVELS, solver=DENSE).state))

    given = jnp.asarray(0.05), base.site_mask
    expected = jax.jit(jax.value_and_grad(jax.grad(loss)))(*given)
    found = jax.value_and_grad(jax.grad(jax.jit(loss)))(*given)
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_what_the_search_left_over_is_removed_by_linearising():
    """Also where mixing diverged: the equations are affine."""
    systems = [SYSTEMS[0], affine_system(1, 3, radius=3.0)]
    problem = problem_of(systems, CHARGES)
    coarse = LinearMixing(max_steps=8, mixing=0.3, tolerance=1e-8)
    solution = jax.jit(
        lambda p: solve(
            problem, p, LEVELS, solver=coarse, differentiation=Differentiation.LINEARIZE_SOLVE
        )
    )(zeros(problem))
    expected = [s.solution_with_charge(q)[0] for s, q in zip(systems, CHARGES, strict=True)]
    found = states_of(problem, solution.state)
    np.testing.assert_allclose(np.concatenate(found), np.concatenate(expected), atol=1e-12)
    np.testing.assert_array_equal(solution.status, SolverStatus.CONVERGED)
    assert np.all(np.asarray(solution.residual) < 1e-13)
    np.testing.assert_allclose(solution.charge_error, 0.0, atol=1e-13)


@pytest.mark.parametrize(
    "differentiation", ["implicit", pytest.param("linearize_solve", marks=pytest.mark.slow)]
)
def test_failed_systems_have_finite_derivatives_and_disturb_no_other(differentiation):
    """One system without solution, one whose map is not a number, one that converges."""
    flat = dataclasses.replace(SYSTEMS[1], response=0.0 * SYSTEMS[1].response)
    broken = dataclasses.replace(SYSTEMS[0], constant=np.full(4, np.nan))
    bad, good = [flat, broken, SYSTEMS[0]], [SYSTEMS[0]]

    def derivatives(systems, charges, levels):
        base = problem_of(systems, charges)

        def loss(scale):
            problem = dataclasses.replace(
                base, map=lambda p, m: scale[:, :, None] * (base.map(p, m) - 0.1 * p**2)
            )
            solution = solve(
                problem,
                zeros(base),
                levels,
                solver=Anderson(tolerance=1e-12),
                differentiation=Differentiation(differentiation),
            )
            squares = jnp.sum(jnp.sin(solution.state) ** 2) + jnp.sum(solution.level**2)
            return squares, solution

        def slope(scale):
            gradient, solution = jax.grad(loss, has_aux=True)(scale)
            return jnp.sum(gradient[-2] ** 2), (gradient, solution)

        scale = jnp.ones(base.site_mask.shape)
        second, (first, solution) = jax.jit(jax.grad(slope, has_aux=True))(scale)
        return first, second, solution

    first, second, solution = derivatives(bad, [9.0, 0.1, 0.4], jnp.zeros(4))
    alone_first, alone_second, alone = derivatives(good, [0.4], jnp.zeros(2))
    assert np.all(np.asarray(solution.status)[[0, 1]] != SolverStatus.CONVERGED)
    assert solution.status[2] == alone.status[0] == SolverStatus.CONVERGED
    np.testing.assert_allclose(solution.state[2, :2], alone.state[0], atol=1e-12)
    np.testing.assert_allclose(first[2, :2], alone_first[0], atol=1e-9)
    np.testing.assert_allclose(second[2, :2], alone_second[0], atol=1e-9)
    assert np.all(np.isfinite(first[0]))
    assert np.any(np.asarray(first[0]) != 0.0)


def test_unrolling_needs_a_solver_with_a_fixed_number_of_steps():
    problem = problem_of(SYSTEMS, None)
    with pytest.raises(ValueError, match=r"with the solver Auto, .* found 'unroll' \(which Linear"):
        solve(problem, zeros(problem), LEVELS, differentiation=Differentiation.UNROLL)
