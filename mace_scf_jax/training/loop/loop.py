"""The training loop: stages, epochs, validation, checkpoints.

:class:`Trainer` turns the crank: it feeds batches to the compiled step, checks every loss and
gradient, validates, keeps the best parameters of each stage, and saves the whole state after each
epoch, unless that was short, and from time to time within one. All that the rest of a run depends
on is in :class:`TrainingState` and :class:`Progress`; batches are a function of these. So a run
that is killed and started again ends with the same parameters, bit for bit, as one that was not: on
the same machine and libraries, and on a GPU with ``XLA_FLAGS=--xla_gpu_deterministic_ops=true``.

What happens is told to an :class:`Observer`; logs, progress bars and result files live there.

Differences from the PyTorch reference, on purpose: a stage is also evaluated after its last epoch,
so that each stage has parameters to keep; a loss that is not finite is an error and never counts as
an improvement; runs resume at the last saved step rather than the best epoch.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mace_scf_jax.data.on_device import ChosenBatches
from mace_scf_jax.graph import Graph
from mace_scf_jax.messages import FILES_ONLY
from mace_scf_jax.training.loop import resuming
from mace_scf_jax.training.loop.checkpoints import CheckpointStore
from mace_scf_jax.training.loop.data import EpochBatches, TrainingData
from mace_scf_jax.training.loop.devices import Devices, require_agreement
from mace_scf_jax.training.loop.observer import Observer, StepRecord
from mace_scf_jax.training.loop.options import ValidationOptions, WatchOptions
from mace_scf_jax.training.loop.scf_counts import SCFCounts, log_steps
from mace_scf_jax.training.loop.schedule import Stage
from mace_scf_jax.training.loop.state import (
    DivergedTrainingError,
    Progress,
    TrainingState,
    for_next_stage,
    initial_state,
)
from mace_scf_jax.training.loop.steps import Compilation, Mode, Programs, Steps, scalars
from mace_scf_jax.training.loop.validation import Validator, breakdown
from mace_scf_jax.training.loop.watching import NOTHING_WATCHED, Watched
from mace_scf_jax.training.loop.whole_set import WholeSetSteps
from mace_scf_jax.training.optimise.freezing import Frozen
from mace_scf_jax.training.optimise.learning_rates import next_epoch
from mace_scf_jax.training.optimise.optimiser import OptimiserSettings, evaluation_parameters
from mace_scf_jax.training.optimise.options import SchedulerOptions
from mace_scf_jax.training.optimise.parameter_groups import Parameters

logger = logging.getLogger(__name__)

CHECKPOINT_SECONDS = 60.0
"""Longest time between two saved states within an epoch; a state is saved after epochs too."""
SHORT_SECONDS = 1.0
"""Time since the last saved state up to which the end of an epoch saves none, unless the epoch was
evaluated: to save takes 10 ms, which can be longer than the epoch."""


class Trainer:
    """One training run.

    Args:
        modes: how each stage uses the model; the same object for stages that share steps.
        parameters: initial parameters.
        data: batches, of which the losses of all stages can be computed.
        optimiser: how parameters are updated.
        scheduler: how learning rates fall within a stage; None: they do not.
        validation: when to validate and to stop, and what to keep.
        store: where checkpoints go.
        observers: told what happens, in this order.
        compute_stress: also predict stresses in evaluations.
        devices: that share the work on each batch; the default device of JAX if none are given.
        programs: compiled steps to share with runs that train alike; none if none are given.
        watched: what to look at more closely, and how often.
        checkpoint_seconds: longest time between two saved states within an epoch.

    Raises:
        ParameterGroupError: a parameter belongs to no optimiser group.
    """

    def __init__(
        self,
        modes: Callable[[Stage], Mode],
        parameters: Parameters,
        data: TrainingData,
        *,
        optimiser: OptimiserSettings,
        scheduler: SchedulerOptions | None,
        validation: ValidationOptions,
        store: CheckpointStore,
        observers: Sequence[Observer] = (),
        compute_stress: bool = False,
        devices: Devices | None = None,
        programs: Programs | None = None,
        watched: WatchOptions = NOTHING_WATCHED,
        checkpoint_seconds: float = CHECKPOINT_SECONDS,
    ):
        self.compilations: list[Compilation] = []
        self._modes = modes
        self._data = data
        self._optimiser = optimiser
        self._scheduler = scheduler
        self._eval_interval = validation.eval_interval
        self._store = store
        self._observers = observers
        self._steps = Steps(
            optimiser,
            compute_stress=compute_stress,
            on_compilation=self._note_compilation,
            devices=devices,
            programs=programs,
            watched=watched,
        )
        self._whole_set = (
            WholeSetSteps(self._steps, optimiser, watched) if optimiser.sums_over_batches else None
        )
        self._state = initial_state(
            parameters, optimiser, sampled_structures=data.sampled_structures
        )
        self._dtype = jax.tree.leaves(parameters)[0].dtype
        self.validator = Validator(
            self._steps, modes, data.sets, validation, store, observers, self._dtype
        )
        self._checkpoint_seconds = checkpoint_seconds
        self._saved_at = time.monotonic()

    def run(
        self,
        stages: Sequence[Stage],
        *,
        fingerprint: Mapping[str, Any],
        defaults: Mapping[str, Any] | None = None,
        resume: bool = True,
    ) -> Progress:
        """Train all stages, or what is left of them.

        Args:
            fingerprint: settings and data (JSON values) that must be the same when resuming. The
                stages are added to it: those that are over must be the same, the current one up to
                its end, later ones may change.
            defaults: of the options in it, which a state of an earlier version may not know.
            resume: go on from the saved state, if there is one.

        Returns:
            The progress at the end; ``kept`` names the file of each stage's best parameters.

        Raises:
            CheckpointError: the saved state belongs to another run or cannot be read.
            ConfigurationError: other processes of the run found something else.
            DivergedTrainingError: a loss or gradient is not finite.
        """
        saved = None
        if resume:
            known = defaults or {}
            saved = resuming.resume(self._store, stages, fingerprint, self._state, known)
        if saved is None:
            self._store.discard()
            progress = resuming.start(stages, 0)
        else:
            self._state, progress = saved
        require_agreement([fingerprint, progress.to_json()])
        for index in range(progress.stage, len(stages)):
            if index > progress.stage:
                progress = resuming.start(stages, index, progress)
                self._state = for_next_stage(
                    self._state,
                    self._optimiser,
                    freezes_others=set(stages[index].freeze) != set(stages[index - 1].freeze),
                )
            if not progress.stage_is_over(stages[index].end):
                identity = resuming.identity(fingerprint, stages, index)
                progress = self._run_stage(stages[index], progress, identity)
        return progress

    @property
    def state(self) -> TrainingState:
        """The current arrays of the run."""
        return self._state

    def best_parameters(self, progress: Progress, stage: str) -> tuple[Parameters, Mapping]:
        """The kept parameters of a stage, and the record of their evaluation.

        Args:
            progress: as returned by :meth:`run`.
            stage: name of the stage.
        """
        return self._store.load_best(progress.kept[stage], self._state.parameters)

    def _run_stage(
        self, stage: Stage, progress: Progress, fingerprint: Mapping[str, Any]
    ) -> Progress:
        for observer in self._observers:
            observer.stage_started(stage, progress)
        while not progress.stage_is_over(stage.end):
            for observer in self._observers:
                observer.epoch_started(stage, progress)
            progress = self._train_epoch(stage, progress, fingerprint)
            for observer in self._observers:
                observer.epoch_done(stage, progress)
            is_evaluated = progress.epoch % self._eval_interval == 0 or progress.epoch == stage.end
            if is_evaluated:
                progress = self.validator.validate(stage, progress, self._averaged())
                self._note_structure_losses(stage, progress)
            progress = progress.replace(
                epoch=progress.epoch + 1,
                batch=0,
                learning_rates=next_epoch(
                    self._scheduler, progress.learning_rates, progress.validation_loss
                ),
            )
            if is_evaluated or time.monotonic() - self._saved_at > SHORT_SECONDS:
                progress = self._save(progress, fingerprint)
        for observer in self._observers:
            observer.stage_finished(stage, progress)
        return progress

    def _train_epoch(
        self, stage: Stage, progress: Progress, fingerprint: Mapping[str, Any]
    ) -> Progress:
        """All batches of the epoch that are not done yet."""
        rates = scalars(progress.learning_rates.rates, self._dtype)
        weights = scalars(stage.loss, self._dtype)
        mode = self._modes(stage)
        if self._whole_set is not None:
            return self._train_on_all(stage, progress, mode)
        unread: tuple[Progress, dict[str, Any]] | None = None
        clock = time.perf_counter()

        def read() -> None:
            nonlocal clock
            if unread is not None:
                before, records = unread
                found = jax.device_get(records)  # which waits for the end of the steps
                begun, clock = clock, time.perf_counter()
                self._report_steps(stage, before, found, seconds=clock - begun)

        for batches in self._batches(stage, progress):
            self._state, records = self._steps.train(
                mode, self._state, batches, rates, weights, stage.loss_options, Frozen(stage.freeze)
            )
            read()
            unread = (progress, records)
            count = len(batches) if isinstance(batches, ChosenBatches) else 1
            progress = progress.after_steps(count)
            if time.monotonic() - self._saved_at > self._checkpoint_seconds:
                read()
                unread = None
                progress = self._save(progress, fingerprint)
        read()
        return progress

    def _train_on_all(self, stage: Stage, progress: Progress, mode: Mode) -> Progress:
        """One step on the whole training set."""
        assert self._whole_set is not None
        clock = time.perf_counter()
        self._state, records = self._whole_set.train(
            mode, self._state, self._source(stage), dict(stage.loss), stage.loss_options
        )
        self._report_steps(stage, progress, records, seconds=time.perf_counter() - clock)
        return progress.after_steps(1)

    def _batches(self, stage: Stage, progress: Progress) -> Iterable[Graph | ChosenBatches]:
        """The batches of an epoch that are not done yet."""
        losses = self._state.structure_losses
        known = {} if losses is None else {"losses": np.asarray(losses)}
        return self._source(stage)(progress.epoch, start=progress.batch, **known)

    def _source(self, stage: Stage) -> EpochBatches:
        """The batches that hold what the losses of a stage read."""
        data = self._data
        return data.training if stage.reads_derivatives else data.energies or data.training

    def _note_structure_losses(self, stage: Stage, progress: Progress) -> None:
        """Evaluate the training set, where its losses decide how often each structure is drawn."""
        if self._data.sampled is not None:
            losses = self.validator.structure_losses(
                self._averaged(), self._data.sampled(), stage, epoch=progress.epoch
            )
            self._state = dataclasses.replace(self._state, structure_losses=jnp.asarray(losses))

    def _report_steps(
        self, stage: Stage, before: Progress, records: dict[str, Any], *, seconds: float
    ) -> None:
        """Check the records of steps and pass them on.

        Args:
            before: progress before the first step.
            records: of the compiled steps, which count along the first axis.
            seconds: time that they took together.
        """
        count = len(records["loss"])
        for number in range(count):
            record = jax.tree.map(lambda leaf, number=number: leaf[number], records)
            self._report_step(stage, before.after_steps(number), record, seconds / count)

    def _report_step(
        self, stage: Stage, before: Progress, record: dict[str, Any], seconds: float
    ) -> None:
        """Check the record of a step and pass it on."""
        loss, norm = float(record["loss"]), float(record["gradient_norm"])
        terms = {name: float(value) for name, value in record["terms"].items()}
        terms = {name: terms[name] for name in stage.loss}
        watched = Watched.of(record["watched"])
        if not (math.isfinite(loss) and math.isfinite(norm)):
            what = "gradient" if math.isfinite(loss) else "loss"
            groups = () if watched is None else watched.groups_out_of_bounds()
            where = f"; not finite in the groups {', '.join(groups)}" if groups else ""
            raise DivergedTrainingError(
                f"stage '{stage.name}', epoch {before.epoch}, batch {before.batch}: the {what} is "
                f"not finite (loss {loss}, gradient norm {norm}{where}; {breakdown(terms)}). "
                "Training stopped; saved states are from before this batch. A lower learning rate "
                "or clip_grad may help, or look for wrong labels"
            )
        logger.debug("loss breakdown: %s, ", breakdown(terms))
        counts = SCFCounts.of(record["scf"])
        log_steps(record["scf_steps"], counts)
        limit = self._optimiser.largest_gradient
        step = StepRecord(
            stage=stage.name,
            epoch=before.epoch,
            batch=before.batch,
            opt_step=before.stage_steps,
            loss=loss,
            terms=terms,
            time=seconds,
            grad_norm_before_clip=norm,
            grad_clip_applied=limit is not None and norm > limit,
            scf=counts,
            watched=watched,
        )
        for observer in self._observers:
            observer.step_done(step)

    def _averaged(self) -> Parameters:
        """The parameters that are evaluated and kept."""
        state = self._state
        return evaluation_parameters(
            self._optimiser, state.parameters, state.optimiser, state.average
        )

    def _save(self, progress: Progress, fingerprint: Mapping[str, Any]) -> Progress:
        """Save the state, then remove files that it no longer refers to."""
        self._store.save(self._state, progress, fingerprint)
        self._store.remove(progress.superseded)
        self._saved_at = time.monotonic()
        return progress.replace(superseded=())

    def _note_compilation(self, compilation: Compilation) -> None:
        self.compilations.append(compilation)
        number = sum(other.step == compilation.step for other in self.compilations)
        logger.info(
            "Compiled %s for bucket %d (%s) in %.1f s",
            compilation.step,
            number,
            compilation.bucket,
            compilation.seconds,
            extra=FILES_ONLY,
        )
        for observer in self._observers:
            observer.compiled(compilation)
