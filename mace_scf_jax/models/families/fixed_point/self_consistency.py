"""Fixed-point models handed to the solvers, and everything that follows from a solved state.

The multipoles and the Fermi level of a batch are functions of positions, cell and parameters,
defined by the equations of `fixed_point_problem`. Forces and stress are total derivatives of the
energy at the solution: they contain the response of both.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mace_scf_jax.graph import Graph
from mace_scf_jax.models.families.fixed_point.choices import InitialDensity, InitialFermiLevel
from mace_scf_jax.models.families.fixed_point.model import FixedPoint, LocalState
from mace_scf_jax.models.families.fixed_point.response_slopes import response_slopes
from mace_scf_jax.models.families.fixed_point.solved_state import (
    DirectStep,
    SelfConsistency,
    solve_state,
)
from mace_scf_jax.scf import (
    FixedPointProblem,
    FixedPointSolution,
    JacobianMemory,
    SlopePreconditioner,
)

Parameters = dict[str, Any]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SCFState:
    """Multipoles and Fermi levels to start from, such as those of the geometry before."""

    multipoles: Float[Array, "atoms components"]
    """p in e Å^l."""
    fermi_level: Float[Array, "graphs"]
    """μ in eV."""
    memory: JacobianMemory | None = None
    """What the search for it has learned. A search that is given one saves evaluations, and its
    outputs have the next one as ``scf_memory``."""

    @classmethod
    def of(cls, outputs: dict[str, Any]) -> SCFState:
        """The state that the outputs of a self-consistent model belong to."""
        return cls(outputs["multipoles"], outputs["fermi_level"], outputs.get("scf_memory"))

    def with_memory(self, graph: Graph, how: SelfConsistency) -> SCFState:
        """The state with a memory, which is empty if it has none.

        Args:
            how: charge mode.
        """
        if self.memory is not None:
            return self
        size = graph.slots.shape[1] * self.multipoles.shape[1] + int(how.constant_charge)
        memory = JacobianMemory.empty(graph.num_graphs, size, self.multipoles.dtype)
        return dataclasses.replace(self, memory=memory)


def fixed_point_problem(
    module: FixedPoint,
    params: Parameters,
    local: LocalState,
    *,
    constant_charge: bool,
    near: SCFState | None = None,
) -> FixedPointProblem:
    """The equations that the multipoles of a batch solve; its sites are the slots of the graphs.

    Args:
        constant_charge: solve for the Fermi levels that give the total charges of the batch;
            otherwise Fermi levels are given.
        near: where the search starts, for the preconditioner of small graphs; None for the local
            multipoles.
    """
    graph = local.graph
    multipoles = local.multipoles if near is None else near.multipoles
    levels = jnp.asarray(graph.fermi_level) if near is None else near.fermi_level
    slopes = response_slopes(module, params, local, multipoles, levels)

    def step(multipoles: Array, levels: Array) -> Array:
        return module.apply({"params": params}, local, multipoles, levels, method="step")

    return FixedPointProblem(
        map=step,
        site_mask=jnp.asarray(graph.slot_mask),
        charge=jnp.asarray(graph.total_charge) if constant_charge else None,
        preconditioner=None if slopes is None else SlopePreconditioner.of_slopes(slopes),
    )


def initial_state(module: FixedPoint, local: LocalState, how: SelfConsistency) -> SCFState:
    """Where the search starts.

    Args:
        how: the choice of initial density and Fermi level.

    Raises:
        ValueError: the initial density is that of the data, and the batch has no labels.
    """
    graph, multipoles = local.graph, local.multipoles
    if how.initial_density is InitialDensity.FROM_DATA:
        multipoles = reference_multipoles(graph)
    elif how.initial_density is InitialDensity.ZERO:
        multipoles = jnp.zeros_like(multipoles)
    levels = jnp.asarray(graph.fermi_level)
    if how.initial_fermi_level is InitialFermiLevel.ZERO:
        levels = jnp.full_like(levels, module.settings.own.fermi_level_offset)
    return SCFState(multipoles, jnp.where(graph.graph_mask, levels, 0.0))


def reference_multipoles(graph: Graph) -> Float[Array, "atoms components"]:
    """Reference multipoles of a batch in e Å^l; zero where a structure has none.

    Raises:
        ValueError: the batch was made without labels.
    """
    if "atomic_multipoles" not in graph.labels:
        raise ValueError("expected a batch with reference multipoles, found one without labels")
    return jnp.asarray(graph.labels["atomic_multipoles"])


def solved_observables(
    module: FixedPoint, params: Parameters, local: LocalState, solution: FixedPointSolution
) -> dict[str, Array]:
    """Observables of solved multipoles, with how well they are solved.

    The field readout sees the potential at which the model was evaluated last, as in the
    reference; at convergence that is the potential of the solution.

    Args:
        solution: of its `fixed_point_problem`.

    Returns:
        What `FixedPoint.observables` gives, and per graph ``fermi_level`` in eV; ``scf_status``, a
        `SolverStatus`; ``scf_steps``; ``scf_evaluations`` of the step; ``scf_residual``, a mean
        change of the multipoles; ``scf_charge_error``, wanted charge minus charge in e;
        ``scf_history`` [graphs, steps], the residual of every step, then that of the last one. If
        the solver keeps states, also ``scf_states`` [atoms, steps+1, components] in e Å^l.
    """
    graph, variables = local.graph, {"params": params}
    features: Float[Array, "atoms features"] = module.apply(
        variables,
        local,
        graph.from_slots(solution.argument),
        solution.argument_level[graph.atom_graph],
        method="field_features",
    )
    per_graph = {
        "fermi_level": solution.level,
        "scf_status": solution.status,
        "scf_steps": solution.steps,
        "scf_evaluations": solution.evaluations,
        "scf_residual": solution.residual,
        "scf_charge_error": solution.charge_error,
        "scf_history": solution.history.T,
    }

    states = {}
    if solution.states is not None:
        states["scf_states"] = jax.vmap(graph.from_slots, out_axes=1)(solution.states)

    def of_real_graphs(values: Array) -> Array:
        mask = graph.graph_mask.reshape(-1, *[1] * (values.ndim - 1))
        return jnp.where(mask, values, jnp.zeros_like(values))

    return {
        **module.apply(
            variables, local, graph.from_slots(solution.state), features, method="observables"
        ),
        **{name: of_real_graphs(values) for name, values in per_graph.items()},
        **states,
    }


def solved_outputs(
    module: FixedPoint,
    params: Parameters,
    graph: Graph,
    *,
    how: SelfConsistency,
    start: SCFState | None = None,
) -> dict[str, Array]:
    """Outputs at the solved multipoles, as differentiable functions of batch and parameters.

    Args:
        how: solver, charge mode and initial state.
        start: start from these multipoles and (at constant charge) Fermi levels instead.

    Returns:
        What `solved_observables` gives, and ``scf_fallback``: whether a structure fell back; with
        a memory in ``start``, the next one as ``scf_memory``.
    """
    local = module.apply({"params": params}, graph, method="local")
    initial = initial_state(module, local, how)
    if start is not None:
        levels = start.fermi_level if how.constant_charge else initial.fermi_level
        initial = jax.lax.stop_gradient(SCFState(start.multipoles, levels, start.memory))
    problem = fixed_point_problem(
        module, params, local, constant_charge=how.constant_charge, near=initial
    )
    solution, fell_back = solve_state(
        problem, graph.to_slots(initial.multipoles), initial.fermi_level, how, initial.memory
    )
    outputs: dict[str, Any] = solved_observables(module, params, local, solution)
    if solution.memory is not None:
        outputs["scf_memory"] = solution.memory
    return {**outputs, "scf_fallback": graph.graph_mask & fell_back}


def direct_outputs(module: FixedPoint, params: Parameters, graph: Graph) -> dict[str, Array]:
    """Outputs after one step from the reference multipoles and Fermi levels.

    Args:
        graph: the batch, with labels.

    Returns:
        What `FixedPoint.observables` gives, and ``fermi_level``, the given one.

    Raises:
        ValueError: the batch was made without labels.
    """
    variables, multipoles = {"params": params}, reference_multipoles(graph)
    levels = jnp.asarray(graph.fermi_level)[graph.atom_graph]
    local = module.apply(variables, graph, method="local")
    features = module.apply(variables, local, multipoles, levels, method="field_features")
    answer = module.apply(variables, local, features, method="answer")
    return {
        **module.apply(variables, local, answer, features, method="observables"),
        "fermi_level": jnp.asarray(graph.fermi_level),
    }


@dataclasses.dataclass(frozen=True)
class Iterated:
    """Outputs are those at the solved multipoles, or after one step from those of the data."""

    default: SelfConsistency = dataclasses.field(
        default_factory=lambda: SelfConsistency(initial_fermi_level=InitialFermiLevel.ZERO)
    )

    def outputs(
        self,
        module: FixedPoint,
        params: Parameters,
        graph: Graph,
        *,
        how: SelfConsistency | DirectStep | None = None,
        start: SCFState | None = None,
    ) -> dict[str, Array]:
        """Return what `solved_outputs` or `direct_outputs` does.

        Args:
            graph: the batch; with labels for a `DirectStep`.
            how: settings of the search, those of the class `SelfConsistency` by default.
            start: start from these multipoles and (at constant charge) Fermi levels instead.
        """
        if isinstance(how, DirectStep):
            return direct_outputs(module, params, graph)
        how = SelfConsistency() if how is None else how
        return solved_outputs(module, params, graph, how=how, start=start)


ITERATED = Iterated()
"""How the family solves for its state."""
