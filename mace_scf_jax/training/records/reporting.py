"""What a run writes while it goes on: log lines and JSON lines."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from mace_scf_jax.predict.error_tables import epoch_line, labels_without_metric
from mace_scf_jax.training.config.schedule import Stage
from mace_scf_jax.training.loop.observer import (
    EvaluationRecord,
    FinalErrors,
    Observer,
    StepRecord,
)
from mace_scf_jax.training.loop.scf_counts import NO_COUNTS, SCFCounts
from mace_scf_jax.training.loop.state import Progress
from mace_scf_jax.training.loop.steps import Compilation
from mace_scf_jax.training.optimise.learning_rates import named_rates
from mace_scf_jax.training.records.results_file import FINAL, MONITORED, STEP, VALIDATED

VALIDATION = "valid"
"""Name of the validation set in evaluation records."""

logger = logging.getLogger(__name__)


class Observers(Observer):
    """Passes everything on to several observers.

    Args:
        *observers: told in this order.
    """

    def __init__(self, *observers: Observer):
        self.observers = observers

    def stage_started(self, stage: Stage, progress: Progress) -> None:
        """A stage begins, or is resumed within."""
        for observer in self.observers:
            observer.stage_started(stage, progress)

    def epoch_started(self, stage: Stage, progress: Progress) -> None:
        """An epoch begins, or is resumed within."""
        for observer in self.observers:
            observer.epoch_started(stage, progress)

    def compiled(self, compilation: Compilation) -> None:
        """A step was compiled for one more bucket."""
        for observer in self.observers:
            observer.compiled(compilation)

    def step_done(self, record: StepRecord) -> None:
        """A batch was trained on."""
        for observer in self.observers:
            observer.step_done(record)

    def epoch_done(self, stage: Stage, progress: Progress) -> None:
        """All batches of an epoch were trained on."""
        for observer in self.observers:
            observer.epoch_done(stage, progress)

    def evaluated(self, record: EvaluationRecord) -> None:
        """A set was evaluated."""
        for observer in self.observers:
            observer.evaluated(record)

    def stage_finished(self, stage: Stage, progress: Progress) -> None:
        """A stage is over."""
        for observer in self.observers:
            observer.stage_finished(stage, progress)

    def finally_evaluated(self, errors: FinalErrors) -> None:
        """All sets were evaluated with the best parameters of a stage."""
        for observer in self.observers:
            observer.finally_evaluated(errors)


class LogLines(Observer):
    """One log line per evaluation, what each stage trains on, and what was not self-consistent.

    Args:
        error_table: name of the report, see ``ERROR_TABLES``.
        clip_grad: largest norm of the gradient, None for no clipping.
    """

    def __init__(self, error_table: str, clip_grad: float | None):
        self.error_table = error_table
        self.clip_grad = clip_grad
        self._scf = NO_COUNTS
        self._losses: list[float] = []
        self._seconds = 0.0
        self._rates: dict[str, float] = {}
        self._stages_evaluated: set[str] = set()

    def stage_started(self, stage: Stage, progress: Progress) -> None:
        """Log loss and learning rates."""
        logger.info("Starting stage %s: epochs %d to %d", stage.name, stage.start, stage.end)
        terms = "".join(f"{name}_weight={weight:g}, " for name, weight in stage.loss.items())
        logger.info("WeightedLoss(%s)", terms)
        logger.info("Setting global learning rate to %g", stage.lr)
        for group, rate in stage.group_lrs.items():
            logger.info("Setting learning rate of %s to %g", group, rate)
        if self.clip_grad is not None:
            logger.info("Using gradient clipping with tolerance=%.3f", self.clip_grad)
        if stage.fixed_point is not None:
            logger.info("Fixed-point training: %s", stage.fixed_point.to_mapping())

    def epoch_started(self, stage: Stage, progress: Progress) -> None:
        """Forget the epoch before."""
        self._scf, self._losses, self._seconds = NO_COUNTS, [], 0.0
        self._rates = named_rates(stage, progress.learning_rates)

    def step_done(self, record: StepRecord) -> None:
        """Remember losses and times, and how solutions ended."""
        self._scf += record.scf
        self._losses.append(record.loss)
        self._seconds += record.time

    def epoch_done(self, stage: Stage, progress: Progress) -> None:
        """Log how the solutions of the training steps ended."""
        log_counts(f"Epoch {progress.epoch}, training", self._scf)

    def evaluated(self, record: EvaluationRecord) -> None:
        """Log the errors on the validation set."""
        if record.set_name == VALIDATION:
            self._tell_what_is_missing(record)
            line = epoch_line(self.error_table, record.epoch, record.loss, record.metrics)
            logger.info(", ".join([line, *self._about_training(record)]))
        log_counts(f"Epoch {record.epoch}, set {record.set_name}", record.scf)

    def _about_training(self, evaluation: EvaluationRecord) -> list[str]:
        """Mean loss of the steps of the epoch, learning rate, time, and whether it is the best."""
        told = []
        if self._losses:
            told.append(f"training loss={np.mean(self._losses):.4f}")
        if "lr" in self._rates:
            told.append(f"lr={self._rates['lr']:.3g}")
        told.append(f"{self._seconds + evaluation.time:.1f} s")
        if evaluation.improved:
            told.append("best so far")
        return told

    def _tell_what_is_missing(self, evaluation: EvaluationRecord) -> None:
        """Log once in a stage what the error table would show besides."""
        missing = labels_without_metric(self.error_table, evaluation.metrics)
        if missing and evaluation.stage not in self._stages_evaluated:
            logger.info("Without %s, which the data or the model do not have", ", ".join(missing))
        self._stages_evaluated.add(evaluation.stage)


def log_counts(where: str, counts: SCFCounts) -> None:
    """A warning if anything was not self-consistent, else a line for the debug log.

    Args:
        where: what was counted.
        counts: nothing is logged if nothing was solved for.
    """
    if counts.structures:
        trouble = counts.unsolved or counts.fallback
        logger.log(
            logging.WARNING if trouble else logging.DEBUG, "%s: %s", where, counts.sentence()
        )


class ResultLines(Observer):
    """One JSON object per step and evaluation, appended to a file; `read_results` reads it.

    ``mode`` is ``opt`` for a step, ``eval`` for the validation set, ``eval_test`` for a test set,
    and ``final`` for a set and the best parameters of a stage. After a run was resumed, the steps
    since the last saved state are there twice.

    Args:
        path: the file.
    """

    def __init__(self, path: Path):
        self._path = path
        self._file = path.open("ab", buffering=0)
        if _is_cut_off(path):
            self._file.write(b"\n")
        self._rates: dict[str, float] = {}

    def __enter__(self) -> ResultLines:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        self._file.close()

    def epoch_started(self, stage: Stage, progress: Progress) -> None:
        """Note the learning rates."""
        self._rates = named_rates(stage, progress.learning_rates)

    def step_done(self, record: StepRecord) -> None:
        """Write loss, its terms and the norm of the gradient, and what a closer look has shown."""
        watched = {} if record.watched is None else record.watched.numbers
        self._write(
            {
                "mode": STEP,
                "stage": record.stage,
                "epoch": record.epoch,
                "opt_step": record.opt_step,
                "loss": record.loss,
                "loss_terms": dict(record.terms),
                "grad_norm_before_clip": record.grad_norm_before_clip,
                "grad_clip_applied": record.grad_clip_applied,
                **_scf_entry(record.scf),
                **watched,
                "time": record.time,
            }
        )

    def evaluated(self, record: EvaluationRecord) -> None:
        """Write loss and metrics."""
        is_validation = record.set_name == VALIDATION
        which = {} if is_validation else {"test_name": record.set_name}
        self._write(
            {
                "mode": VALIDATED if is_validation else MONITORED,
                **which,
                "stage": record.stage,
                "epoch": record.epoch,
                "loss": record.loss,
                **record.metrics,
                **_scf_entry(record.scf),
                "learning_rates": self._rates,
                "time": record.time,
            }
        )

    def finally_evaluated(self, errors: FinalErrors) -> None:
        """Write the metrics of every set."""
        for name, metrics in errors.metrics.items():
            identity = {"mode": FINAL, "stage": errors.stage, "epoch": errors.epoch, "set": name}
            self._write(identity | dict(metrics))

    def _write(self, values: Mapping[str, Any]) -> None:
        rest = (json.dumps(values) + "\n").encode()
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            what = "cannot write results; start the run again to go on from its last saved state"
            raise OSError(error.errno, f"{error.strerror}: {what}", str(self._path)) from None


def _is_cut_off(path: Path) -> bool:
    """Whether the last line of a file lacks its end, as after a sudden end of a run."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 1))
        return file.read() not in (b"", b"\n")


def _scf_entry(counts: SCFCounts) -> dict[str, Any]:
    """The counts, if anything was solved for."""
    return {"scf": dataclasses.asdict(counts)} if counts.structures else {}
