"""Logging to Weights & Biases and TensorBoard, for those who have these packages.

Both get the same numbers at every evaluation: ``epoch``, ``train_loss`` (mean over the steps since
the last evaluation), the learning rates, and for each set ``<set>_loss`` and ``<set>_<metric>``
(``valid_rmse_f``, …); at the end, for the best parameters of each stage, ``<set>_final_<metric>``.
Steps that were looked at more closely are logged at once, against their number within the run.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from mace_scf_jax.options import ConfigurationError
from mace_scf_jax.training.loop.observer import (
    EvaluationRecord,
    FinalErrors,
    Observer,
    StepRecord,
)
from mace_scf_jax.training.loop.schedule import Stage
from mace_scf_jax.training.loop.state import Progress
from mace_scf_jax.training.loop.watching import Watched
from mace_scf_jax.training.optimise.learning_rates import named_rates
from mace_scf_jax.training.records.options import TrackingOptions

PACKAGES = {"wandb": "wandb", "tensorboard": "tensorboardX"}
"""What each option needs."""
FINAL_METRICS = ("rmse_e_per_atom", "rmse_f", "rel_rmse_f")


@runtime_checkable
class Service(Protocol):
    """Collects the numbers of a run."""

    def log(self, numbers: Mapping[str, float], epoch: int) -> None:
        """Take numbers by name at an epoch."""

    def log_step(self, watched: Watched, epoch: int) -> None:
        """Take what was seen in a step."""


class ScalarTracker(Observer):
    """Passes the numbers of a run to a service that collects them.

    Args:
        service: that collects them.
    """

    def __init__(self, service: Service):
        self._service = service
        self._losses: list[float] = []
        self._rates: dict[str, float] = {}

    def epoch_started(self, stage: Stage, progress: Progress) -> None:
        """Note the learning rates."""
        self._rates = named_rates(stage, progress.learning_rates)

    def step_done(self, record: StepRecord) -> None:
        """Collect the loss; log what a closer look has shown."""
        self._losses.append(record.loss)
        if record.watched is not None:
            self._service.log_step(record.watched, record.epoch)

    def evaluated(self, record: EvaluationRecord) -> None:
        """Log loss and metrics, and what happened since the last evaluation."""
        numbers = {"epoch": float(record.epoch), **self._rates}
        if self._losses:
            numbers["train_loss"] = sum(self._losses) / len(self._losses)
            self._losses = []
        numbers[f"{record.set_name}_loss"] = record.loss
        numbers |= {f"{record.set_name}_{name}": value for name, value in record.metrics.items()}
        self._service.log(numbers, record.epoch)

    def finally_evaluated(self, errors: FinalErrors) -> None:
        """Log the final errors; those of a later stage replace those of an earlier one."""
        self._service.log(
            {
                f"{name}_final_{metric}": metrics[metric]
                for name, metrics in errors.metrics.items()
                for metric in FINAL_METRICS
                if metric in metrics
            },
            errors.epoch,
        )


class WeightsAndBiases:
    """Logs to a run there.

    Args:
        wandb: the package.
        run: of it.
    """

    def __init__(self, wandb: Any, run: Any):
        self._histogram, self._run = wandb.Histogram, run
        self._of_steps: set[str] = set()
        # Epochs and steps are numbers among others there, because its own may never go back.
        run.define_metric("*", step_metric="epoch")

    def log(self, numbers: Mapping[str, float], epoch: int) -> None:
        """Log numbers against the epoch."""
        self._run.log({**numbers, "epoch": epoch})

    def log_step(self, watched: Watched, epoch: int) -> None:
        """Log numbers and histograms against the number of the step."""
        histograms = {
            name: self._histogram(np_histogram=counts_and_edges)
            for name, counts_and_edges in watched.histograms.items()
        }
        values = {**watched.numbers, **histograms}
        for name in values.keys() - self._of_steps:
            self._run.define_metric(name, step_metric="step")
            self._of_steps.add(name)
        self._run.log({**values, "step": watched.step, "epoch": epoch})


class TensorBoard:
    """Writes to files for TensorBoard; numbers alone.

    Args:
        writer: of the files.
    """

    def __init__(self, writer: Any):
        self._writer = writer

    def log(self, numbers: Mapping[str, float], epoch: int) -> None:
        """Write numbers at the epoch."""
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, epoch)

    def log_step(self, watched: Watched, epoch: int) -> None:
        """Write numbers at the number of the step."""
        del epoch
        self.log(watched.numbers, watched.step)


def check_installed(options: TrackingOptions) -> None:
    """Refuse options that need a package which is not there, before anything else is done.

    Raises:
        ConfigurationError: a package is missing.
    """
    problems = [
        f"option '{option}': the package {package} is not installed; pip install {package}"
        for option, package in PACKAGES.items()
        if getattr(options, option) and importlib.util.find_spec(package) is None
    ]
    if problems:
        raise ConfigurationError(*problems)


@contextlib.contextmanager
def trackers(
    options: TrackingOptions, *, tag: str, work_dir: Path
) -> Iterator[tuple[Observer, ...]]:
    """Open the services that the options ask for, for the time of a run.

    Args:
        options: all options of the run, to be shown beside the curves.
        tag: name of the run in file names.
        work_dir: its folder.
    """
    with contextlib.ExitStack() as stack:
        opened: list[Observer] = []
        if options.wandb:
            opened.append(stack.enter_context(_weights_and_biases(options, tag, work_dir)))
        if options.tensorboard:
            opened.append(stack.enter_context(_tensorboard(work_dir / "tensorboard" / tag)))
        yield tuple(opened)


@contextlib.contextmanager
def _weights_and_biases(options: TrackingOptions, tag: str, work_dir: Path) -> Iterator[Observer]:
    """A run there, which a resumed run continues."""
    wandb = importlib.import_module(PACKAGES["wandb"])
    run = wandb.init(
        project=options.wandb_project,
        entity=options.wandb_entity,
        name=options.wandb_name or tag,
        dir=str(options.wandb_dir or work_dir),
        config=_shown_options(options),
    )
    try:
        yield ScalarTracker(WeightsAndBiases(wandb, run))
    finally:
        run.finish()


@contextlib.contextmanager
def _tensorboard(folder: Path) -> Iterator[Observer]:
    writer = importlib.import_module(PACKAGES["tensorboard"]).SummaryWriter(str(folder))
    try:
        yield ScalarTracker(TensorBoard(writer))
    finally:
        writer.close()


def _shown_options(options: TrackingOptions) -> dict[str, Any]:
    """The options that are shown beside the curves."""
    everything = json.loads(options.model_dump_json())
    chosen = options.wandb_log_hypers
    return everything if chosen is None else {name: everything[name] for name in chosen}
