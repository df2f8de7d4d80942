"""Every solver: known solutions, few evaluations, independence of the batch, hopeless systems."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fixed_point_problems import AffineSystem, affine_system, problem_of, states_of, zeros

from mace_scf_jax import scf
from mace_scf_jax.scf import (
    Anderson,
    Auto,
    Dense,
    Iterate,
    IterativeSolver,
    LinearMixing,
    NewtonKrylov,
    Outcome,
    SolverStatus,
    UnrolledSolver,
    solver_named,
)
from mace_scf_jax.scf.solvers.auto import MEMORY, PATIENCE

CONVERGED = SolverStatus.CONVERGED
SYSTEMS = [affine_system(0, 2, radius=0.5), affine_system(1, 3, radius=3.0)]
"""Linear mixing diverges for the second."""
CHARGES = [0.4, -0.2]
LEVELS = jnp.asarray([0.3, -0.2, 0.0])
SOLVERS = [
    solver_named(name, tolerance=1e-11)
    for name, solver in scf.SOLVERS.items()
    if not issubclass(solver, UnrolledSolver)
]
"""All of the registry that bring strong couplings to their solution."""
MODES = pytest.mark.parametrize("charges", [None, CHARGES], ids=["constant level", "charge"])


def of_type(solvers):
    return pytest.mark.parametrize("solver", solvers, ids=lambda solver: type(solver).__name__)


def long_for_auto(solvers):
    """The solvers, of which the one that is two others compiles longest."""
    return [
        pytest.param(solver, marks=pytest.mark.slow) if isinstance(solver, Auto) else solver
        for solver in solvers
    ]


def find(solver, problem, levels=LEVELS, start=None):
    start = zeros(problem) if start is None else start
    return jax.jit(lambda p: solver.find(problem, p, levels))(start)


def curved(problem):
    """A map with a quadratic term."""
    return dataclasses.replace(problem, map=lambda p, m: problem.map(p, m) - 0.1 * p**2)


@MODES
@of_type(SOLVERS)
def test_solutions_of_affine_maps(solver, charges):
    problem = problem_of(SYSTEMS, charges)
    solution = find(solver, problem)
    if charges is None:
        expected = [s.solution(m) for s, m in zip(SYSTEMS, LEVELS, strict=False)]
        np.testing.assert_array_equal(solution.level, LEVELS)
    else:
        expected, levels = zip(
            *(s.solution_with_charge(q) for s, q in zip(SYSTEMS, charges, strict=True)), strict=True
        )
        np.testing.assert_allclose(solution.level[:2], levels, rtol=1e-9)
        np.testing.assert_allclose(solution.charge_error, 0.0, atol=1e-12)
    found = np.concatenate(states_of(problem, solution.state))
    np.testing.assert_allclose(found, np.concatenate(expected), atol=1e-10)
    np.testing.assert_array_equal(solution.state[~np.asarray(problem.site_mask)], 0.0)
    np.testing.assert_array_equal(solution.status, CONVERGED)
    assert np.all(np.asarray(solution.residual) < 1e-11)
    np.testing.assert_array_equal(solution.history[-1], solution.residual)
    if isinstance(solver, NewtonKrylov | Dense):
        np.testing.assert_array_equal(solution.steps, [1, 1, 0])
    if not isinstance(solver, Dense):
        # unknowns of a system, and few more
        most = [6, 8, 1] if charges is None else [8, 10, 2]
        assert np.all(np.asarray(solution.evaluations) <= most)


@of_type(long_for_auto([*SOLVERS, LinearMixing(max_steps=100, mixing=0.4, tolerance=1e-11)]))
def test_the_batch_does_not_matter(solver):
    together = find(solver, curved(problem_of(SYSTEMS, CHARGES)))
    single = curved(problem_of(SYSTEMS[:1], [0.4], room=3))
    alone = find(solver, single, LEVELS[jnp.asarray([0, 2])])
    np.testing.assert_allclose(together.state[0], alone.state[0], atol=1e-12)
    np.testing.assert_allclose(together.level[0], alone.level[0], rtol=1e-12)
    for name in ("status", "steps", "evaluations"):
        assert getattr(together, name)[0] == getattr(alone, name)[0]
    assert together.status[0] == CONVERGED


def hopeless_problem(charges):
    """Two systems with solutions, and four with none, in one batch."""

    def single(eigenvalue, constant, response=-0.2):
        return AffineSystem(
            eigenvalue * np.eye(2), np.asarray([[response], [0.0]]), np.asarray([constant, 0.0])
        )

    systems = [
        affine_system(0, 2, radius=0.5),
        single(-3.0, 0.1),  # mixing with more than a half oscillates ever more
        single(0.2, 0.1, response=0.0),  # at constant charge: no level gives the charge
        single(0.2, np.nan),
        single(0.0, 1.0),  # with the quadratic term: p = p² + 1
        single(1.0, 1.0),  # p = p + 1
    ]
    quadratic = jnp.asarray([0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0])[:, None, None]
    problem = problem_of(systems, charges)
    return dataclasses.replace(problem, map=lambda p, m: problem.map(p, m) + quadratic * p**2)


HOPELESS_SOLVERS = [LinearMixing(max_steps=200, mixing=0.3, tolerance=1e-8), *SOLVERS]


@of_type(HOPELESS_SOLVERS)
def test_hopeless_systems_end_alone_at_constant_level(solver):
    problem = hopeless_problem(None)
    solution = find(solver, problem, jnp.asarray([0.3, 0.1, 0.1, 0.1, 0.0, 0.0, 0.0]))
    assert np.all(np.asarray(solution.status)[[0, 1, 2, 6]] == CONVERGED)
    assert np.all(np.asarray(solution.status)[[3, 4, 5]] != CONVERGED)
    assert solution.status[3] == SolverStatus.DIVERGED
    np.testing.assert_allclose(solution.state[0], SYSTEMS[0].solution(0.3), atol=1e-7)
    np.testing.assert_allclose(solution.state[1, 0], [(0.1 - 0.02) / 4.0, 0.0], atol=1e-7)
    assert np.all(np.isfinite(solution.state))


@of_type(SOLVERS)
def test_hopeless_systems_end_alone_at_constant_charge(solver):
    charges = [0.4, 0.1, 3.0, 0.1, 0.1, 0.1]
    solution = find(solver, hopeless_problem(charges), jnp.zeros(7))
    # p = p + w μ + 1 has the level -1 / w, and p = p² + 1 + w μ one for every charge
    assert np.all(np.asarray(solution.status)[[0, 1, 4, 5, 6]] == CONVERGED)
    assert np.all(np.asarray(solution.status)[[2, 3]] != CONVERGED)
    np.testing.assert_allclose(solution.level[4:6], [(0.1 - 1.01) / -0.2, 5.0], rtol=1e-8)
    expected, _ = SYSTEMS[0].solution_with_charge(0.4)
    np.testing.assert_allclose(solution.state[0], expected, atol=1e-9)
    assert np.all(np.isfinite(solution.state))
    assert np.all(np.isfinite(solution.level))


def test_auto_hands_over_to_newton():
    """More strong couplings than Anderson acceleration remembers steps."""
    problem = problem_of([affine_system(3, 20, radius=6.0), SYSTEMS[0]], None)
    cheap = find(Anderson(memory=MEMORY, patience=PATIENCE), problem)
    solution = find(Auto(), problem)
    np.testing.assert_array_equal(cheap.status == CONVERGED, [False, True, True])
    np.testing.assert_array_equal(solution.status, CONVERGED)
    image = problem.evaluate(solution.state, solution.level)
    np.testing.assert_allclose(image, solution.state, atol=1e-6)
    assert solution.evaluations[0] > cheap.evaluations[0] + 40
    assert solution.evaluations[1] <= cheap.evaluations[1]


@of_type(long_for_auto([NewtonKrylov(tolerance=1e-11), Auto(tolerance=1e-11)]))
def test_warm_start_takes_no_step(solver):
    problem = curved(problem_of(SYSTEMS, None))
    solution = find(solver, problem)
    again = find(dataclasses.replace(solver, tolerance=1e-10), problem, start=solution.state)
    np.testing.assert_array_equal(again.steps, 0)
    np.testing.assert_array_equal(again.state, solution.state)
    assert np.all(np.asarray(again.evaluations) == 1)


@of_type(long_for_auto(SOLVERS))
def test_no_steps(solver):
    problem = problem_of(SYSTEMS, CHARGES)
    solution = find(dataclasses.replace(solver, max_steps=0), problem)
    np.testing.assert_array_equal(solution.state, 0.0)
    expected = [SolverStatus.MAX_STEPS, SolverStatus.MAX_STEPS, CONVERGED]
    np.testing.assert_array_equal(solution.status, expected)
    assert solution.history.shape[1] == 3


def test_single_precision():
    """The tolerance is below what the numbers resolve, and is not taken literally."""
    problem = problem_of(SYSTEMS, CHARGES)
    single = dataclasses.replace(
        problem,
        map=lambda p, m: problem.map(p.astype(float), m.astype(float)).astype(jnp.float32),
        charge=problem.charge.astype(jnp.float32),
    )
    start = zeros(problem).astype(jnp.float32)
    solution = find(Auto(), single, LEVELS.astype(jnp.float32), start)
    assert solution.state.dtype == solution.level.dtype == jnp.float32
    np.testing.assert_array_equal(solution.status, CONVERGED)
    expected = [s.solution_with_charge(q)[0] for s, q in zip(SYSTEMS, CHARGES, strict=True)]
    found = np.concatenate(states_of(problem, solution.state))
    np.testing.assert_allclose(found, np.concatenate(expected), atol=1e-5)


@pytest.mark.parametrize(
    ("solver", "changes", "message"),
    [
        (Auto, {"max_steps": -1}, "max_steps: expected 0 or more, found -1"),
        (Dense, {"tolerance": 0.0}, "tolerance: expected a positive number, found 0.0"),
        (NewtonKrylov, {"krylov_steps": 0}, "krylov_steps: expected 1 or more, found 0"),
        (Anderson, {"memory": 0}, "memory: expected 1 or more, found 0"),
        (Anderson, {"patience": 0}, "patience: expected 1 or more, or None, found 0"),
    ],
)
def test_settings_that_make_no_sense(solver, changes, message):
    with pytest.raises(ValueError, match=message):
        solver(**changes)


@scf.SOLVERS.add
@dataclasses.dataclass(frozen=True)
class HalfSteps(IterativeSolver):
    """z ← z - ½ R(z): a solver from outside of the package, with what is public only."""

    name = "half_steps"

    def init(self, equations, start, memory):
        residual = equations.residual(start)
        return Iterate(start, residual), self.outcome(equations, start, residual)

    def step(self, equations, current, progress):
        vectors = current.vectors - 0.5 * current.residual
        residual = equations.residual(vectors)
        return Iterate(vectors, residual), self.outcome(equations, vectors, residual)

    def outcome(self, equations, vectors, residual):
        error = equations.error(residual)
        return Outcome.of(
            error,
            converged=equations.is_solved(vectors, residual, self.tolerance),
            diverged=~jnp.isfinite(error),
        )


def test_a_solver_from_outside():
    problem = problem_of([SYSTEMS[0], SYSTEMS[0]], None)
    solver = solver_named("half_steps", max_steps=100, tolerance=1e-11)
    assert solver == HalfSteps(max_steps=100, tolerance=1e-11)
    solution = find(solver, problem)
    np.testing.assert_array_equal(solution.status, CONVERGED)
    np.testing.assert_allclose(solution.state[0], SYSTEMS[0].solution(LEVELS[0]), atol=1e-10)
    np.testing.assert_array_equal(solution.evaluations, solution.steps + 1)
    np.testing.assert_array_equal(solution.history[-1], solution.residual)


def test_solvers_by_name():
    assert list(scf.SOLVERS)[:5] == ["auto", "anderson", "newton_krylov", "dense", "linear_mixing"]
    assert solver_named("linear_mixing", mixing=0.4) == LinearMixing(mixing=0.4)
    with pytest.raises(ValueError, match="did you mean 'anderson'"):
        solver_named("andersen")
    with pytest.raises(ValueError, match="mixing: expected the solver linear_mixing, found dense"):
        solver_named("dense", mixing=0.4)
    with pytest.raises(ValueError, match="solver 'auto': found a second one of that name"):
        scf.SOLVERS.add(type("Automatic", (Auto,), {}))
