"""Recompute training steps of descriptor potentials: constants, loss, gradients, steps of Adam."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array

from mace_scf_jax.backbones.chebyshev.functions import descriptors
from mace_scf_jax.backbones.chebyshev.normalisation import Moments, energy_scaling_and_shift
from mace_scf_jax.graph import Graph
from mace_scf_jax.models import ModelSettings, build, evaluate
from mace_scf_jax.pytorch.layers import Parameters
from mace_scf_jax.pytorch.verification.descriptors import descriptor_batch, potential
from mace_scf_jax.pytorch.verification.reference_file import Deviation, ReferenceFile, deviation
from mace_scf_jax.pytorch.weights_aenet import aenet_parameters
from mace_scf_jax.training.losses import loss_options, weighted_loss
from mace_scf_jax.training.optimise.optimiser import OptimiserSettings, build_optimiser
from mace_scf_jax.training.optimise.parameter_groups import parameter_groups, parameter_name

TOLERANCE = 1e-9


def verify_descriptor_training(file: ReferenceFile) -> list[Deviation]:
    """Recompute the constants, the loss and its gradient, and what steps of Adam make of them.

    Errors are root-mean-square ones of the only batch, those of forces over the structures that
    have any. ``train_…_rmse`` holds them before each step, and in the end after the last.
    """
    graph, real = descriptor_batch(file)
    settings, initial = potential(file, file.meta["arch"])
    module = build(settings)
    labelled = _labelled(file, graph)
    share = float(file.meta["loss"]["force_weight"])
    terms = {"energy_per_atom": 1.0 - share, "forces": share}
    options = {name: loss_options(name, {"form": "rmse"}) for name in terms}

    @jax.jit
    def loss(parameters: Parameters) -> tuple[Array, tuple[Array, Array, dict[str, Array]]]:
        outputs = evaluate(module, parameters, labelled, forces=True)
        total, _ = weighted_loss(terms, outputs, labelled, options=options)
        alike = dict.fromkeys(terms, 1.0)
        _, errors = weighted_loss(alike, outputs, labelled, options=options)
        return total, (errors["energy_per_atom"], errors["forces"], outputs)

    gradient_of = jax.jit(jax.value_and_grad(loss, has_aux=True))
    (value, (energy_error, force_error, _)), gradient = gradient_of(initial)
    found = _compare_constants(file, graph, real, settings)
    for name, ours in (
        ("loss", value),
        ("first_energy_rmse", energy_error),
        ("first_force_rmse", force_error),
    ):
        found.append(deviation(name, np.asarray(ours), file.outputs[name], tolerance=TOLERANCE))
    species = _species(file)
    found += _compare_parameters("gradient", gradient, aenet_parameters(file.gradients, species))

    steps = int(file.meta["optimizer"]["steps"])
    optimiser = build_optimiser(_adam(file), initial)
    rates = dict.fromkeys(parameter_groups(), jnp.asarray(file.meta["optimizer"]["lr"]))
    parameters, state, errors = initial, optimiser.init(initial), []
    for step in range(1, steps + 1):
        (_, (*of_step, _)), gradient = gradient_of(parameters)
        errors.append(of_step)
        updates, state = optimiser.update(gradient, state, parameters, learning_rates=rates)
        parameters = optax.apply_updates(parameters, updates)
        if theirs := {
            name.removeprefix(f"{step}/"): values
            for name, values in file.steps.items()
            if name.startswith(f"{step}/")
        }:
            what = f"after {step} steps" if step > 1 else "after 1 step"
            found += _compare_parameters(what, parameters, aenet_parameters(theirs, species))
    _, (*last, outputs) = loss(parameters)
    errors[-1] = last
    for name, ours in zip(
        ("train_energy_rmse", "train_force_rmse"), np.array(errors).T, strict=True
    ):
        found.append(deviation(name, ours, file.outputs[name], tolerance=TOLERANCE))
    # what the reference did not look at it calls NaN
    found = [entry for entry in found if np.isfinite(file.outputs.get(entry.output, 0.0)).all()]
    structures = len(file.outputs["energy"])
    for name, ours in (
        ("energy", np.asarray(outputs["energy"])[:structures]),
        ("forces", np.asarray(outputs["forces"])[real]),
    ):
        found.append(deviation(name, ours, file.outputs[name], tolerance=0.0, floor=TOLERANCE))
    return found


def _species(file: ReferenceFile) -> list[str]:
    return list(file.meta["descriptor"]["species"])


def _adam(file: ReferenceFile) -> OptimiserSettings:
    """The optimiser of the file, without what ours adds by default."""
    beta, beta_two = file.meta["optimizer"]["betas"]
    return OptimiserSettings(
        optimizer="adam",
        beta=beta,
        beta_two=beta_two,
        weight_decay=0.0,
        amsgrad=False,
        clip_grad=None,
    )


def _labelled(file: ReferenceFile, graph: Graph) -> Graph:
    """The batch with energies and forces, of which some structures may have none."""
    energies, forces = file.inputs["ref_energy"], file.inputs["ref_forces"]
    per_graph = np.zeros(graph.num_graphs)
    labels = {
        "energy": np.concatenate([energies, per_graph[len(energies) :]]),
        "forces": np.zeros((graph.num_atoms, 3)),
    }
    labels["forces"][: len(forces)] = forces
    has_energy, has_forces = per_graph.copy(), per_graph.copy()
    has_energy[: len(energies)] = 1.0
    has_forces[: len(energies)] = file.inputs["has_forces"]
    return graph.replace(
        labels={name: jnp.asarray(values) for name, values in labels.items()},
        weights={"energy": jnp.asarray(has_energy), "forces": jnp.asarray(has_forces)},
        config_weight=jnp.asarray(has_energy),
    )


def _compare_constants(
    file: ReferenceFile, graph: Graph, real: np.ndarray, settings: ModelSettings
) -> list[Deviation]:
    """What was measured on the structures: statistics of features, scale and shift of energies."""
    backbone = settings.backbone
    found = []
    if "feature_mean" in file.state:
        raw = np.asarray(descriptors(graph, backbone.descriptor, backbone.elements))[real]
        moments = Moments(1, raw.shape[1])
        moments.add(raw, np.zeros(len(raw), dtype=int))
        statistics = moments.statistics()
        for name, rows in (("feature_mean", statistics.mean), ("feature_std", statistics.std)):
            found.append(deviation(name, np.array(rows[0]), file.state[name], tolerance=TOLERANCE))
        species = np.asarray(graph.species)[real]
        owner, energies = file.inputs["batch"], file.inputs["ref_energy"]
        isolated = np.bincount(owner, weights=np.array(settings.atomic_energies)[species])
        per_atom = (energies - isolated) / np.bincount(owner)
        for name, value in zip(
            ("E_scaling", "E_shift"), energy_scaling_and_shift(per_atom), strict=True
        ):
            found.append(deviation(name, np.asarray(value), file.state[name], tolerance=TOLERANCE))
    return found


def _compare_parameters(what: str, ours: Parameters, theirs: Parameters) -> list[Deviation]:
    """Every parameter, or what has its form."""
    leaves = jax.tree_util.tree_leaves_with_path(ours)
    return [
        deviation(f"{what}/{parameter_name(path)}", own, other, tolerance=TOLERANCE)
        for (path, own), other in zip(leaves, jax.tree.leaves(theirs), strict=True)
    ]
