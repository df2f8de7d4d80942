"""Training losses: plain functions of a prediction and a batch, and their weighted sum.

Each term is a function ``term(prediction, graph) -> scalar``. Per-entry squared errors are
multiplied by the weight of the configuration and by the weight of the property (zero where the
label is missing), summed, and divided by the number of real entries. Weights are therefore not part
of the denominator: a configuration without a label still counts as one entry, as in the PyTorch
reference. Padding atoms and graphs never count.

``LOSSES`` is the registry: name -> :class:`LossTerm`, which also says what the term needs, so that
:func:`check_terms` can refuse a term before training starts instead of training on nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mace_scf_jax.graph import Graph
from mace_scf_jax.hints import unknown_name

Prediction = Mapping[str, Array]
Loss = Float[Array, ""]


class LossError(ValueError):
    """A loss term is unknown, or the model or the data lack what it needs."""


@dataclasses.dataclass(frozen=True)
class LossTerm:
    """One term of the loss: its formula and what it needs."""

    name: str
    function: Callable[[Prediction, Graph], Loss]
    description: str
    predictions: tuple[str, ...]
    """Model outputs that the term reads."""
    labels: tuple[str, ...] = ()
    """Labels that the term reads; at least one training configuration must have each."""


def energy_per_atom(prediction: Prediction, graph: Graph) -> Loss:
    """Mean over graphs of w v ((E_ref - E) / N)², in (eV/atom)²."""
    error = (graph.labels["energy"] - prediction["energy"]) / _atoms_per_graph(graph)
    return _mean(_property_weight(graph, "energy") * error**2, graph.graph_mask)


def forces(prediction: Prediction, graph: Graph) -> Loss:
    """Mean over atoms and components of w v (F_ref - F)², in (eV/Å)²."""
    error = graph.labels["forces"] - prediction["forces"]
    weight = _property_weight(graph, "forces")[graph.atom_graph]
    return _mean(weight[:, None] * error**2, graph.atom_mask)


def stress(prediction: Prediction, graph: Graph) -> Loss:
    """Mean over graphs and the nine components of w v (S_ref - S)², in (eV/Å³)²."""
    error = graph.labels["stress"] - prediction["stress"]
    return _mean(_property_weight(graph, "stress")[:, None, None] * error**2, graph.graph_mask)


def atomic_multipoles(prediction: Prediction, graph: Graph) -> Loss:
    """Mean over atoms and (L+1)² components of w v (p_ref - p)², charges in e, dipoles in e Å."""
    reference, predicted = graph.labels["atomic_multipoles"], prediction["multipoles"]
    if reference.shape != predicted.shape:
        raise LossError(
            f"loss term 'atomic_multipoles': the labels have {reference.shape[1]} components per "
            f"atom, the model predicts {predicted.shape[1]}; set atomic_multipoles_max_l to the "
            "order that the model predicts"
        )
    weight = _property_weight(graph, "atomic_multipoles")[graph.atom_graph]
    return _mean(weight[:, None] * (reference - predicted) ** 2, graph.atom_mask)


def total_charge(prediction: Prediction, graph: Graph) -> Loss:
    """Mean over graphs of w (Q_ref - Σq)², in e².

    Every configuration has a total charge (it is an input of the model), so there is no weight of
    the property.
    """
    error = graph.total_charge - prediction["total_charge"]
    return _mean(graph.config_weight * error**2, graph.graph_mask)


def total_charge_per_atom(prediction: Prediction, graph: Graph) -> Loss:
    """Mean over graphs of w ((Q_ref - Σq) / N)², in (e/atom)²; no weight of the property."""
    error = (graph.total_charge - prediction["total_charge"]) / _atoms_per_graph(graph)
    return _mean(graph.config_weight * error**2, graph.graph_mask)


def dipole(prediction: Prediction, graph: Graph) -> Loss:
    """Mean over graphs and components of w v_c (D_ref - D)_c², in (e Å)²."""
    error = graph.labels["dipole"] - prediction["dipole"]
    return _mean(_dipole_weight(graph) * error**2, graph.graph_mask)


def dipole_per_atom(prediction: Prediction, graph: Graph) -> Loss:
    """Mean over graphs and components of w v_c ((D_ref - D)_c / N)², in (e Å/atom)²."""
    error = (graph.labels["dipole"] - prediction["dipole"]) / _atoms_per_graph(graph)[:, None]
    return _mean(_dipole_weight(graph) * error**2, graph.graph_mask)


LOSSES: dict[str, LossTerm] = {
    term.name: term
    for term in (
        LossTerm(
            "energy_per_atom",
            energy_per_atom,
            "energy error per atom",
            predictions=("energy",),
            labels=("energy",),
        ),
        LossTerm("forces", forces, "force components", predictions=("forces",), labels=("forces",)),
        LossTerm(
            "stress", stress, "stress components", predictions=("stress",), labels=("stress",)
        ),
        LossTerm(
            "atomic_multipoles",
            atomic_multipoles,
            "multipole coefficients of each atom",
            predictions=("multipoles",),
            labels=("atomic_multipoles",),
        ),
        LossTerm("total_charge", total_charge, "sum of the charges", predictions=("total_charge",)),
        LossTerm(
            "total_charge_per_atom",
            total_charge_per_atom,
            "sum of the charges, per atom",
            predictions=("total_charge",),
        ),
        LossTerm(
            "dipole", dipole, "dipole components", predictions=("dipole",), labels=("dipole",)
        ),
        LossTerm(
            "dipole_per_atom",
            dipole_per_atom,
            "dipole components, per atom",
            predictions=("dipole",),
            labels=("dipole",),
        ),
    )
}
"""All loss terms by the name used in the training schedule."""


def weighted_loss(
    terms: Mapping[str, float | Loss], prediction: Prediction, graph: Graph
) -> tuple[Loss, dict[str, Loss]]:
    """Sum of the named terms times their weights.

    Args:
        terms: weight of each term, by name; weights may be traced, so that stages which differ in
            weights only share one compiled step.
        prediction: model outputs by name.
        graph: the batch, with labels and weights.

    Returns:
        The total, and each term already multiplied by its weight, in the order of ``terms``.
    """
    values = {
        name: weight * LOSSES[name].function(prediction, graph) for name, weight in terms.items()
    }
    return sum(values.values(), start=jnp.zeros((), dtype=graph.positions.dtype)), values


def check_terms(
    names: Collection[str], outputs: Collection[str], labels: Mapping[str, float], *, where: str
) -> None:
    """Refuse terms that cannot be trained on, before training starts.

    Args:
        names: names of the terms of one stage.
        outputs: names of what the model predicts.
        labels: for each label of the training set, the sum of its weights over the set (any
            number that is zero exactly when no configuration has the label).
        where: what the terms belong to, for the message (``"stage 'direct'"``).

    Raises:
        LossError: no term at all, an unknown term, a model output that does not exist, or a label
            that no training configuration has.
    """
    if not names:
        raise LossError(f"{where}: the loss has no term; known terms: {', '.join(LOSSES)}")
    for name in names:
        if name not in LOSSES:
            raise LossError(f"{where}: {unknown_name('loss term', name, LOSSES)}")
        term = LOSSES[name]
        absent = [output for output in term.predictions if output not in outputs]
        if absent:
            raise LossError(
                f"{where}: loss term '{name}' ({term.description}) needs the model output "
                f"'{absent[0]}', but this model predicts only {', '.join(sorted(outputs))}"
            )
        unlabelled = [label for label in term.labels if not labels.get(label, 0.0)]
        if unlabelled:
            raise LossError(
                f"{where}: loss term '{name}' ({term.description}) needs the label "
                f"'{unlabelled[0]}', but no training configuration has it with a weight above "
                "zero; check the keys under 'heads' and the weights in the file"
            )


def needs_forces(names: Collection[str]) -> bool:
    """Whether any of the named terms reads the forces."""
    return any("forces" in LOSSES[name].predictions for name in names)


def needs_stress(names: Collection[str]) -> bool:
    """Whether any of the named terms reads the stress."""
    return any("stress" in LOSSES[name].predictions for name in names)


def _atoms_per_graph(graph: Graph) -> Float[Array, "graphs"]:
    """Number of atoms of each graph; 1 for graphs without real atoms."""
    counts = graph.sum_atoms(jnp.ones_like(graph.positions[:, 0]))
    return jnp.where(counts > 0.0, counts, jnp.ones_like(counts))


def _property_weight(graph: Graph, label: str) -> Float[Array, "graphs"]:
    """Weight of the configuration times that of the label."""
    return graph.config_weight * graph.weights[label]


def _dipole_weight(graph: Graph) -> Float[Array, "graphs 3"]:
    """Weight of the configuration times that of each Cartesian component of the dipole."""
    return graph.config_weight[:, None] * graph.weights["dipole"]


def _mean(values: Float[Array, "entries *rest"], mask: Bool[Array, "entries"]) -> Loss:
    """Mean over all elements of the real entries."""
    mask = mask.reshape(mask.shape + (1,) * (values.ndim - 1))
    real = jnp.broadcast_to(mask, values.shape)
    count = jnp.sum(real.astype(values.dtype))
    total = jnp.sum(jnp.where(real, values, jnp.zeros_like(values)))
    return total / jnp.maximum(count, jnp.ones_like(count))
