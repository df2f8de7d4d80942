"""Recompute whole models from reference files."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from mace_scf_jax.electrostatics import (
    BoundaryMode,
    ElectrostaticsSettings,
    batch_coulomb_energy,
)
from mace_scf_jax.graph import Graph
from mace_scf_jax.models import (
    ModelSettings,
    build,
    evaluate,
    required_inputs,
)
from mace_scf_jax.models.backbone_output import backbone_output
from mace_scf_jax.models.families.local_charges.settings import LocalChargesSettings
from mace_scf_jax.predict.layer_features import features_of_mace
from mace_scf_jax.pytorch.configuration import MACELES
from mace_scf_jax.pytorch.configuration import (
    settings_from_configuration as reference_settings,
)
from mace_scf_jax.pytorch.heads import heads_of, with_head
from mace_scf_jax.pytorch.layers import Parameters
from mace_scf_jax.pytorch.module import TorchModel
from mace_scf_jax.pytorch.verification.reference_file import (
    Deviation,
    ReferenceFile,
    ReferenceFileError,
    deviation,
    graph_from_arrays,
)
from mace_scf_jax.pytorch.weights import import_parameters

TOLERANCE = 1e-9
REALSPACE_TOLERANCE = 1e-6
"""The reference rounds the constants of its open-boundary pair sums."""

_OUTPUT_NAMES = {
    "density_coefficients": "multipoles",
    "enegs": "electronegativity",
    "qeq_energy": "equilibration_energy",
    "les_energy": "electrostatic_energy",
}
"""Our name of a reference output, where it differs."""


def reference_graph(file: ReferenceFile, settings: ModelSettings) -> Graph:
    """The batch of a reference file, with the edges that it lists."""
    inputs = file.inputs
    ignored = ("external_field",) if file.meta["model"] == MACELES else ()
    return graph_from_arrays(
        inputs["positions"],
        inputs["batch"],
        cell=inputs["cell"],
        pbc=inputs["pbc"],
        species=_species(file),
        edge_index=inputs["edge_index"],
        unit_shifts=inputs["unit_shifts"],
        kspace_cutoff=settings.kspace_cutoff,
        info={
            name: inputs[name]
            for name in ("total_charge", "external_field", "total_spin")
            if name in inputs and name not in ignored
        },
        tails=settings.tails,
        arrays={name: inputs[name] for name in required_inputs(settings)},
    )


def reference_stress_defect(
    graph: Graph, multipoles: Array, settings: ElectrostaticsSettings
) -> Array:
    """What the virials of the reference contain beyond -dE/dε for models with charges.

    The reference strains the cell that its electrostatics sees element by element, so that the
    contribution of the lattice vectors A is A ∘ sym(∂E/∂A) where sym(Aᵀ ∂E/∂A) is right. Its
    stress then is neither a derivative of the energy nor symmetric.

    Returns:
        Virials of the reference minus true virials, [graphs, 3, 3] in eV.
    """

    def coulomb(cell):
        return jnp.sum(
            batch_coulomb_energy(graph.replace(cell=cell), multipoles, settings=settings)
        )

    def symmetric(matrices):
        return 0.5 * (matrices + jnp.swapaxes(matrices, -1, -2))

    gradient = jax.grad(coulomb)(graph.cell)
    right = symmetric(jnp.einsum("gai,gaj->gij", graph.cell, gradient))
    return right - graph.cell * symmetric(gradient)


def verify_model(file: ReferenceFile) -> list[Deviation]:
    """Recompute a model's outputs and compare every one that we have a name for.

    The energy is compared twice: as it is, and without the energies of the isolated atoms, which
    hide deviations in a relative measure. The stress of models with charges is compared after
    adding the defect of the reference (`reference_stress_defect`). Of a model with several heads,
    each structure is compared with the model of its head.

    Args:
        file: a reference file of a whole model.

    Raises:
        ReferenceFileError: the file holds no output of a single evaluation.
    """
    whole = TorchModel(file.meta, file.state)
    models = [with_head(whole, name) for name in heads_of(whole)]
    settings = [reference_settings(model.configuration) for model in models]
    if "energy" not in file.outputs:
        raise ReferenceFileError(f"{file.path}: expected out/energy, found {sorted(file.outputs)}")
    by_head = [
        _computed(file, import_parameters(model.state, own), own)
        for model, own in zip(models, settings, strict=True)
    ]
    electrostatics = settings[0].electrostatics
    tolerance = TOLERANCE
    if electrostatics is not None and electrostatics.boundary is BoundaryMode.REALSPACE:
        tolerance = REALSPACE_TOLERANCE
    energies = np.array([own.atomic_energies for own in settings])
    head = _heads_of_graphs(file, len(models))
    isolated = np.bincount(
        file.inputs["batch"], weights=energies[head[file.inputs["batch"]], _species(file)]
    )
    deviations = []
    for name, expected in file.outputs.items():
        ours = _OUTPUT_NAMES.get(name, name)
        if ours not in by_head[0]:
            continue
        values = np.stack([computed[ours] for computed in by_head])
        rows = head if values.shape[1] == len(head) else head[file.inputs["batch"]]
        values = values[rows, np.arange(len(rows))].reshape(expected.shape)
        deviations.append(deviation(name, values, expected, tolerance=tolerance))
        if name == "energy":
            deviations.append(
                deviation(
                    "energy - isolated atoms",
                    values - isolated,
                    expected - isolated,
                    tolerance=tolerance,
                )
            )
    return deviations


def _heads_of_graphs(file: ReferenceFile, count: int) -> np.ndarray:
    """Place of the head of every structure; of a model of one head all have that."""
    num_graphs = len(file.inputs["ptr"]) - 1
    return file.inputs["head"] if count > 1 else np.zeros(num_graphs, dtype=int)


def _species(file: ReferenceFile) -> np.ndarray:
    return np.argmax(file.inputs["node_attrs"], axis=1)


def _computed(
    file: ReferenceFile, params: Parameters, settings: ModelSettings
) -> dict[str, np.ndarray]:
    """What a model gives for the structures of a file, without padding."""
    graph, module = reference_graph(file, settings), build(settings)
    stress, electrostatics = "stress" in file.outputs, settings.electrostatics

    @jax.jit
    def outputs(params: Parameters, graph: Graph) -> dict[str, Array]:
        found = evaluate(module, params, graph, stress=stress)
        found["node_feats"] = jnp.concatenate(features_of_mace(module, params, graph), axis=-1)
        embedding_energy = backbone_output(module, params, graph).embedding_energy
        if embedding_energy is not None:
            # The reference leaves it out of the energies of atoms.
            found["node_energy"] = found["node_energy"] - embedding_energy
        if isinstance(settings.own, LocalChargesSettings):
            found["latent_charges"] = found["multipoles"][:, 0] / settings.own.charge_scale
        if electrostatics is None or not stress:
            return found
        return _with_reference_stress(found, graph, electrostatics)

    num_atoms, num_graphs = len(file.inputs["positions"]), len(file.inputs["ptr"]) - 1
    return {
        name: np.asarray(values)[: num_atoms if values.shape[0] == graph.num_atoms else num_graphs]
        for name, values in outputs(params, graph).items()
        if values.ndim > 0
    }


def _with_reference_stress(
    outputs: dict[str, Array], graph: Graph, settings: ElectrostaticsSettings
) -> dict[str, Array]:
    defect = reference_stress_defect(graph, outputs["multipoles"], settings)
    volume = jnp.abs(jnp.linalg.det(graph.cell))[:, None, None]
    return {
        **outputs,
        "virials": outputs["virials"] + defect,
        "stress": outputs["stress"] - defect / volume,
    }
