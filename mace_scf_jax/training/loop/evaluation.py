"""Loss and metrics of given parameters on a set of configurations."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable, Iterator, Mapping

import jax
import numpy as np

from mace_scf_jax.graph import Graph
from mace_scf_jax.predict.metrics import ErrorAccumulator
from mace_scf_jax.training.loop.devices import rows_of_all_processes
from mace_scf_jax.training.loop.scf_counts import NO_COUNTS, SCFCounts
from mace_scf_jax.training.loop.scf_steps import log_steps
from mace_scf_jax.training.loop.steps import (
    NO_OPTIONS,
    LossOptions,
    Mode,
    Scalars,
    Steps,
    one_behind,
)
from mace_scf_jax.training.optimise.parameter_groups import Parameters

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Result of one evaluation."""

    loss: float
    """Plain mean of the losses of the batches."""
    metrics: Mapping[str, float]
    scf: SCFCounts = NO_COUNTS
    """How the self-consistent solutions ended."""


def evaluate(
    steps: Steps,
    mode: Mode,
    parameters: Parameters,
    batches: Iterable[Graph],
    weights: Scalars,
    options: LossOptions = NO_OPTIONS,
) -> Evaluation:
    """Evaluate a set.

    Args:
        steps: the compiled steps.
        mode: how the model is used.
        parameters: of the model.
        batches: the set.
        weights: weight of each loss term.
        options: of the loss terms.

    Raises:
        ValueError: the set has no batch.
    """

    def results() -> Iterator[tuple]:
        for graph in batches:
            prediction = steps.predict(mode, parameters, graph)
            yield graph, prediction, steps.loss(prediction, graph, weights, options)

    errors = ErrorAccumulator()
    losses: list[float] = []
    counts = NO_COUNTS
    for graph, prediction, loss in one_behind(results()):
        total, terms, ends, scf_steps = jax.device_get(loss)
        losses.append(float(total))
        logger.debug(
            "loss breakdown: %s, ", breakdown({name: float(terms[name]) for name in weights})
        )
        for predicted, part in steps.devices.parts((prediction, graph)):
            errors.update(predicted, part)
        ended = SCFCounts.of(ends)
        log_steps(scf_steps, ended)
        counts += ended
    if not losses:
        raise ValueError("cannot evaluate an empty set of configurations")
    metrics = errors.metrics(gathered=rows_of_all_processes)
    return Evaluation(float(np.mean(losses)), metrics, counts)


def breakdown(terms: Mapping[str, float]) -> str:
    """Weighted terms of a loss as ``name: value, name: value`` with full precision."""
    return ", ".join(f"{name}: {value!r}" for name, value in terms.items())
