"""Evaluating a run while it goes on: errors on the sets, and which parameters are kept."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from mace_scf_jax.graph import Graph
from mace_scf_jax.training.config.schedule import Stage
from mace_scf_jax.training.loop.checkpoints import CheckpointStore
from mace_scf_jax.training.loop.devices import rows_of_all_processes
from mace_scf_jax.training.loop.evaluation import Evaluation, evaluate
from mace_scf_jax.training.loop.loop_settings import (
    DivergedTrainingError,
    LoopSettings,
    TrainingData,
)
from mace_scf_jax.training.loop.observer import EvaluationRecord, Observer
from mace_scf_jax.training.loop.state import Progress
from mace_scf_jax.training.loop.steps import Mode, Steps, scalars
from mace_scf_jax.training.optimise.parameter_groups import Parameters

logger = logging.getLogger(__name__)


class Validator:
    """Evaluates parameters on sets and keeps the best of each stage.

    Args:
        steps: the compiled steps.
        modes: how each stage uses the model.
        data: batches.
        settings: patience, and which files are kept.
        store: where checkpoints go.
        observer: told about evaluations.
        dtype: precision of the parameters.
    """

    def __init__(
        self,
        steps: Steps,
        modes: Callable[[Stage], Mode],
        data: TrainingData,
        *,
        settings: LoopSettings,
        store: CheckpointStore,
        observer: Observer,
        dtype: Any,
    ):
        self._steps = steps
        self._modes = modes
        self._data = data
        self._settings = settings
        self._store = store
        self._observer = observer
        self._dtype = dtype

    def evaluate(
        self, parameters: Parameters, batches: Iterable[Graph], stage: Stage
    ) -> Evaluation:
        """Loss and metrics of given parameters on a set, as in a stage.

        Args:
            parameters: of the model.
            batches: the set.
            stage: the stage.
        """
        weights = scalars(stage.loss, self._dtype)
        mode = self._modes(stage)
        return evaluate(self._steps, mode, parameters, batches, weights, stage.loss_options)

    def structure_losses(
        self, parameters: Parameters, batches: Iterable[Graph], stage: Stage, *, epoch: int
    ) -> np.ndarray:
        """Share of each structure of a set in the loss, in the order of the set.

        Args:
            parameters: of the model.
            batches: the set.
            stage: the stage.
            epoch: for messages.

        Raises:
            DivergedTrainingError: one is not finite.
        """
        weights = scalars(stage.loss, self._dtype)
        mode = self._modes(stage)
        losses = []
        for graph in batches:
            prediction = self._steps.predict(mode, parameters, graph)
            shares = self._steps.structure_losses(prediction, graph, weights, stage.loss_options)
            parts = self._steps.devices.parts((shares, graph.graph_mask))
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
            stage: the current stage.
            progress: before the evaluation.
            parameters: of the model.

        Returns:
            The progress after it.

        Raises:
            DivergedTrainingError: a loss is not finite.
        """
        result = self._evaluate_set(stage, progress, "valid", self._data.validation, parameters)
        for name, batches in self._data.monitored.items():
            self._evaluate_set(stage, progress, name, batches, parameters)
        if result.loss < progress.best_loss:
            return self._kept(stage, progress, parameters, result).replace(
                validation_loss=result.loss,
                best_loss=result.loss,
                evaluations_without_improvement=0,
            )
        if self._settings.save_all_checkpoints:
            self._store.save_best(stage.name, progress.epoch, parameters, {"loss": result.loss})
        waited = progress.evaluations_without_improvement + 1
        if waited >= self._settings.patience:
            logger.info("Stopping optimization after %d evaluations without improvement", waited)
        return progress.replace(
            validation_loss=result.loss,
            evaluations_without_improvement=waited,
            stopped_early=waited >= self._settings.patience,
        )

    def _evaluate_set(
        self,
        stage: Stage,
        progress: Progress,
        name: str,
        batches: Callable[[], Iterable[Graph]],
        parameters: Parameters,
    ) -> Evaluation:
        started = time.perf_counter()
        result = self.evaluate(parameters, batches(), stage)
        if not math.isfinite(result.loss):
            raise DivergedTrainingError(
                f"stage '{stage.name}', epoch {progress.epoch}: the loss of the set '{name}' is "
                f"{result.loss}. Training stopped; the best parameters so far are kept"
            )
        self._observer.evaluated(
            EvaluationRecord(
                stage=stage.name,
                epoch=progress.epoch,
                set_name=name,
                loss=result.loss,
                metrics=result.metrics,
                time=time.perf_counter() - started,
                improved=name == "valid" and result.loss < progress.best_loss,
                scf=result.scf,
            )
        )
        return result

    def _kept(
        self, stage: Stage, progress: Progress, parameters: Parameters, result: Evaluation
    ) -> Progress:
        """Save the best parameters so far; the file that they replace is removed later."""
        file = self._store.save_best(
            stage.name, progress.epoch, parameters, {"loss": result.loss, "stage": stage.name}
        )
        replaced = progress.kept.get(stage.name)
        superseded = progress.superseded
        keep_all = self._settings.keep_checkpoints or self._settings.save_all_checkpoints
        if replaced not in (None, file) and not keep_all:
            superseded = (*superseded, replaced)
        return progress.replace(kept={**progress.kept, stage.name: file}, superseded=superseded)
