"""The self-consistent equations of a `FixedPoint` model as a problem for the solvers."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from mace_scf_jax.models.fixed_point import FixedPoint, LocalState
from mace_scf_jax.scf.fixed_point import FixedPointProblem, FixedPointSolution

Parameters = dict[str, Any]


def fixed_point_problem(
    module: FixedPoint, params: Parameters, local: LocalState, *, constant_charge: bool
) -> FixedPointProblem:
    """The equations that the multipoles of a batch solve.

    Args:
        module: the model.
        params: its parameters.
        local: what its method `local` gave.
        constant_charge: solve for the Fermi levels that give the total charges of the batch;
            otherwise Fermi levels are given.
    """

    def step(multipoles: Array, levels: Array) -> Array:
        return module.apply({"params": params}, local, multipoles, levels, method="step")

    graph = local.graph
    return FixedPointProblem(
        map=step,
        system_of_site=jnp.asarray(graph.atom_graph),
        site_mask=jnp.asarray(graph.atom_mask),
        num_systems=graph.num_graphs,
        charge=jnp.asarray(graph.total_charge) if constant_charge else None,
    )


def solved_observables(
    module: FixedPoint, params: Parameters, local: LocalState, solution: FixedPointSolution
) -> dict[str, Array]:
    """Observables of solved multipoles, with how well they are solved.

    The field readout sees the potential at which the model was evaluated last, as in the
    reference; at convergence that is the potential of the solution.

    Args:
        module: the model.
        params: its parameters.
        local: what its method `local` gave.
        solution: of its `fixed_point_problem`.

    Returns:
        What `FixedPoint.observables` gives; ``fermi_level`` in eV; ``scf_status``, a
        `FixedPointStatus`; ``scf_steps``; ``scf_residual``, the mean change of the multipoles in
        the last step. All per graph.
    """
    levels = solution.argument_level[local.graph.atom_graph]
    variables = {"params": params}
    features: Float[Array, "atoms features"] = module.apply(
        variables, local, solution.argument, levels, method="field_features"
    )
    outputs = module.apply(variables, local, solution.state, features, method="observables")
    return {
        **outputs,
        "fermi_level": solution.level,
        "scf_status": solution.status,
        "scf_steps": solution.steps,
        "scf_residual": solution.residual,
    }
