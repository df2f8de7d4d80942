"""What earlier searches have learned: it saves evaluations, and wrong memories do no harm."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fixed_point_problems import affine_system, problem_of, zeros

from mace_scf_jax.scf import Anderson, JacobianMemory, NewtonKrylov, SolverStatus
from mace_scf_jax.scf.jacobian_memory import INDEPENDENT_OF_NEWER, forget

SYSTEMS = [affine_system(0, 2, radius=0.5), affine_system(1, 3, radius=3.0)]
CHARGES = [0.4, -0.2]
DOUBLE = jnp.dtype(float)
LEVELS = jnp.asarray([0.3, -0.2, 0.0])
MODES = pytest.mark.parametrize("charges", [None, CHARGES], ids=["constant level", "charge"])


def moving(charges, time):
    """A problem that changes smoothly: the constant a lot, the matrices hardly."""
    problem = problem_of(SYSTEMS, charges)
    index = np.zeros((*problem.site_mask.shape, 2))
    index[0, :2], index[1] = np.arange(4.0).reshape(2, 2), np.arange(4.0, 10.0).reshape(3, 2)
    constant = jnp.where(problem.site_mask[:, :, None], jnp.sin(index + time), 0.0)
    return dataclasses.replace(
        problem, map=lambda p, m: (1.0 + 0.01 * time) * problem.map(p, m) + constant
    )


def empty(charges):
    return JacobianMemory.empty(3, 6 if charges is None else 7, DOUBLE)


@functools.cache
def searches(solver, has_charges):
    """Compiled searches without and with a memory, at a time."""
    charges = CHARGES if has_charges else None

    def start():
        return zeros(moving(charges, 0.0)), LEVELS

    without = jax.jit(lambda time: solver.find(moving(charges, time), *start()))
    with_memory = jax.jit(lambda time, memory: solver.find(moving(charges, time), *start(), memory))
    return without, with_memory


@MODES
def test_the_next_search_is_almost_newtons_method(charges):
    cold, warm = searches(Anderson(tolerance=1e-9), charges is not None)
    memory, counts = empty(charges), []
    for time in 0.1 * np.arange(8):
        expected, found = cold(time), warm(time, memory)
        np.testing.assert_array_equal(found.status, SolverStatus.CONVERGED)
        np.testing.assert_allclose(found.state, expected.state, atol=1e-7)
        np.testing.assert_allclose(found.level, expected.level, atol=1e-6)
        memory = found.memory
        counts.append((np.asarray(expected.evaluations)[:2], np.asarray(found.evaluations)[:2]))
    np.testing.assert_array_equal(*counts[0])  # nothing was learned before
    before, after = (np.sum(which, axis=0) for which in zip(*counts[2:], strict=True))
    assert np.all(after <= 0.75 * before)


def test_wrong_memories_do_no_harm():
    cold, warm = searches(Anderson(tolerance=1e-9), True)
    rng = np.random.default_rng(0)
    nonsense = jax.tree.map(
        lambda leaf: jnp.asarray(rng.normal(size=leaf.shape)) if leaf.dtype == float else leaf,
        empty(CHARGES),
    )
    found = warm(0.3, nonsense)
    np.testing.assert_array_equal(found.status, SolverStatus.CONVERGED)
    np.testing.assert_allclose(found.state, cold(0.3).state, atol=1e-7)


def test_solvers_that_learn_nothing_hand_it_on():
    def search(memory):
        problem = moving(None, 0.0)
        found = NewtonKrylov().find(problem, zeros(problem), LEVELS, memory)
        assert found.memory is memory
        return found

    jax.eval_shape(search, empty(None))  # nothing has to be compiled


def test_pairs_say_the_same_when_they_are_orthonormal():
    rng = np.random.default_rng(0)
    jacobian, steps = rng.normal(size=(6, 6)), rng.normal(size=(1, 4, 6))
    steps[0, 1] = steps[0, 3] + 0.1 * INDEPENDENT_OF_NEWER * rng.normal(size=6)
    memory = JacobianMemory.empty(1, 6, DOUBLE)
    for step in jnp.asarray(np.moveaxis(steps, 1, 0)):
        memory = memory.with_pair(step, step @ jacobian.T, jnp.asarray([True]))
    pairs = memory.orthonormal(5)
    found, changes = pairs.steps, pairs.changes
    np.testing.assert_allclose(found @ jacobian.T, changes, atol=1e-12)
    # one of five is missing, and one says nothing that a later one does not
    np.testing.assert_allclose(changes[0] @ changes[0].T, np.diag([0, 1, 0, 1, 1]), atol=1e-12)
    latest = steps[0, 3] / np.linalg.norm(steps[0, 3] @ jacobian.T)
    np.testing.assert_allclose(found[0, 4], latest, atol=1e-12)
    assert not np.any(forget(memory, jnp.asarray([True])).orthonormal(5).changes)
