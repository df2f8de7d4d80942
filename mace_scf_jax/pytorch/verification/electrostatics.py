"""Recompute electrostatic energies, features, potentials and derivatives from reference files."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from mace_scf_jax.electrostatics import (
    BoundaryMode,
    ElectrostaticsSettings,
    FieldFeatureSettings,
    batch_atomic_potentials,
    batch_coulomb_energy,
    batch_external_field_features,
    batch_field_features,
)
from mace_scf_jax.graph import Graph
from mace_scf_jax.pytorch.configuration import (
    REFERENCE_FEATURE_EXPONENT,
    REFERENCE_MOLECULE_EXPONENT,
)
from mace_scf_jax.pytorch.verification.models import REALSPACE_TOLERANCE
from mace_scf_jax.pytorch.verification.reference_file import (
    Deviation,
    ReferenceFile,
    deviation,
    graph_from_arrays,
)

TOLERANCE = 1e-9


def reference_electrostatics(meta: dict[str, Any]) -> ElectrostaticsSettings:
    """Settings that a reference file describes."""
    return ElectrostaticsSettings(
        max_l=meta["max_l"],
        smearing_width=meta["sigma"],
        boundary=meta["mode"],
        include_self_interaction=meta["include_self_interaction"],
        molecule_exponent=REFERENCE_MOLECULE_EXPONENT,
        features=FieldFeatureSettings(
            max_l=meta["feature_max_l"],
            widths=tuple(meta["feature_widths"]),
            include_self_interaction=meta["include_field_si"],
        ),
    )


def _energies(
    graph: Graph, multipoles: Array, settings: ElectrostaticsSettings
) -> dict[str, Array]:
    def energy(positions, multipoles, strain):
        strained = graph.replace(positions=positions).strained(strain)
        energies = batch_coulomb_energy(strained, multipoles, settings=settings)
        return jnp.sum(energies), energies

    gradients, energies = jax.grad(energy, argnums=(0, 1, 2), has_aux=True)(
        graph.positions, multipoles, jnp.zeros_like(graph.cell)
    )
    names = ("denergy_dpositions", "denergy_dmultipoles", "denergy_dstrain")
    return {"energy": energies, **dict(zip(names, gradients, strict=True))}


def _features(
    graph: Graph, multipoles: Array, cotangent: Array, settings: ElectrostaticsSettings
) -> dict[str, Array]:
    def features(positions, multipoles):
        moved = graph.replace(positions=positions)
        return batch_field_features(moved, multipoles, settings=settings)

    values, pullback = jax.vjp(features, graph.positions, multipoles)
    names = ("dfeatures_dpositions", "dfeatures_dmultipoles")
    return {"features": values, **dict(zip(names, pullback(cotangent), strict=True))}


def verify_electrostatics(file: ReferenceFile) -> list[Deviation]:
    """Recompute the outputs of a file on electrostatics.

    Compared are the energy and its derivatives in positions, multipoles and strain, the field
    features and their derivatives contracted with the cotangent of the file, the features of an
    external potential, and the potentials at the atoms. The reference leaves the potentials of
    molecules uncorrected, so those of graphs without periodic direction are left out.

    Args:
        file: a reference file on electrostatics.
    """
    settings = reference_electrostatics(file.meta)
    inputs, outputs = file.inputs, file.outputs
    graph = graph_from_arrays(
        inputs["positions"],
        inputs["graph_index"],
        cell=inputs.get("cell"),
        pbc=inputs.get("pbc"),
        kspace_cutoff=file.meta.get("kspace_cutoff"),
    )

    def padded(values: np.ndarray, size: int) -> Array:
        return jnp.asarray(np.pad(values, ((0, size - len(values)), (0, 0))))

    features = outputs["features"]
    cotangent = padded(outputs.get("feature_cotangent", np.zeros_like(features)), graph.num_atoms)
    feature_settings = dataclasses.replace(settings, molecule_exponent=REFERENCE_FEATURE_EXPONENT)
    external = outputs.get("external_potential_and_field")

    @jax.jit
    def compute(graph, multipoles):
        computed = _energies(graph, multipoles, settings)
        computed |= _features(graph, multipoles, cotangent, feature_settings)
        if "electrostatic_potential" in outputs:
            computed["electrostatic_potential"] = batch_atomic_potentials(
                graph, multipoles, settings=settings
            )
        if external is not None:
            at_graphs = padded(external, graph.num_graphs)
            computed["external_field_features"] = batch_external_field_features(
                graph, at_graphs[:, 0], at_graphs[:, 1:], features=settings.features
            )
        return computed

    computed = compute(graph, padded(inputs["multipoles"], graph.num_atoms))
    open_boundary = settings.boundary is BoundaryMode.REALSPACE
    deviations = []
    for name, values in computed.items():
        if name not in outputs:
            continue
        expected = outputs[name]
        values = np.asarray(values)[: len(expected)]
        if name == "electrostatic_potential":
            corrected = np.any(inputs["pbc"], axis=1)[inputs["graph_index"]]
            values, expected = values[corrected], expected[corrected]
        tolerance = REALSPACE_TOLERANCE if open_boundary else TOLERANCE
        deviations.append(deviation(name, values, expected, tolerance=tolerance))
    return deviations
