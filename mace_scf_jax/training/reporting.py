"""What a run shows and writes while it goes on: log lines, JSON lines, the progress bar."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from mace_scf_jax.training import state
from mace_scf_jax.training.error_tables import epoch_line
from mace_scf_jax.training.logs import PACKAGE_LOGGER
from mace_scf_jax.training.loop import EvaluationRecord, Observer, StepRecord
from mace_scf_jax.training.schedule import Stage

VALIDATION = "valid"
"""Name of the validation set in evaluation records."""

logger = logging.getLogger(f"{PACKAGE_LOGGER}.training")


class Observers(Observer):
    """Passes everything on to several observers.

    Args:
        *observers: told in this order.
    """

    def __init__(self, *observers: Observer):
        self.observers = observers

    def stage_started(self, stage: Stage, progress: state.Progress) -> None:
        """A stage begins, or is resumed within."""
        for observer in self.observers:
            observer.stage_started(stage, progress)

    def step_done(self, record: StepRecord) -> None:
        """A batch was trained on."""
        for observer in self.observers:
            observer.step_done(record)

    def evaluated(self, record: EvaluationRecord) -> None:
        """A set was evaluated."""
        for observer in self.observers:
            observer.evaluated(record)

    def stage_finished(self, stage: Stage, progress: state.Progress) -> None:
        """A stage is over."""
        for observer in self.observers:
            observer.stage_finished(stage, progress)


class LogLines(Observer):
    """One log line per evaluation, and what each stage trains on.

    Args:
        error_table: name of the report, see ``ERROR_TABLES``.
        clip_grad: largest norm of the gradient, None for no clipping.
    """

    def __init__(self, error_table: str, clip_grad: float | None):
        self.error_table = error_table
        self.clip_grad = clip_grad

    def stage_started(self, stage: Stage, progress: state.Progress) -> None:
        """Log loss and learning rates."""
        logger.info("Starting stage %s: epochs %d to %d", stage.name, stage.start, stage.end)
        terms = "".join(f"{name}_weight={weight:g}, " for name, weight in stage.loss.items())
        logger.info("WeightedLoss(%s)", terms)
        logger.info("Setting global learning rate to %g", stage.lr)
        for group, rate in stage.group_lrs.items():
            logger.info("Setting learning rate of %s to %g", group, rate)
        if self.clip_grad is not None:
            logger.info("Using gradient clipping with tolerance=%.3f", self.clip_grad)

    def evaluated(self, record: EvaluationRecord) -> None:
        """Log the errors on the validation set."""
        if record.set_name == VALIDATION:
            logger.info(epoch_line(self.error_table, record.epoch, record.loss, record.metrics))


class ResultLines(Observer):
    """One JSON object per step and evaluation, appended to a file.

    ``mode`` is ``opt`` for a step, ``eval`` for the validation set and ``eval_test`` for a test
    set. After a run was resumed, the steps since the last saved state are there twice.

    Args:
        path: the file.
    """

    def __init__(self, path: Path):
        self._file = path.open("a", encoding="utf-8")

    def __enter__(self) -> ResultLines:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        self._file.close()

    def step_done(self, record: StepRecord) -> None:
        """Write loss, its terms and the norm of the gradient."""
        self._write(
            {
                "mode": "opt",
                "stage": record.stage,
                "epoch": record.epoch,
                "opt_step": record.opt_step,
                "loss": record.loss,
                "loss_terms": dict(record.terms),
                "grad_norm_before_clip": record.grad_norm_before_clip,
                "grad_clip_applied": record.grad_clip_applied,
                "time": record.time,
            }
        )

    def evaluated(self, record: EvaluationRecord) -> None:
        """Write loss and metrics."""
        is_validation = record.set_name == VALIDATION
        which = {} if is_validation else {"test_name": record.set_name}
        self._write(
            {
                "mode": "eval" if is_validation else "eval_test",
                **which,
                "stage": record.stage,
                "epoch": record.epoch,
                "loss": record.loss,
                **record.metrics,
                "time": record.time,
            }
        )

    def _write(self, values: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(values) + "\n")
        self._file.flush()


class _StageColumn(ProgressColumn):
    """Epoch, losses and errors beside the bar."""

    def render(self, task: Task) -> Text:
        return Text(f"epoch {task.fields['epoch']}/{task.fields['last']} {task.fields['numbers']}")


class ProgressBar(Observer):
    """A bar over all batches of the run, with stage, epoch, loss, errors and time left.

    Args:
        console: a terminal.
        stages: the schedule.
        batches_per_epoch: batches of an epoch.
    """

    def __init__(self, console: Console, stages: Sequence[Stage], batches_per_epoch: int):
        self._batches = batches_per_epoch
        self._loss = ""
        self._errors = ""
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            _StageColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            refresh_per_second=4,
        )
        last = stages[-1].end
        self._task = self._bar.add_task(
            "training", total=(last + 1) * batches_per_epoch, epoch=0, last=last, numbers=""
        )

    def __enter__(self) -> ProgressBar:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def stage_started(self, stage: Stage, progress: state.Progress) -> None:
        """Show the stage, and where it is resumed."""
        self._loss = self._errors = ""
        done = progress.epoch * self._batches + progress.batch
        if self._bar.tasks[0].completed != done:
            # Without this, batches done in an earlier process would count for the speed.
            self._bar.reset(self._task, completed=done)
        self._bar.update(self._task, description=stage.name)

    def step_done(self, record: StepRecord) -> None:
        """Move on by one batch."""
        self._loss = f"loss {record.loss:.3g}"
        self._show(record.epoch, completed=record.epoch * self._batches + record.batch + 1)

    def evaluated(self, record: EvaluationRecord) -> None:
        """Show the errors on the validation set."""
        if record.set_name != VALIDATION:
            return
        errors = [f"valid {record.loss:.3g}"]
        for metric, name, unit in (
            ("rmse_e_per_atom", "E", "meV/atom"),
            ("rmse_f", "F", "meV/Å"),
        ):
            if metric in record.metrics:
                errors.append(f"{name} {1000 * record.metrics[metric]:.1f} {unit}")
        self._errors = ", ".join(errors)
        self._show(record.epoch)

    def stage_finished(self, stage: Stage, progress: state.Progress) -> None:
        """Skip the epochs that an early stop leaves out."""
        self._bar.update(self._task, completed=(stage.end + 1) * self._batches)

    def _show(self, epoch: int, **changes: Any) -> None:
        numbers = " | ".join(part for part in (self._loss, self._errors) if part)
        self._bar.update(self._task, epoch=epoch, numbers=numbers, **changes)
