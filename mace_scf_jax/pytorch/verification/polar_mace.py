"""Recompute PolarMACE models from reference files: every inner stage, and all outputs."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mace_scf_jax.electrostatics import BoundaryMode
from mace_scf_jax.graph import Graph
from mace_scf_jax.layers.features import concatenate_components, to_e3nn
from mace_scf_jax.models import ModelSettings, build
from mace_scf_jax.models.energies import isolated_atom_energies
from mace_scf_jax.models.forces_and_stress import with_derivatives
from mace_scf_jax.pytorch.configuration import settings_from_configuration
from mace_scf_jax.pytorch.layers import Parameters
from mace_scf_jax.pytorch.verification.fixed_point import coulomb_defect
from mace_scf_jax.pytorch.verification.models import reference_graph
from mace_scf_jax.pytorch.verification.reference_file import Deviation, ReferenceFile, deviation
from mace_scf_jax.pytorch.weights import import_parameters

TOLERANCE = 1e-9
ENERGY_TOLERANCE = 1e-8
"""Of what contains the energy of Gaussians with themselves, which the reference integrates."""
_WITH_OWN_ENERGY = ("energy", "electrostatic_energy", "forces")

_NAMES = {
    "density_coefficients": "multipoles",
    "spin_density": "spin_multipoles",
    "electron_energy": "field_energy",
    "stress_by_finite_differences": "stress",
}
"""Our name of a reference output, where it differs."""


def verify_polar_mace(file: ReferenceFile) -> list[Deviation]:
    """Recompute inner stages and outputs of a file.

    The stress is compared with finite differences where the file has them; that of mace-torch
    0.3.16 is no derivative by strain, and not compared.
    """
    settings = _settings(file)
    params, graph = import_parameters(file.state, settings), reference_graph(file, settings)
    stress = "stress_by_finite_differences" in file.outputs
    compiled = jax.jit(lambda params, graph: _computed(settings, params, graph, stress=stress))
    computed = compiled(params, graph)
    num_atoms, num_graphs = len(file.inputs["positions"]), len(file.inputs["ptr"]) - 1
    deviations = []
    for name, expected in file.outputs.items():
        ours = _NAMES.get(name, name)
        if ours not in computed:
            continue
        values = np.asarray(computed[ours])
        values = values[: num_atoms if len(values) == graph.num_atoms else num_graphs]
        tolerance = ENERGY_TOLERANCE if name in _WITH_OWN_ENERGY else TOLERANCE
        deviations.append(
            deviation(name, values.reshape(expected.shape), expected, tolerance=tolerance)
        )
    return deviations


def _settings(file: ReferenceFile) -> ModelSettings:
    """Settings with the boundary condition that the reference chose for the batch."""
    settings = settings_from_configuration(file.meta)
    if not (np.any(file.inputs["pbc"]) or file.meta["use_pbc_evaluator"]):
        return settings
    density = dataclasses.replace(settings.density, boundary=BoundaryMode.MIXED_PERIODIC)
    return dataclasses.replace(settings, electrostatics=density)


def _computed(
    settings: ModelSettings, params: Parameters, graph: Graph, *, stress: bool
) -> dict[str, Array]:
    """All that is compared, by our names, inner stages by those of the reference."""
    module = build(settings)
    isolated = graph.sum_atoms(isolated_atom_energies(settings, graph))

    def outputs_of(moved: Graph) -> dict[str, Array]:
        outputs = module.apply({"params": params}, moved)
        defect = coulomb_defect(moved, outputs["multipoles"], settings.density)
        return {
            **outputs,
            "energy": outputs["energy"] + defect,
            "electrostatic_energy": outputs["electrostatic_energy"] + defect,
            # without electron energy and Coulomb energy
            "interaction_energy": jnp.sum(outputs["contributions"], axis=1) - isolated,
        }

    outputs = with_derivatives(outputs_of, graph, forces=True, stress=stress)
    multipoles, spin_multipoles = outputs["multipoles"], outputs["spin_multipoles"]
    both = (0.5 * (multipoles + spin_multipoles), 0.5 * (multipoles - spin_multipoles))
    return {
        **outputs,
        "charges": multipoles[:, 0],
        "spin_charge_density": jnp.stack(both, axis=1),
        **_stages(module.bind({"params": params}), graph),
    }


def _stages(module: Any, graph: Graph) -> dict[str, Array]:
    """Inner stages of a module that is bound to its parameters."""
    local = module.local(graph)
    layers = local.backbone.layers
    stages = {f"layer_features_{layer}": to_e3nn(it) for layer, it in enumerate(layers)}
    stages["last_layer_features"] = to_e3nn(layers[-1])
    for layer, features in enumerate(layers):
        read = getattr(module, f"spin_multipole_readout_{layer}")(features)
        stages[f"source_{layer}"] = _by_spin(concatenate_components(read))
    stages["mixed_features"] = to_e3nn(local.mixed_features)
    stages["fukui"] = local.fukui
    stages["density_0"] = _by_spin(local.density)
    density = potential = local.density
    for step in range(module.settings.own.num_recursion_steps):
        potential = module.field_features(local, density)
        change, fukui = module.change(step, local, density, potential)
        stages[f"step_{step}/field_features"] = _by_spin(potential)
        stages[f"step_{step}/density_before"] = _by_spin(density)
        stages[f"step_{step}/update"] = jnp.concatenate([_by_spin(change), fukui], axis=1)
        density = module.step(step, local, density, potential)
    if module.settings.own.include_field_energy:
        stages["electron_energy_per_atom"] = module.field_energies(local, density, potential)
    return {f"inner/{name}": values for name, values in stages.items()}


def _by_spin(values: Float[Array, "atoms components 2"]) -> Float[Array, "atoms both"]:
    """Components of the first spin, then those of the second."""
    return jnp.swapaxes(values, 1, 2).reshape(len(values), -1)
