"""Fixed-point models handed to the solvers, and everything that follows from a solved state.

The multipoles and the Fermi level of a batch are functions of positions, cell and parameters,
defined by the equations of `fixed_point_problem`. Forces and stress are total derivatives of the
energy at the solution: they contain the response of both.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mace_scf_jax.graph import Graph
from mace_scf_jax.models.fixed_point import FixedPoint, LocalState
from mace_scf_jax.models.observables import with_derivatives
from mace_scf_jax.scf import (
    Auto,
    Differentiation,
    FixedPointProblem,
    FixedPointSolution,
    LinearMixing,
    Solver,
    solve,
)

Parameters = dict[str, Any]
Solve = Callable[[FixedPointProblem, Array, Array], FixedPointSolution]
"""From a problem, an initial state and initial levels to a solution."""


class InitialDensity(enum.StrEnum):
    """Where the search for the multipoles starts."""

    LOCAL_GUESS = "local_guess"
    """The multipoles that the atoms have without a potential, a function of the geometry."""
    FROM_DATA = "from_data"
    """The reference multipoles of the batch; zero where there are none."""
    ZERO = "zero"


class InitialFermiLevel(enum.StrEnum):
    """Where the search for the Fermi level starts; at given levels, the level itself."""

    FROM_DATA = "from_data"
    """The Fermi level of each structure; 0 eV where the data have none."""
    ZERO = "zero"
    """The Fermi level offset of the model, at which it causes no field features."""


@dataclasses.dataclass(frozen=True)
class SelfConsistency:
    """How the multipoles of a fixed-point model are solved for.

    Raises:
        ValueError: an unknown initial density or Fermi level.
    """

    solver: Solver = dataclasses.field(default_factory=Auto)
    constant_charge: bool = True
    """Solve for the Fermi levels that give the total charges; otherwise Fermi levels are given."""
    initial_density: InitialDensity = InitialDensity.LOCAL_GUESS
    """An `InitialDensity` or its name."""
    initial_fermi_level: InitialFermiLevel = InitialFermiLevel.FROM_DATA
    """An `InitialFermiLevel` or its name."""

    def __post_init__(self) -> None:
        for name, choices in (
            ("initial_density", InitialDensity),
            ("initial_fermi_level", InitialFermiLevel),
        ):
            value = getattr(self, name)
            try:
                object.__setattr__(self, name, choices(value))
            except ValueError:
                raise ValueError(
                    f"{name}: expected {' or '.join(choices)}, found {value!r}"
                ) from None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SCFState:
    """Multipoles and Fermi levels to start from, such as those of the geometry before."""

    multipoles: Float[Array, "atoms components"]
    """p in e Å^l."""
    fermi_level: Float[Array, "graphs"]
    """μ in eV."""

    @classmethod
    def of(cls, outputs: dict[str, Array]) -> SCFState:
        """The state that outputs of `evaluate_self_consistent` belong to."""
        return cls(multipoles=outputs["multipoles"], fermi_level=outputs["fermi_level"])


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
        max_sites=graph.slots.shape[1],
    )


def initial_state(module: FixedPoint, local: LocalState, how: SelfConsistency) -> SCFState:
    """Where the search starts.

    Args:
        module: the model.
        local: what its method `local` gave.
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
        levels = jnp.full_like(levels, module.settings.fixed_point.fermi_level_offset)
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
        module: the model.
        params: its parameters.
        local: what its method `local` gave.
        solution: of its `fixed_point_problem`.

    Returns:
        What `FixedPoint.observables` gives, and per graph ``fermi_level`` in eV; ``scf_status``, a
        `FixedPointStatus`; ``scf_steps``; ``scf_residual``, a mean change of the multipoles;
        ``scf_charge_error``, wanted charge minus charge in e.
    """
    graph, variables = local.graph, {"params": params}
    features: Float[Array, "atoms features"] = module.apply(
        variables,
        local,
        solution.argument,
        solution.argument_level[graph.atom_graph],
        method="field_features",
    )
    return {
        **module.apply(variables, local, solution.state, features, method="observables"),
        "fermi_level": jnp.where(graph.graph_mask, solution.level, 0.0),
        "scf_status": solution.status,
        "scf_steps": solution.steps,
        "scf_residual": solution.residual,
        "scf_charge_error": solution.charge_error,
    }


def evaluate_self_consistent(
    module: FixedPoint,
    params: Parameters,
    graph: Graph,
    *,
    how: SelfConsistency,
    start: SCFState | None = None,
    forces: bool = True,
    stress: bool = False,
) -> dict[str, Array]:
    """All outputs of a fixed-point model at its solved multipoles.

    Args:
        module: the model.
        params: its parameters.
        graph: the batch.
        how: solver, charge mode and initial state.
        start: start from these multipoles and (at constant charge) Fermi levels instead.
        forces: add ``forces``, see `with_derivatives`.
        stress: add ``stress`` and ``virials``.

    Returns:
        What `solved_observables` gives, and the derivatives. `SCFState.of` makes the ``start`` of
        the next geometry of them.
    """

    def outputs_of(moved: Graph) -> dict[str, Array]:
        local = module.apply({"params": params}, moved, method="local")
        problem = fixed_point_problem(module, params, local, constant_charge=how.constant_charge)
        initial = initial_state(module, local, how)
        if start is not None:
            levels = start.fermi_level if how.constant_charge else initial.fermi_level
            initial = jax.lax.stop_gradient(SCFState(start.multipoles, levels))
        solution = _solve(problem, initial, how.solver)
        return solved_observables(module, params, local, solution)

    return with_derivatives(outputs_of, graph, forces=forces, stress=stress)


def evaluate_direct(
    module: FixedPoint,
    params: Parameters,
    graph: Graph,
    *,
    forces: bool = True,
    stress: bool = False,
) -> dict[str, Array]:
    """Outputs after one step from the reference multipoles and Fermi levels: no self-consistency.

    Forces and stress are derivatives at fixed reference multipoles.

    Args:
        module: the model.
        params: its parameters.
        graph: the batch, with labels.
        forces: add ``forces``, see `with_derivatives`.
        stress: add ``stress`` and ``virials``.

    Raises:
        ValueError: the batch was made without labels.
    """
    multipoles, variables = reference_multipoles(graph), {"params": params}

    def outputs_of(moved: Graph) -> dict[str, Array]:
        levels = jnp.asarray(moved.fermi_level)[moved.atom_graph]
        local = module.apply(variables, moved, method="local")
        features = module.apply(variables, local, multipoles, levels, method="field_features")
        answer = module.apply(variables, local, features, method="answer")
        return {
            **module.apply(variables, local, answer, features, method="observables"),
            "fermi_level": jnp.asarray(moved.fermi_level),
        }

    return with_derivatives(outputs_of, graph, forces=forces, stress=stress)


def _solve(problem: FixedPointProblem, initial: SCFState, solver: Solver) -> FixedPointSolution:
    """Solve, with derivatives through the loop of linear mixing, implicit ones otherwise."""
    unrolls = isinstance(solver, LinearMixing)
    return solve(
        problem,
        initial.multipoles,
        initial.fermi_level,
        solver=solver,
        differentiation=Differentiation.UNROLL if unrolls else Differentiation.IMPLICIT,
    )
