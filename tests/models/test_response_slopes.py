"""The matrix ∂F/∂p of small graphs: the Jacobian of the step, and where there is none."""

from __future__ import annotations

import functools

import jax
import numpy as np
import pytest
from fixed_point_models import BATCH, LEVELS, model, random_multipoles

from mace_scf_jax.models import SelfConsistency, evaluate
from mace_scf_jax.models.families.fixed_point import response_slopes
from mace_scf_jax.scf import SolverStatus

GRAPH = BATCH.replace(fermi_level=LEVELS)


def local_state(module, params):
    return jax.jit(lambda graph: module.apply({"params": params}, graph, method="local"))(GRAPH)


@pytest.mark.parametrize(
    "changes",
    [{}, {"nonlinearity": "MLPNonLinearity"}, {"potential_embedding": "TanhPotentialEmbedding"}],
    ids=["default", "MLP", "tanh"],
)
def test_it_is_the_jacobian_of_the_step(changes):
    module, params = model(**changes)
    local = local_state(module, params)
    multipoles = random_multipoles(GRAPH, seed=2)
    compute = jax.jit(functools.partial(response_slopes.response_slopes, module, params))
    slopes = compute(local, multipoles, LEVELS)

    @jax.jit
    def step(dense):
        levels = GRAPH.to_slots(LEVELS[GRAPH.atom_graph])
        return module.apply({"params": params}, local, dense, levels, method="step")

    dense = GRAPH.to_slots(multipoles)
    expected = jax.jacobian(step)(dense)
    size = dense.shape[1] * dense.shape[2]
    for graph in range(GRAPH.num_graphs):
        block = expected[graph, :, :, graph].reshape(size, size)
        np.testing.assert_allclose(slopes[graph], block, rtol=1e-10, atol=1e-14)
    assert np.any(np.asarray(slopes[0]) != 0.0)


def test_an_affine_model_takes_two_evaluations():
    module, params = model()
    solve = functools.partial(evaluate, module, params, how=SelfConsistency(), forces=False)
    outputs = jax.jit(solve)(GRAPH)
    real = np.asarray(GRAPH.graph_mask)
    np.testing.assert_array_equal(outputs["scf_status"][real], SolverStatus.CONVERGED)
    np.testing.assert_array_equal(outputs["scf_evaluations"][real], 2)


def test_there_is_none_for_many_body_updates_and_large_graphs(monkeypatch):
    module, params = model(update="ManyBodyUpdate")
    local = local_state(module, params)
    assert response_slopes.response_slopes(module, params, local, local.multipoles, LEVELS) is None
    module, params = model()
    local = local_state(module, params)
    monkeypatch.setattr(response_slopes, "MOST_UNKNOWNS", 3)
    assert response_slopes.response_slopes(module, params, local, local.multipoles, LEVELS) is None
