"""Recompute fixed-point models from reference files: local part, one step, whole cycles."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from mace_scf_jax.electrostatics import (
    ElectrostaticsSettings,
    batch_coulomb_energy,
)
from mace_scf_jax.graph import Graph
from mace_scf_jax.layers.features import to_e3nn
from mace_scf_jax.models import FixedPoint, ModelSettings, SelfConsistency, build
from mace_scf_jax.models.families.fixed_point.self_consistency import (
    fixed_point_problem,
    initial_state,
    solved_observables,
)
from mace_scf_jax.pytorch.configuration import (
    REFERENCE_MOLECULE_EXPONENT,
)
from mace_scf_jax.pytorch.configuration import (
    settings_from_configuration as reference_settings,
)
from mace_scf_jax.pytorch.verification.reference_file import (
    Deviation,
    ReferenceFile,
    deviation,
    graph_from_arrays,
)
from mace_scf_jax.pytorch.weights import import_parameters
from mace_scf_jax.scf import FixedPointProblem, LinearMixing, solve
from mace_scf_jax.scf.solvers.linear_mixing import LARGEST_CHARGE

TOLERANCE = 1e-9
CYCLE_TOLERANCE = 1e-8
"""Of states after many steps, which pile up the reference's rounded self-interaction constants."""

MODES = ("constant_charge", "constant_fermi")
Parameters = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class ReferenceMixing(LinearMixing):
    """Linear mixing by the rules of the reference, which make results depend on the batch.

    All systems end together, as soon as all have converged or one has diverged, and a system has
    diverged if its charge is above 10 e, whatever its size.
    """

    def judge(self, problem: FixedPointProblem, state: Array, error: Array) -> tuple[Array, Array]:
        """All systems or none."""
        converged, diverged = super().judge(problem, state, error)
        diverged |= jnp.abs(problem.charges(state)) > LARGEST_CHARGE
        return (
            jnp.full_like(converged, jnp.all(converged)),
            jnp.full_like(diverged, jnp.any(diverged)),
        )


def reference_graph(file: ReferenceFile, settings: ModelSettings) -> Graph:
    """The batch of a reference file, with the edges that it lists."""
    inputs = file.inputs
    return graph_from_arrays(
        inputs["positions"],
        inputs["batch"],
        cell=inputs["cell"],
        pbc=inputs["pbc"],
        species=np.argmax(inputs["node_attrs"], axis=1),
        edge_index=inputs["edge_index"],
        unit_shifts=inputs["unit_shifts"],
        kspace_cutoff=settings.kspace_cutoff,
        info={name: inputs[name] for name in ("total_charge", "external_field", "fermi_level")},
    )


def coulomb_defect(graph: Graph, multipoles: Array, settings: ElectrostaticsSettings) -> Array:
    """Coulomb energy of the reference minus that of the model, [graphs] in eV.

    The reference rounds the cube root of the molecule correction differently in energies and in
    field features; the settings of the model are those of the features.
    """
    as_in_energies = dataclasses.replace(settings, molecule_exponent=REFERENCE_MOLECULE_EXPONENT)
    return batch_coulomb_energy(graph, multipoles, settings=as_in_energies) - batch_coulomb_energy(
        graph, multipoles, settings=settings
    )


def linear_mixing_cycle(
    module: FixedPoint,
    params: Parameters,
    graph: Graph,
    settings: LinearMixing,
    *,
    constant_charge: bool,
) -> dict[str, Array]:
    """Observables after a cycle from the local multipoles, and forces through all its steps.

    Args:
        graph: the batch; cycles start at its Fermi levels.
        settings: of the cycle.
        constant_charge: whether Fermi levels are solved for.
    """

    def total_energy(positions: Array) -> tuple[Array, dict[str, Array]]:
        moved = graph.replace(positions=positions)
        local = module.apply({"params": params}, moved, method="local")
        problem = fixed_point_problem(module, params, local, constant_charge=constant_charge)
        solution = dataclasses.replace(settings, keep_states=True).find(
            problem, graph.to_slots(local.multipoles), jnp.asarray(graph.fermi_level)
        )
        outputs = solved_observables(module, params, local, solution)
        defect = coulomb_defect(
            moved, graph.from_slots(solution.state), module.settings.electrostatics
        )
        for name in ("energy", "electrostatic_energy"):
            outputs[name] = outputs[name] + defect
        return jnp.sum(outputs["energy"]), outputs

    gradient, outputs = jax.grad(total_energy, has_aux=True)(jnp.asarray(graph.positions))
    return {**outputs, "forces": -gradient}


class _Comparison:
    """Deviations of padded outputs from those of a reference file.

    Args:
        graph: its padded batch.
    """

    def __init__(self, file: ReferenceFile, graph: Graph) -> None:
        self.expected = file.outputs
        self.num_atoms, self.num_padded_atoms = len(file.inputs["positions"]), graph.num_atoms
        self.num_graphs = len(file.inputs["ptr"]) - 1
        species = np.argmax(file.inputs["node_attrs"], axis=1)
        energies = np.asarray(file.state["atomic_energies_fn.atomic_energies"]).ravel()
        self.isolated = np.bincount(file.inputs["batch"], weights=energies[species])
        self.deviations: list[Deviation] = []

    def add(self, output: str, values: Array, *, tolerance: float, floor: float = 1e-12) -> None:
        """Compare an output, if the file has it; energies without those of isolated atoms."""
        if output not in self.expected:
            return
        expected = self.expected[output]
        count = self.num_atoms if len(values) == self.num_padded_atoms else self.num_graphs
        computed = np.asarray(values)[:count].reshape(expected.shape)
        if output.endswith("/energy"):
            computed, expected = computed - self.isolated, expected - self.isolated
        self.deviations.append(
            deviation(output, computed, expected, tolerance=tolerance, floor=floor)
        )


_CYCLE_NAMES = {
    "energy": "energy",
    "forces": "forces",
    "density": "multipoles",
    "fermi_level": "fermi_level",
    "dipole": "dipole",
    "electrostatic_energy": "electrostatic_energy",
    "electron_energy": "field_energy",
    "field_features": "field_features",
}
"""Our name of an output of a cycle."""


def verify_fixed_point(file: ReferenceFile) -> list[Deviation]:
    """Recompute a fixed-point model: local part, one step, cycles in both charge modes.

    Energies are compared without those of isolated atoms, which hide deviations in a relative
    measure. The reference leaves the potentials of molecules uncorrected, so those of graphs
    without periodic direction are left out.

    Args:
        file: a reference file of a fixed-point model.
    """
    settings = reference_settings(file.meta)
    graph = reference_graph(file, settings)
    params = import_parameters(file.state, settings)
    module = build(settings)
    comparison = _Comparison(file, graph)
    if "local/density" in file.outputs:
        _compare_one_step(comparison, file, module, params, graph)
    cycle = ReferenceMixing(
        max_steps=file.meta["scf"]["num_scf_steps"] - 1,
        mixing=file.meta["scf"]["mixing_parameter"],
        tolerance=file.meta["scf"]["scf_tolerance"],
    )
    for mode in MODES:
        if f"{mode}/energy" in file.outputs:
            run = jax.jit(
                lambda params, graph, mode=mode: linear_mixing_cycle(
                    module, params, graph, cycle, constant_charge=mode == "constant_charge"
                )
            )
            _compare_cycle(comparison, file, mode, run(params, graph))
    return comparison.deviations


def _compare_one_step(
    comparison: _Comparison,
    file: ReferenceFile,
    module: FixedPoint,
    params: Parameters,
    graph: Graph,
) -> None:
    """Compare the local part, and one step from the reference multipoles."""
    missing = graph.num_atoms - len(file.inputs["positions"])
    multipoles = jnp.asarray(np.pad(file.inputs["density_coefficients"], ((0, missing), (0, 0))))

    @jax.jit
    def compute(params: Parameters, graph: Graph) -> dict[str, Array]:
        variables = {"params": params}
        levels = graph.fermi_level[graph.atom_graph]
        local = module.apply(variables, graph, method="local")
        features = module.apply(variables, local, multipoles, levels, method="field_features")
        answer = module.apply(variables, local, features, method="answer")
        outputs = module.apply(variables, local, answer, features, method="observables")
        defect = coulomb_defect(graph, answer, module.settings.electrostatics)
        return {
            "local/density": local.multipoles,
            "local/mixed_features": to_e3nn(local.mixed_features),
            "local/last_layer_features": to_e3nn(local.backbone.layers[-1]),
            "local/external_field_features": local.external_features,
            "local/energies": outputs["contributions"],
            "direct/fermi_level_features": module.apply(
                variables, local, levels, method="fermi_level_features"
            ),
            "direct/field_features": features,
            "direct/density_update": answer - local.multipoles,
            "direct/energy": outputs["energy"] + defect,
        }

    for name, values in compute(params, graph).items():
        comparison.add(name, values, tolerance=TOLERANCE)


def _compare_cycle(
    comparison: _Comparison, file: ReferenceFile, mode: str, computed: dict[str, Array]
) -> None:
    """Compare what a cycle ends with, its first states and its number of steps."""
    for theirs, ours in _CYCLE_NAMES.items():
        comparison.add(f"{mode}/{theirs}", computed[ours], tolerance=CYCLE_TOLERANCE)
    if f"{mode}/esps" in file.outputs:
        corrected = np.any(file.inputs["pbc"], axis=1)[file.inputs["batch"]]
        potentials = np.asarray(computed["electrostatic_potentials"])[: len(corrected), None]
        comparison.deviations.append(
            deviation(
                f"{mode}/esps",
                potentials[corrected],
                file.outputs[f"{mode}/esps"][corrected],
                tolerance=CYCLE_TOLERANCE,
            )
        )
    first = file.outputs[f"{mode}/first_densities"].shape[-1]
    states = jnp.moveaxis(computed["scf_states"][:, :first], 1, -1)
    comparison.add(f"{mode}/first_densities", states, tolerance=TOLERANCE)
    comparison.add(
        f"{mode}/final_mean_change", computed["scf_residual"], tolerance=1e-3, floor=1e-12
    )
    comparison.deviations.append(
        deviation(
            f"{mode}/updates_done",
            np.max(np.asarray(computed["scf_steps"]), keepdims=True),
            file.outputs[f"{mode}/updates_done"],
            tolerance=0.0,
            floor=0.0,
        )
    )


def one_newton_step(
    module: FixedPoint, params: Parameters, graph: Graph, how: SelfConsistency
) -> dict[str, Array]:
    """Outputs after one differentiable Newton step at the solution.

    Args:
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
