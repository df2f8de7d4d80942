"""Recompute descriptor potentials of ænet from reference files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from ase.data import chemical_symbols
from jaxtyping import Array

from mace_scf_jax.backbones import ChebyshevSettings, Descriptor, FeatureStatistics
from mace_scf_jax.backbones.chebyshev.functions import descriptors
from mace_scf_jax.backbones.chebyshev.normalisation import deviations_of_moments
from mace_scf_jax.graph import Graph
from mace_scf_jax.models import ModelSettings, build, evaluate
from mace_scf_jax.pytorch.layers import Parameters
from mace_scf_jax.pytorch.verification.reference_file import (
    Deviation,
    ReferenceFile,
    deviation,
    graph_from_arrays,
)
from mace_scf_jax.pytorch.weights_aenet import aenet_parameters

DESCRIPTORS = 1e-12
DESCRIPTOR_GRADIENTS = 2e-9
"""The reference adds 1e-12 Å to distances."""
ENERGIES = 1e-9
PRINTED_ENERGIES = 1e-8
"""eV: as many digits are printed by the Fortran programs, of forces two less."""
PRINTED_FORCES = 1e-6


def verify_descriptor(file: ReferenceFile) -> list[Deviation]:
    """Recompute descriptors, energies, forces and strain derivatives of all networks of a file.

    Energies of atoms and structures are compared as they are, in eV, because those of the isolated
    atoms would hide deviations in a relative measure.
    """
    graph, real = descriptor_batch(file)
    found = _compare_descriptors(file, graph, real)
    archs = file.meta["arch"]
    sets = [""] if _is_one_network(archs) else [f"{name}/" for name in archs]
    for prefix in sets:
        arch = archs[prefix[:-1]] if prefix else archs
        found += _compare_networks(file, graph, real, arch, prefix)
    return found


def _is_one_network(archs: Mapping[str, Any]) -> bool:
    return all(name in chemical_symbols for name in archs)


def descriptor_batch(file: ReferenceFile) -> tuple[Graph, np.ndarray]:
    """Return the batch of a file, elements in ascending order, and which of its atoms are real."""
    inputs = file.inputs
    numbers = np.array(file.meta["atomic_numbers"])[np.argmax(inputs["node_attrs"], axis=1)]
    graph = graph_from_arrays(
        inputs["positions"],
        inputs["batch"],
        cell=inputs["cell"],
        pbc=inputs["pbc"],
        species=np.searchsorted(sorted(file.meta["atomic_numbers"]), numbers),
        edge_index=inputs["edge_index"],
        unit_shifts=inputs["unit_shifts"],
    )
    return graph, np.asarray(graph.atom_mask)


def _descriptor(file: ReferenceFile) -> Descriptor:
    given = dict(file.meta["descriptor"])
    return Descriptor(**given | {"species": tuple(file.meta["atomic_numbers"])})


def _compare_descriptors(file: ReferenceFile, graph: Graph, real: np.ndarray) -> list[Deviation]:
    """Descriptors, and their derivatives by positions where the file has them."""
    if "descriptors" not in file.outputs:
        return []
    descriptor, elements = _descriptor(file), tuple(sorted(file.meta["atomic_numbers"]))

    def features(positions: Array) -> Array:
        moved = graph.replace(positions=positions)
        return descriptors(moved, descriptor, elements)

    computed = np.asarray(jax.jit(features)(graph.positions))[real]
    found = [deviation("descriptors", computed, file.outputs["descriptors"], tolerance=DESCRIPTORS)]
    wanted = [name for name in file.outputs if name.startswith("descriptor_gradients/")]
    if wanted:
        jacobian = np.asarray(jax.jit(jax.jacfwd(features))(graph.positions))[real][:, :, real]
        for name in wanted:
            own = file.inputs["batch"] == int(name.partition("/")[2])
            own_part = jacobian[own][:, :, own]
            found.append(
                deviation(name, own_part, file.outputs[name], tolerance=DESCRIPTOR_GRADIENTS)
            )
    return found


def _compare_networks(
    file: ReferenceFile, graph: Graph, real: np.ndarray, arch: Mapping[str, Any], prefix: str
) -> list[Deviation]:
    """Outputs of one set of networks, whose names in the file begin with a prefix."""
    settings, parameters = potential(file, arch, prefix)
    module = build(settings)
    is_printed = "files" in file.meta and "E_scaling" in file.meta

    @jax.jit
    def outputs(parameters: Parameters, graph: Graph) -> dict[str, Array]:
        found = evaluate(module, parameters, graph, forces=True, stress=True)
        return {**found, "dE_dstrain": -found["virials"]}

    computed = outputs(parameters, graph)
    found = []
    for name in ("energy", "node_energy", "forces", "dE_dstrain"):
        expected = file.outputs.get(f"{prefix}{name}")
        if expected is None:
            continue
        values = np.asarray(computed[name])
        values = values[real] if len(values) == len(real) else values[: len(expected)]
        floor = ENERGIES
        if is_printed:
            floor = PRINTED_FORCES if name == "forces" else PRINTED_ENERGIES
        found.append(deviation(f"{prefix}{name}", values, expected, tolerance=0.0, floor=floor))
    return found


def potential(
    file: ReferenceFile, arch: Mapping[str, Any], prefix: str = ""
) -> tuple[ModelSettings, Parameters]:
    """Settings and parameters of the networks of a file.

    Args:
        arch: hidden layers by symbol.
        prefix: of the names in the file.
    """
    species = [chemical_symbols[number] for number in file.meta["atomic_numbers"]]
    state = {
        name.removeprefix(prefix): values
        for name, values in file.state.items()
        if name.startswith(prefix)
    }
    elements = tuple(sorted(file.meta["atomic_numbers"]))
    of_species = [species.index(chemical_symbols[element]) for element in elements]

    def constant(name: str) -> Any:
        return state[name] if name in state else file.meta[name]

    energies = constant("atomic_energies")
    if isinstance(energies, Mapping):
        energies = [energies[symbol] for symbol in species]
    number = len(elements)
    backbone = ChebyshevSettings(
        elements=elements,
        descriptor=_descriptor(file),
        arch=tuple(
            tuple((int(nodes), str(name)) for nodes, name in arch[chemical_symbols[element]])
            for element in elements
        ),
        features=_statistics(state, species, of_species),
        E_scaling=(float(constant("E_scaling")),) * number,
        E_shift=(float(constant("E_shift")),) * number,
    )
    settings = ModelSettings(
        family="ChebyshevANN",
        backbone=backbone,
        atomic_energies=tuple(float(energies[index]) for index in of_species),
    )
    return settings, aenet_parameters(state, species)


def _statistics(
    state: Mapping[str, np.ndarray], species: list[str], of_species: list[int]
) -> FeatureStatistics | None:
    """Common statistics, or those of every element (second moments), or none."""
    if "feature_mean" in state:
        return FeatureStatistics((tuple(state["feature_mean"]),), (tuple(state["feature_std"]),))
    if f"{species[0]}/feature_mean" not in state:
        return None
    mean = np.array([state[f"{species[index]}/feature_mean"] for index in of_species])
    second = np.array([state[f"{species[index]}/feature_second_moment"] for index in of_species])
    return FeatureStatistics(
        *(tuple(map(tuple, rows)) for rows in (mean, deviations_of_moments(mean, second)))
    )
