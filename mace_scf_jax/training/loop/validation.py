"""Evaluating a run while it goes on: errors on the sets, and which parameters are kept."""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from mace_scf_jax.graph import Graph
from mace_scf_jax.predict.metrics import ErrorAccumulator
from mace_scf_jax.training.loop.checkpoints import CheckpointStore
from mace_scf_jax.training.loop.devices import rows_of_all_processes
from mace_scf_jax.training.loop.observer import EvaluationRecord, Observer
from mace_scf_jax.training.loop.options import ValidationOptions
from mace_scf_jax.training.loop.scf_counts import NO_COUNTS, SCFCounts, log_steps
from mace_scf_jax.training.loop.schedule import Stage
from mace_scf_jax.training.loop.state import DivergedTrainingError, Progress
from mace_scf_jax.training.loop.steps import BatchLoss, Mode, Steps, one_behind, scalars
from mace_scf_jax.training.optimise.parameter_groups import Parameters

logger = logging.getLogger(__name__)

VALIDATION = "valid"
"""Name of the validation set."""

Sets = Mapping[str, Callable[[], Iterable[Graph]]]
"""The batches of each set by its name, each time they are asked for."""


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Result of one evaluation."""

    loss: float
    """Plain mean of the losses of the batches, see `loss_of_set`."""
    metrics: Mapping[str, float]
    scf: SCFCounts = NO_COUNTS
    """How the self-consistent solutions ended."""


@dataclasses.dataclass(frozen=True)
class Validator:
    """Evaluates parameters on sets and keeps the best of each stage."""

    steps: Steps
    modes: Callable[[Stage], Mode]
    """How each stage uses the model."""
    sets: Sets
    """The validation set, and others to evaluate whenever it is."""
    options: ValidationOptions
    """Patience, and which files are kept."""
    store: CheckpointStore
    """Where checkpoints go."""
    observers: Sequence[Observer]
    """Told about evaluations."""
    dtype: Any
    """Precision of the parameters."""

    def evaluate(
        self, parameters: Parameters, batches: Iterable[Graph], stage: Stage
    ) -> Evaluation:
        """Evaluate given parameters on a set as in a stage.

        Raises:
            ValueError: the set has no batch.
        """
        mode, weights = self.modes(stage), scalars(stage.loss, self.dtype)

        def results() -> Iterator[tuple]:
            for graph in batches:
                prediction = self.steps.predict(mode, parameters, graph)
                loss = self.steps.loss(prediction, graph, weights, stage.loss_options)
                yield graph, prediction, loss

        errors = ErrorAccumulator()
        losses: list[BatchLoss] = []
        counts = NO_COUNTS
        for graph, prediction, on_device in one_behind(results()):
            loss = jax.device_get(on_device)
            losses.append(loss)
            terms = {name: float(loss.terms[name]) for name in weights}
            logger.debug("loss breakdown: %s, ", breakdown(terms))
            for predicted, part in self.steps.devices.parts((prediction, graph)):
                errors.update(predicted, part)
            ended = SCFCounts.of(loss.scf)
            log_steps(loss.scf_steps, ended)
            counts += ended
        if not losses:
            raise ValueError("cannot evaluate an empty set of configurations")
        metrics = errors.metrics(gathered=rows_of_all_processes)
        return Evaluation(loss_of_set(losses, stage.loss), metrics, counts)

    def structure_losses(
        self, parameters: Parameters, batches: Iterable[Graph], stage: Stage, *, epoch: int
    ) -> np.ndarray:
        """Compute the share of each structure of a set in the loss, in the order of the set.

        Args:
            batches: the set.
            epoch: for messages.

        Raises:
            DivergedTrainingError: one is not finite.
        """
        mode, weights = self.modes(stage), scalars(stage.loss, self.dtype)
        losses = []
        for graph in batches:
            prediction = self.steps.predict(mode, parameters, graph)
            shares = self.steps.structure_losses(prediction, graph, weights, stage.loss_options)
            parts = self.steps.devices.parts((shares, graph.graph_mask))
            own = np.concatenate([share[real] for share, real in parts])
            losses.append(rows_of_all_processes(own.astype(np.float64)))
        found = np.concatenate(losses)
        if not np.all(np.isfinite(found)):
            raise DivergedTrainingError(
                f"stage '{stage.name}', epoch {epoch}: the loss of training structure "
                f"{int(np.argmin(np.isfinite(found)))} is not finite. Training stopped; the best "
                "parameters so far are kept"
            )
        return np.maximum(found, 0.0)

    def validate(self, stage: Stage, progress: Progress, parameters: Parameters) -> Progress:
        """Evaluate parameters, and keep them if they are the best of the stage.

        Args:
            progress: before the evaluation.

        Returns:
            The progress after it.

        Raises:
            DivergedTrainingError: a loss is not finite.
        """
        results = {
            name: self._evaluate_set(stage, progress, name, parameters) for name in self.sets
        }
        loss = results[VALIDATION].loss
        if loss < progress.best_loss:
            return self._keep(stage, progress, parameters, loss).replace(
                validation_loss=loss, best_loss=loss, evaluations_without_improvement=0
            )
        if self.options.save_all_checkpoints:
            self.store.save_best(stage.name, progress.epoch, parameters, {"loss": loss})
        waited = progress.evaluations_without_improvement + 1
        if waited >= self.options.patience:
            logger.info("Stopping optimization after %d evaluations without improvement", waited)
        return progress.replace(
            validation_loss=loss,
            evaluations_without_improvement=waited,
            stopped_early=waited >= self.options.patience,
        )

    def _evaluate_set(
        self, stage: Stage, progress: Progress, name: str, parameters: Parameters
    ) -> Evaluation:
        started = time.perf_counter()
        result = self.evaluate(parameters, self.sets[name](), stage)
        if not math.isfinite(result.loss):
            raise DivergedTrainingError(
                f"stage '{stage.name}', epoch {progress.epoch}: the loss of the set '{name}' is "
                f"{result.loss}. Training stopped; the best parameters so far are kept"
            )
        record = EvaluationRecord(
            stage=stage.name,
            epoch=progress.epoch,
            set_name=name,
            loss=result.loss,
            metrics=result.metrics,
            time=time.perf_counter() - started,
            improved=name == VALIDATION and result.loss < progress.best_loss,
            scf=result.scf,
        )
        for observer in self.observers:
            observer.evaluated(record)
        return result

    def _keep(
        self, stage: Stage, progress: Progress, parameters: Parameters, loss: float
    ) -> Progress:
        """Save the best parameters so far; the file that they replace is removed later."""
        file = self.store.save_best(
            stage.name, progress.epoch, parameters, {"loss": loss, "stage": stage.name}
        )
        replaced = progress.kept.get(stage.name)
        superseded = progress.superseded
        keep_all = self.options.keep_checkpoints or self.options.save_all_checkpoints
        if replaced not in (None, file) and not keep_all:
            superseded = (*superseded, replaced)
        return progress.replace(kept={**progress.kept, stage.name: file}, superseded=superseded)


def loss_of_set(batches: Sequence[BatchLoss], weights: Mapping[str, float]) -> float:
    """The loss of a set: the mean over its batches, but roots are taken once, of the whole set.

    Args:
        batches: losses of the batches, at least one.
        weights: of the terms.
    """
    rooted = batches[0].roots
    plain = [float(batch.value) - sum(float(batch.terms[it]) for it in rooted) for batch in batches]
    loss = float(np.mean(plain))
    for name in rooted:
        total, count = np.sum([batch.roots[name] for batch in batches], axis=0, dtype=np.float64)
        loss += weights[name] * float(np.sqrt(total / count)) if count > 0.0 else 0.0
    return loss


def breakdown(terms: Mapping[str, float]) -> str:
    """Tell the weighted terms of a loss as ``name: value, name: value`` with full precision."""
    return ", ".join(f"{name}: {value!r}" for name, value in terms.items())
