"""The mode ``linearize_solve`` as the PyTorch reference computes it: one Newton step, one matrix.

From the solution z₀ = (p, μ), held fixed, z₁ = z₀ - (∂R/∂z)⁻¹ R(z₀) with the residual R and its
Jacobian for the whole batch. First derivatives of z₁ are those of the solution. Second derivatives,
which gradients of force losses need, are so only if R is affine in z: for other updates these
gradients of the reference are off, by 1e-4 in the reference files.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from mace_scf_jax.graph import Graph
from mace_scf_jax.models import FixedPoint, SelfConsistency
from mace_scf_jax.models.families.fixed_point.self_consistency import (
    fixed_point_problem,
    initial_state,
    solved_observables,
)
from mace_scf_jax.scf import solve

Parameters = dict[str, Any]


def one_newton_step(
    module: FixedPoint, params: Parameters, graph: Graph, how: SelfConsistency
) -> dict[str, Array]:
    """Outputs after one differentiable Newton step at the solution.

    Args:
        module: the model.
        params: its parameters.
        graph: the batch.
        how: solver and initial state; at constant charge.
    """
    local = module.apply({"params": params}, graph, method="local")
    problem = fixed_point_problem(module, params, local, constant_charge=True)
    start = initial_state(module, local, how)
    found = jax.lax.stop_gradient(
        solve(problem, graph.to_slots(start.multipoles), start.fermi_level, solver=how.solver)
    )
    shape = found.state.shape
    size = shape[0] * shape[1]

    def residual(vector: Array) -> Array:
        state, level = vector[:size].reshape(shape), vector[size:]
        missing = problem.charges(state) - problem.charge
        # the level of the padding graph has no equation
        missing = jnp.where(graph.graph_mask, missing, level - found.level)
        difference = state - problem.evaluate(state, level)
        return jnp.concatenate([difference.reshape(-1), missing])

    vector = jnp.concatenate([found.state.reshape(-1), found.level])
    moved = vector - jnp.linalg.solve(jax.jacrev(residual)(vector), residual(vector))
    state, level = moved[:size].reshape(shape), moved[size:]
    solution = dataclasses.replace(
        found, state=state, level=level, argument=state, argument_level=level
    )
    return solved_observables(module, params, local, solution)
