"""Training losses: plain functions of a prediction and a batch, and their weighted sum.

Each term is a function ``term(prediction, graph) -> Mean``; the formulas are in
``properties``, ``molecules``, ``solution`` and ``density``.

``LOSSES`` is the registry: name -> :class:`LossTerm`, which also says what the term needs, so that
:func:`check_terms` can refuse a term before training starts instead of training on nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax.numpy as jnp

from mace_scf_jax.graph import Graph
from mace_scf_jax.hints import unknown_name
from mace_scf_jax.training.losses import density, molecules, properties, solution
from mace_scf_jax.training.losses.terms import Loss, LossError, LossTerm, Prediction

LOSSES: dict[str, LossTerm] = {
    term.name: term
    for module in (properties, molecules, solution, density)
    for term in module.TERMS
}
"""All loss terms by the name used in the training schedule."""

WEIGHT_MODIFIER = "loss_weight_modifier"
"""Model output [graphs] that multiplies the weights of the configurations, if there is one: a model
can so take back configurations that it could not solve."""

LOSS_INPUTS = frozenset(output for term in LOSSES.values() for output in term.predictions) | {
    WEIGHT_MODIFIER
}
"""The model outputs that losses read."""


def loss_options(name: str, values: Mapping[str, Any]) -> Any | None:
    """The options of a loss term, checked and completed by defaults.

    Args:
        name: of the term.
        values: options by name, without the weight.

    Returns:
        A frozen dataclass; None for a term without options.

    Raises:
        LossError: an option is unknown or its value makes no sense.
    """
    options = LOSSES[name].options
    known = {} if options is None else {field.name for field in dataclasses.fields(options)}
    for key in values:
        if not known:
            raise LossError(f"loss term {name!r} takes no option {key!r}")
        if key not in known:
            raise LossError(f"loss term {name!r}: {unknown_name('option', key, known)}")
    try:
        return None if options is None else options(**values)
    except ValueError as error:
        raise LossError(f"loss term {name!r}: {error}") from None


def weighted_loss(
    terms: Mapping[str, float | Loss],
    prediction: Prediction,
    graph: Graph,
    *,
    options: Mapping[str, Any] | None = None,
    sum_counts: Callable[[Loss], Loss] | None = None,
) -> tuple[Loss, dict[str, Loss]]:
    """Sum of the named terms times their weights.

    Args:
        terms: weight of each term, by name; weights may be traced, so that stages which differ in
            weights only share one compiled step.
        prediction: model outputs by name.
        graph: the batch, with labels and weights.
        options: for terms with options, the result of :func:`loss_options`; defaults otherwise.
        sum_counts: for one of several parts of a batch, numbers of entries of all parts from those
            of this one. The result then is the share of the part: shares add up to the loss.

    Returns:
        The total, and each term already multiplied by its weight, in the order of ``terms``.
    """
    given = options or {}
    if WEIGHT_MODIFIER in prediction:
        graph = graph.replace(config_weight=graph.config_weight * prediction[WEIGHT_MODIFIER])
    values = {}
    for name, weight in terms.items():
        term = LOSSES[name]
        extra = () if term.options is None else (given.get(name) or term.options(),)
        mean = term.function(prediction, graph, *extra)
        if sum_counts is not None:
            mean = mean._replace(count=sum_counts(mean.count))
        values[name] = weight * mean.value()
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
