"""What a loss term is, the weighted means that all of them are made of, and their weighted sum.

A term is a function ``term(prediction, graph) -> Mean``, or ``term(prediction, graph, options)``;
:func:`register_loss` makes it known under its name and says what it needs.

Per-entry squared errors are multiplied by the weight of the configuration and by the weight of the
property (zero where the label is missing), summed, and divided by the number of real entries.
Weights are therefore not part of the denominator: a configuration without a label still counts as
one entry, as in the PyTorch reference. Padding atoms and graphs never count.

A term may be the root of a mean instead (:func:`root_mean`), of the entries that have a label.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mace_scf_jax.graph import Graph
from mace_scf_jax.options import ConfigurationError, OptionGroup
from mace_scf_jax.registry import Registry, unknown_name

logger = logging.getLogger(__name__)

Prediction = Mapping[str, Array]
Loss = Float[Array, ""]

WEIGHT_MODIFIER = "loss_weight_modifier"
"""Model output [graphs] that multiplies the weights of the configurations, if there is one: a model
can so take back configurations that it could not solve."""


GEOMETRY_DERIVATIVES = frozenset({"forces", "stress", "virials"})
"""Outputs that are derivatives of the energy by positions or strain."""


class LossError(ValueError):
    """A loss term is unknown, or the model or the data lack what it needs."""


class Mean(NamedTuple):
    """A mean, or the root of one, whose two parts can still be summed over the parts of a batch."""

    total: Loss
    """Sum over the entries."""
    count: Loss
    """Number of entries, or sum of their weights."""
    rooted: bool = False
    """Whether the term is the root of the mean."""

    def value(self) -> Loss:
        """Compute the mean or its root; 0 without entries."""
        return self.share(self)

    def share(self, whole: Mean) -> Loss:
        """Compute the share of this part in the value of a batch: shares add up to it.

        So do their derivatives. Those of the root L = √(T/C) are dT/(2 C L), and zero at L = 0.

        Args:
            whole: the mean over all parts.
        """
        count = jnp.where(whole.count > 0.0, whole.count, jnp.ones_like(whole.count))
        if not self.rooted:
            return self.total / count
        square = jax.lax.stop_gradient(whole.total) / count
        root = jnp.sqrt(jnp.where(square > 0.0, square, jnp.ones_like(square)))
        share = self.total / (count * root)
        return 0.5 * (share + jax.lax.stop_gradient(share))

    def over(self, sum_parts: Callable[[Loss], Loss]) -> Mean:
        """Sum over the parts of a batch, as far as shares need it.

        Args:
            sum_parts: sums a number over the parts.
        """
        total = sum_parts(jax.lax.stop_gradient(self.total)) if self.rooted else self.total
        return self._replace(total=total, count=sum_parts(self.count))


@dataclasses.dataclass(frozen=True)
class LossTerm:
    """One term of the loss: its formula and what it needs."""

    name: str
    function: Callable[..., Mean]
    """Of a prediction and a batch, and of the options if the term has any."""
    description: str
    predictions: tuple[str, ...]
    """Model outputs that the term reads."""
    labels: tuple[str, ...] = ()
    """Labels that the term reads; at least one training configuration must have each."""
    options: type[OptionGroup] | None = None
    """Its options; all have defaults."""


LOSSES: Registry[LossTerm] = Registry(
    "loss term",
    modules=tuple(f"{__package__}.{name}" for name in ("molecules", "properties", "solution")),
)
"""All loss terms by the name used in the training schedule."""


def register_loss(
    description: str,
    *,
    predictions: tuple[str, ...],
    labels: tuple[str, ...] = (),
    options: type[OptionGroup] | None = None,
) -> Callable[[Callable[..., Mean]], Callable[..., Mean]]:
    """Make a function known as the loss term of its name; a decorator.

    Args:
        description: what the term is about, for messages.
        predictions: model outputs that it reads.
        labels: labels that it reads, of which at least one training configuration must have each.
        options: what a schedule may set besides the weight, all with defaults; the function takes
            them as its third argument.

    Raises:
        ValueError: there is another term of that name.
    """

    def register(function: Callable[..., Mean]) -> Callable[..., Mean]:
        name = function.__name__
        LOSSES.add(LossTerm(name, function, description, predictions, labels, options))
        return function

    return register


def atoms_per_graph(graph: Graph) -> Float[Array, "graphs"]:
    """Count the atoms of each graph; 1 for graphs without real atoms."""
    counts = graph.sum_atoms(jnp.ones(graph.num_atoms, graph.dtype))
    return jnp.where(counts > 0.0, counts, jnp.ones_like(counts))


def property_weight(graph: Graph, label: str) -> Float[Array, "graphs"]:
    """Multiply the weight of the configuration by that of the label."""
    return graph.config_weight * graph.weights[label]


def mean(values: Float[Array, "entries *rest"], mask: Bool[Array, "entries *leading"]) -> Mean:
    """Average over the elements that the mask keeps.

    Args:
        values: anything where the mask is False.
        mask: for each entry, or for the leading axes of each entry.
    """
    mask = mask.reshape(mask.shape + (1,) * (values.ndim - mask.ndim))
    real = jnp.broadcast_to(mask, values.shape)
    return Mean(
        total=jnp.sum(jnp.where(real, values, jnp.zeros_like(values))),
        count=jnp.sum(real.astype(values.dtype)),
    )


def root_mean(
    squares: Float[Array, "entries *rest"],
    weights: Float[Array, "entries *ones"],
    mask: Bool[Array, "entries *leading"],
) -> Mean:
    """Root of the weighted mean of squares, √(Σ w e² / Σ w), over what the mask keeps.

    Args:
        squares: anything where the mask is False.
        weights: of the entries; those of weight zero do not count.
        mask: as of :func:`mean`.
    """
    weights = jnp.broadcast_to(weights, squares.shape)
    count = mean(weights, mask).total
    return Mean(mean(weights * squares, mask).total, jax.lax.stop_gradient(count), rooted=True)


def loss_inputs() -> frozenset[str]:
    """Name the model outputs that any loss reads."""
    read = {output for term in LOSSES.values() for output in term.predictions}
    return frozenset(read | {WEIGHT_MODIFIER})


def loss_options(name: str, values: Mapping[str, Any]) -> OptionGroup | None:
    """Read the options of a loss term, completed by defaults.

    Args:
        name: of the term.
        values: options by name, without the weight.

    Returns:
        The options; None for a term without.

    Raises:
        ConfigurationError: an option is unknown or its value makes no sense.
    """
    options = LOSSES[name].options
    if options is None and values:
        raise ConfigurationError(f"takes no option, found {next(iter(values))!r}")
    return None if options is None else options(**values)


def loss_means(
    names: Iterable[str],
    prediction: Prediction,
    graph: Graph,
    *,
    options: Mapping[str, Any] | None = None,
) -> dict[str, Mean]:
    """Compute the named terms, not yet divided.

    Args:
        graph: the batch, with labels and weights.
        options: for terms with options, the result of :func:`loss_options`; defaults otherwise.
    """
    given = options or {}
    if WEIGHT_MODIFIER in prediction:
        graph = graph.replace(config_weight=graph.config_weight * prediction[WEIGHT_MODIFIER])
    means = {}
    for name in names:
        term = LOSSES[name]
        extra = () if term.options is None else (given.get(name) or term.options(),)
        means[name] = term.function(prediction, graph, *extra)
    return means


def weighted_loss(
    terms: Mapping[str, float | Loss],
    prediction: Prediction,
    graph: Graph,
    *,
    options: Mapping[str, Any] | None = None,
    sum_parts: Callable[[Loss], Loss] | None = None,
) -> tuple[Loss, dict[str, Loss]]:
    """Sum the named terms times their weights.

    Args:
        terms: weight of each term, by name; weights may be traced, so that stages which differ in
            weights only share one compiled step.
        graph: the batch, with labels and weights.
        options: for terms with options, the result of :func:`loss_options`; defaults otherwise.
        sum_parts: for one of several parts of a batch, sums a number of each over all of them. The
            result then is the share of the part: shares add up to the loss.

    Returns:
        The total, and each term already multiplied by its weight, in the order of ``terms``.
    """
    means = loss_means(terms, prediction, graph, options=options)
    values = {
        name: terms[name] * part.share(part if sum_parts is None else part.over(sum_parts))
        for name, part in means.items()
    }
    return sum(values.values(), start=jnp.zeros((), dtype=graph.dtype)), values


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


def check_validation(loss: Mapping[str, float], labels: Mapping[str, float], *, where: str) -> None:
    """Refuse a loss of which the validation set has nothing: the best epoch would be any.

    Terms without labels and terms of weight zero do not count; a warning names terms that have no
    label while others do.

    Args:
        loss: weights of the terms of one stage, by name.
        labels: for each label of the validation set, the sum of its weights over the set.
        where: what the terms belong to, for the message.

    Raises:
        LossError: no term has all of its labels in the validation set.
    """
    weighted = {name: LOSSES[name].labels for name, weight in loss.items() if weight}
    missing = {
        name: [label for label in needed if not labels.get(label, 0.0)]
        for name, needed in weighted.items()
    }
    blind = [name for name, lacking in missing.items() if lacking]
    if not blind:
        return
    told = ", ".join(dict.fromkeys(label for name in blind for label in missing[name]))
    if all(missing[name] for name, needed in weighted.items() if needed):
        raise LossError(
            f"{where}: no validation configuration has {told} with a weight above zero, so that "
            "nothing could tell which epoch is the best; give a valid_file with labels, or another "
            "split_seed or valid_fraction"
        )
    logger.warning(
        "%s: no validation configuration has %s; the validation loss lacks %s",
        *(where, told, ", ".join(blind)),
    )


def outputs_read(names: Iterable[str]) -> frozenset[str]:
    """Name the model outputs that the named terms read."""
    return frozenset(output for name in names for output in LOSSES[name].predictions)
