"""The bar that a terminal shows during training."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any

from rich import progress as bars
from rich.console import Console
from rich.text import Text

from mace_scf_jax.training.config.schedule import Stage
from mace_scf_jax.training.loop.observer import EvaluationRecord, Observer, StepRecord
from mace_scf_jax.training.loop.state import Progress
from mace_scf_jax.training.records.reporting import VALIDATION

COMPILING = "compiling"
"""Shown until the first step is done."""


class _NumbersColumn(bars.ProgressColumn):
    """Epoch, losses and errors beside the bar."""

    def render(self, task: bars.Task) -> Text:
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
        self._loss = COMPILING
        self._errors = ""
        self._bar = bars.Progress(
            bars.TextColumn("{task.description}"),
            bars.BarColumn(bar_width=20),
            bars.MofNCompleteColumn(),
            _NumbersColumn(),
            bars.TimeElapsedColumn(),
            bars.TextColumn("left"),
            bars.TimeRemainingColumn(),
            console=console,
            transient=True,
            refresh_per_second=4,
        )
        last = stages[-1].end
        self._task = self._bar.add_task(
            "training", total=(last + 1) * batches_per_epoch, epoch=0, last=last, numbers=COMPILING
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

    def stage_started(self, stage: Stage, progress: Progress) -> None:
        """Show the stage, and where it is resumed."""
        self._errors = ""
        done = progress.epoch * self._batches + progress.batch
        if self._bar.tasks[0].completed != done:
            # Without this, batches done in an earlier process would count for the speed.
            self._bar.reset(self._task, completed=done)
        self._bar.update(self._task, description=stage.name)
        self._show(progress.epoch)

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

    def stage_finished(self, stage: Stage, progress: Progress) -> None:
        """Skip the epochs that an early stop leaves out."""
        self._bar.update(self._task, completed=(stage.end + 1) * self._batches)

    def _show(self, epoch: int, **changes: Any) -> None:
        numbers = " | ".join(part for part in (self._loss, self._errors) if part)
        self._bar.update(self._task, epoch=epoch, numbers=numbers, **changes)
