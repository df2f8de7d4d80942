"""What a run tells while it goes on: log files, their lines, and the bar that a terminal shows."""

from __future__ import annotations

import contextlib
import datetime
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console

from mace_scf_jax.predict.error_tables import epoch_line, labels_without_metric
from mace_scf_jax.progress import Bar
from mace_scf_jax.training.loop.observer import EvaluationRecord, Observer, StepRecord
from mace_scf_jax.training.loop.scf_counts import NO_COUNTS, SCFCounts
from mace_scf_jax.training.loop.schedule import Stage
from mace_scf_jax.training.loop.state import Progress
from mace_scf_jax.training.loop.validation import VALIDATION
from mace_scf_jax.training.optimise.learning_rates import named_rates

logger = logging.getLogger(__name__)

PACKAGE_LOGGER = "mace_scf_jax"


class LineFormatter(logging.Formatter):
    """``YYYY-MM-DD HH:MM:SS.mmm LEVEL: message``."""

    def __init__(self):
        super().__init__("%(asctime)s %(levelname)s: %(message)s")

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802
        """Local time to the millisecond."""
        moment = datetime.datetime.fromtimestamp(record.created)
        return moment.isoformat(sep=" ", timespec="milliseconds")


class DelayedFileHandler(logging.FileHandler):
    """Keeps messages in memory until the file may be created.

    So a run that is refused because of its input leaves no log file behind.
    """

    def __init__(self, path: Path):
        super().__init__(path, encoding="utf-8", delay=True)
        self._waiting: list[logging.LogRecord] | None = []

    def emit(self, record: logging.LogRecord) -> None:
        """Write a message, or keep it."""
        if self._waiting is None:
            super().emit(record)
        else:
            self._waiting.append(record)

    def begin(self) -> None:
        """Create the file with everything kept so far; write directly from now on."""
        waiting, self._waiting = self._waiting or [], None
        for record in waiting:
            super().emit(record)


class ConsoleHandler(logging.Handler):
    """Prints messages on a rich console, so that they appear above a progress bar."""

    def __init__(self, console: Console):
        super().__init__()
        self.console = console
        self.addFilter(lambda record: not hasattr(record, "files_only"))

    def emit(self, record: logging.LogRecord) -> None:
        """Print one message."""
        self.console.print(
            self.format(record), markup=False, highlight=False, soft_wrap=True, emoji=False
        )


@contextlib.contextmanager
def logging_to(handlers: Mapping[logging.Handler, int | str]) -> Iterator[None]:
    """Send the messages of the package to these handlers, and nowhere else, for a while.

    Args:
        handlers: the least level of each handler; they are closed at the end.
    """
    package = logging.getLogger(PACKAGE_LOGGER)
    before = package.level, package.propagate
    package.setLevel(logging.DEBUG)
    package.propagate = False
    for handler, level in handlers.items():
        handler.setLevel(level)
        handler.setFormatter(LineFormatter())
        package.addHandler(handler)
    try:
        yield
    finally:
        for handler in handlers:
            package.removeHandler(handler)
            handler.close()
        package.setLevel(before[0])
        package.propagate = before[1]


class LogLines(Observer):
    """One log line per evaluation, what each stage trains on, and what was not self-consistent.

    Args:
        error_table: name of the report, see ``ERROR_TABLES``.
        clip_grad: largest norm of the gradient, None for no clipping.
        has_learning_rates: whether steps have a given length.
    """

    def __init__(
        self, error_table: str, clip_grad: float | None, *, has_learning_rates: bool = True
    ):
        self.error_table = error_table
        self.clip_grad = clip_grad
        self.has_learning_rates = has_learning_rates
        self._scf = NO_COUNTS
        self._losses: list[float] = []
        self._seconds = 0.0
        self._rates: dict[str, float] = {}
        self._stages_evaluated: set[str] = set()

    def stage_started(self, stage: Stage, progress: Progress) -> None:
        """Log loss and learning rates."""
        rates = {"learning rate": stage.lr} if self.has_learning_rates else {}
        rates |= {f"of {group}": rate for group, rate in stage.group_lrs.items()}
        told = [f"{name} {rate:g}" for name, rate in rates.items()]
        told.append("loss " + " + ".join(f"{it:g} {name}" for name, it in stage.loss.items()))
        if self.clip_grad is not None:
            told.append(f"gradients clipped at {self.clip_grad:g}")
        epochs = f"epochs {stage.start} to {stage.end}"
        logger.info("Starting stage %s, %s: %s", stage.name, epochs, ", ".join(told))
        for name, options in stage.loss_options.items():
            logger.info("Options of the loss term %s: %s", name, options.model_dump())
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
        if "lr" in self._rates and self.has_learning_rates:
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


class ProgressBar(Observer):
    """A bar over all batches of the run, with stage, epoch, loss, errors and time left.

    Args:
        bar: where it is shown.
        batches_per_epoch: batches of an epoch.
    """

    def __init__(self, bar: Bar, stages: Sequence[Stage], batches_per_epoch: int):
        self._bar = bar
        self._batches = batches_per_epoch
        self._last = stages[-1].end
        self._loss = ""
        self._errors = ""
        bar.total = (self._last + 1) * batches_per_epoch

    def stage_started(self, stage: Stage, progress: Progress) -> None:
        """Show the stage, and where it is resumed."""
        self._errors = ""
        self._bar.what = stage.name
        done = progress.epoch * self._batches + progress.batch
        if self._bar.done != done:
            # Otherwise batches done in an earlier process would count for the speed.
            self._bar.start_at(done)
        self._show(progress.epoch)

    def step_done(self, record: StepRecord) -> None:
        """Move on by one batch."""
        self._loss = f"loss {record.loss:.3g}"
        self._bar.update(record.epoch * self._batches + record.batch + 1)
        self._show(record.epoch)

    def evaluated(self, record: EvaluationRecord) -> None:
        """Show the errors on the validation set."""
        if record.set_name != VALIDATION:
            return
        errors = [
            f"{name} {1000 * record.metrics[metric]:.1f} {unit}"
            for metric, name, unit in (
                ("rmse_e_per_atom", "E", "meV/atom"),
                ("rmse_f", "F", "meV/Å"),
            )
            if metric in record.metrics
        ]
        self._errors = " ".join(("valid", *errors)) if errors else f"valid {record.loss:.3g}"
        self._show(record.epoch)

    def stage_finished(self, stage: Stage, progress: Progress) -> None:
        """Skip the epochs that an early stop leaves out."""
        done = (stage.end + 1) * self._batches
        if self._bar.done != done:
            self._bar.start_at(done)

    def _show(self, epoch: int) -> None:
        numbers = (f"epoch {epoch}/{self._last}", self._loss, self._errors)
        self._bar.text = "  ".join(filter(None, numbers))
