"""Logging to Weights & Biases and TensorBoard, for those who have these packages.

Both get the same numbers at every evaluation: ``epoch``, ``train_loss`` (mean over the steps since
the last evaluation), the learning rates, and for each set ``<set>_loss`` and ``<set>_<metric>``
(``valid_rmse_f``, …); at the end, for the best parameters of each stage, ``<set>_final_<metric>``.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from mace_scf_jax.training.configuration_error import ConfigurationError
from mace_scf_jax.training.learning_rates import named_rates
from mace_scf_jax.training.observer import EvaluationRecord, FinalErrors, Observer, StepRecord
from mace_scf_jax.training.options import TrainOptions
from mace_scf_jax.training.schedule import Stage
from mace_scf_jax.training.state import Progress

PACKAGES = {"wandb": "wandb", "tensorboard": "tensorboardX"}
"""What each option needs."""
FINAL_METRICS = ("rmse_e_per_atom", "rmse_f", "rel_rmse_f")

LogScalars = Callable[[Mapping[str, float], int], None]
"""Logs numbers by name at an epoch."""


class ScalarTracker(Observer):
    """Passes the numbers of a run to a service that collects them.

    Args:
        log: called with numbers by name, and the epoch.
    """

    def __init__(self, log: LogScalars):
        self._log = log
        self._losses: list[float] = []
        self._rates: dict[str, float] = {}

    def epoch_started(self, stage: Stage, progress: Progress) -> None:
        """Note the learning rates."""
        self._rates = named_rates(stage, progress.learning_rates)

    def step_done(self, record: StepRecord) -> None:
        """Collect the loss."""
        self._losses.append(record.loss)

    def evaluated(self, record: EvaluationRecord) -> None:
        """Log loss and metrics, and what happened since the last evaluation."""
        numbers = {"epoch": float(record.epoch), **self._rates}
        if self._losses:
            numbers["train_loss"] = sum(self._losses) / len(self._losses)
            self._losses = []
        numbers[f"{record.set_name}_loss"] = record.loss
        numbers |= {f"{record.set_name}_{name}": value for name, value in record.metrics.items()}
        self._log(numbers, record.epoch)

    def finally_evaluated(self, errors: FinalErrors) -> None:
        """Log the final errors; those of a later stage replace those of an earlier one."""
        self._log(
            {
                f"{name}_final_{metric}": metrics[metric]
                for name, metrics in errors.metrics.items()
                for metric in FINAL_METRICS
                if metric in metrics
            },
            errors.epoch,
        )


def check_installed(options: TrainOptions) -> None:
    """Refuse options that need a package which is not there, before anything else is done.

    Args:
        options: of the run.

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
def trackers(options: TrainOptions) -> Iterator[tuple[Observer, ...]]:
    """The services that the options ask for, open for the time of a run.

    Args:
        options: of the run.
    """
    with contextlib.ExitStack() as stack:
        opened: list[Observer] = []
        if options.wandb:
            opened.append(stack.enter_context(_weights_and_biases(options)))
        if options.tensorboard:
            opened.append(stack.enter_context(_tensorboard(options)))
        yield tuple(opened)


@contextlib.contextmanager
def _weights_and_biases(options: TrainOptions) -> Iterator[Observer]:
    """A run there, which a resumed run continues."""
    wandb = importlib.import_module(PACKAGES["wandb"])
    run = wandb.init(
        project=options.wandb_project,
        entity=options.wandb_entity,
        name=options.wandb_name or options.tag,
        dir=str(options.wandb_dir or options.work_dir),
        config=_shown_options(options),
    )
    try:
        # The epoch is a number among others there, because its own steps may never go back.
        run.define_metric("*", step_metric="epoch")
        yield ScalarTracker(lambda numbers, epoch: run.log({**numbers, "epoch": epoch}))
    finally:
        run.finish()


@contextlib.contextmanager
def _tensorboard(options: TrainOptions) -> Iterator[Observer]:
    writer = importlib.import_module(PACKAGES["tensorboard"]).SummaryWriter(
        str(options.work_dir / "tensorboard" / options.tag)
    )

    def log(numbers: Mapping[str, float], epoch: int) -> None:
        for name, value in numbers.items():
            writer.add_scalar(name, value, epoch)

    try:
        yield ScalarTracker(log)
    finally:
        writer.close()


def _shown_options(options: TrainOptions) -> dict[str, Any]:
    """The options that are shown beside the curves."""
    everything = json.loads(options.model_dump_json())
    chosen = options.wandb_log_hypers
    return everything if chosen is None else {name: everything[name] for name in chosen}
