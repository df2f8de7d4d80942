"""Recompute training steps of fixed-point models: loss, its terms, gradients of all parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from mace_scf_jax.electrostatics import batch_atomic_potentials
from mace_scf_jax.graph import Graph
from mace_scf_jax.models import FixedPoint, build
from mace_scf_jax.models.families.fixed_point.self_consistency import (
    direct_outputs,
    reference_multipoles,
    solved_outputs,
)
from mace_scf_jax.models.forces_and_stress import with_derivatives
from mace_scf_jax.pytorch.verification.fixed_point import (
    Parameters,
    coulomb_defect,
    one_newton_step,
    reference_graph,
    reference_settings,
)
from mace_scf_jax.pytorch.verification.reference_file import Deviation, ReferenceFile, deviation
from mace_scf_jax.pytorch.weights import import_parameters
from mace_scf_jax.training.loop.fixed_point_training import (
    FixedPointTraining,
    TrainingMode,
    read_fixed_point_training,
)
from mace_scf_jax.training.loop.modes import self_consistency
from mace_scf_jax.training.losses import weighted_loss
from mace_scf_jax.training.optimise.parameter_groups import parameter_name

TOLERANCE = 1e-7
LEFT_OVER = 1e-4
"""Absolute deviation that passes for parameters of the density update, unless it is known what was
in their gradients before. The reference files of one set of weights have up to 6.5e-5 too much
there, next to gradients of up to 120: the same numbers to 1e-10 in the modes `direct`, `unroll_scf`
and `linearize_solve`, so they do not come from the loss. They are no derivatives at these weights
either: the sums of weight × derivative of layers that follow each other differ, which are equal for
any function of what the layers give. Finite differences of the loss are those of our gradients.
PyTorch adds to gradients that nobody has set to zero: most likely an earlier backward pass with
slightly other weights has left them."""


_LABELS = {
    "energy": "ref_energy",
    "forces": "ref_forces",
    "dipole": "ref_dipole",
    "atomic_multipoles": "density_coefficients",
    "fermi_level": "fermi_level",
    "total_charge": "total_charge",
    "molID": "ref_cluster_batch",
}
"""The reference's name of a label."""
_WEIGHTS = {
    "energy": "energy",
    "forces": "forces",
    "dipole": "dipole",
    "atomic_multipoles": "density_coefficients",
    "electrostatic_potentials": "electrostatic_potentials",
    "molID": "cluster_loss",
}
"""The reference's name of the weight of a label."""
_OUTPUTS = {
    "energy": "energy",
    "forces": "forces",
    "density": "multipoles",
    "fermi_level": "fermi_level",
    "dipole": "dipole",
}
"""Our name of an output."""


def labelled_graph(file: ReferenceFile, graph: Graph) -> Graph:
    """A padded batch with the labels and weights of a reference file.

    Args:
        graph: its batch.
    """
    inputs, num_atoms = file.inputs, len(file.inputs["positions"])

    def padded(name: str) -> Array:
        values = inputs[name]
        size = graph.num_atoms if len(values) == num_atoms else graph.num_graphs
        rest = np.zeros((size - len(values), *values.shape[1:]), values.dtype)
        return jnp.asarray(np.concatenate([values, rest]))

    return graph.replace(
        labels={name: padded(theirs) for name, theirs in _LABELS.items()},
        weights={name: padded(f"ref_{theirs}_weight") for name, theirs in _WEIGHTS.items()},
        config_weight=padded("ref_weight"),
    )


def reference_prediction(
    module: FixedPoint, params: Parameters, graph: Graph, training: FixedPointTraining
) -> dict[str, Array]:
    """What the reference predicts in a training mode, with its rounded molecule correction.

    Where its derivatives are not exact, they are computed as it does; see `linearize_solve`.

    Args:
        graph: the batch with labels.
        training: the mode.
    """
    electrostatics = module.settings.electrostatics
    is_affine = module.settings.own.is_affine

    def outputs_of(moved: Graph) -> dict[str, Array]:
        if training.mode is TrainingMode.DIRECT:
            outputs = direct_outputs(module, params, moved)
        elif training.mode is TrainingMode.LINEARIZE_SOLVE and not is_affine:
            outputs = one_newton_step(module, params, moved, self_consistency(training))
        else:
            outputs = solved_outputs(module, params, moved, how=self_consistency(training))
        defect = coulomb_defect(moved, outputs["multipoles"], electrostatics)
        return {**outputs, "energy": outputs["energy"] + defect}

    outputs = with_derivatives(outputs_of, graph, forces=True, stress=False)
    # the reference leaves the potentials of molecules uncorrected, like those of crystals
    closed = graph.replace(pbc=graph.pbc | ~jnp.any(graph.pbc, axis=1, keepdims=True))
    return {
        **outputs,
        "esps": batch_atomic_potentials(closed, outputs["multipoles"], settings=electrostatics),
        "esps_dft": batch_atomic_potentials(
            closed, reference_multipoles(graph), settings=electrostatics
        ),
    }


Loss = Callable[[Parameters], tuple[Array, tuple[dict[str, Array], dict[str, Array]]]]
"""Parameters -> the total loss, its weighted terms and the prediction."""


def reference_loss(file: ReferenceFile) -> tuple[Loss, Parameters]:
    """The loss of a training step of the reference, and the parameters at which it was computed.

    Args:
        file: a reference file with a loss.
    """
    settings = reference_settings(file.meta)
    graph = labelled_graph(file, reference_graph(file, settings))
    module, weights = build(settings), file.meta["loss"]
    block = {"mode": file.meta["mode"], "scf": file.meta["scf"]}
    training = read_fixed_point_training({"fixed_point_training_options": block}, loss=weights)

    def loss(params: Parameters) -> tuple[Array, tuple[dict[str, Array], dict[str, Array]]]:
        prediction = reference_prediction(module, params, graph, training)
        total, terms = weighted_loss(weights, prediction, graph)
        return total, (terms, prediction)

    return loss, import_parameters(file.state, settings)


def reference_gradient(file: ReferenceFile) -> Parameters:
    """The gradient of that loss as the reference gives it.

    Args:
        file: a reference file with gradients.
    """
    return import_parameters({**file.state, **file.gradients}, reference_settings(file.meta))


def verify_training(
    file: ReferenceFile, *, left_over: Mapping[str, np.ndarray] | None = None
) -> list[Deviation]:
    """Recompute one training step.

    Args:
        file: a reference file with a loss and gradients.
        left_over: what is in its gradients beside the derivatives of the loss, by name of the
            parameter; nothing in those that are not named. None if that is not known, see
            `LEFT_OVER`.
    """
    loss, params = reference_loss(file)
    (total, (terms, prediction)), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    computed = {"loss": total[None]}
    computed |= {f"weighted_loss/{name}": value[None] for name, value in terms.items()}
    for theirs, ours in _OUTPUTS.items():
        computed[theirs] = prediction[ours][: len(file.outputs[theirs])]
    deviations = [
        deviation(name, values, file.outputs[name], tolerance=TOLERANCE)
        for name, values in computed.items()
    ]
    pairs = zip(
        jax.tree_util.tree_leaves_with_path(gradient),
        jax.tree_util.tree_leaves(reference_gradient(file)),
        strict=True,
    )
    for (path, ours), theirs in pairs:
        name = parameter_name(path)
        floor = 1e-12
        if left_over is not None:
            ours = ours + left_over.get(name, 0.0)
        elif name.startswith("density_update/"):
            floor = LEFT_OVER
        deviations.append(
            deviation(f"gradient/{name}", ours, theirs, tolerance=TOLERANCE, floor=floor)
        )
    return deviations
