"""A whole training run: from options to log files, error tables and model files."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import functools
import json
import logging
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from mace_scf_jax import __version__, runtime
from mace_scf_jax.data.batching import prefetched
from mace_scf_jax.data.selection import save_split
from mace_scf_jax.messages import FILES_ONLY
from mace_scf_jax.models import ModelSettings, build
from mace_scf_jax.models.model_file import save_model
from mace_scf_jax.options.error import ConfigurationError
from mace_scf_jax.predict.error_tables import final_table
from mace_scf_jax.progress import Signs, signs_of_life
from mace_scf_jax.training.charge_sign import with_settled_sign
from mace_scf_jax.training.config.options import TrainOptions, ineffective, options_from
from mace_scf_jax.training.dispersion import dispersion_of
from mace_scf_jax.training.finished import FinishedRun, finished_run
from mace_scf_jax.training.loop import resuming
from mace_scf_jax.training.loop.checkpoints import CheckpointStore
from mace_scf_jax.training.loop.devices import (
    Devices,
    find_devices,
    is_first_process,
    join_processes,
    wait_for_all_processes,
)
from mace_scf_jax.training.loop.loop import Trainer
from mace_scf_jax.training.loop.observer import FinalErrors, Observer
from mace_scf_jax.training.loop.options import ValidationOptions
from mace_scf_jax.training.loop.schedule import Stage, describe_epochs
from mace_scf_jax.training.loop.state import Progress
from mace_scf_jax.training.loop.steps import Programs
from mace_scf_jax.training.optimise.low_rank import merged
from mace_scf_jax.training.optimise.parameter_groups import Parameters
from mace_scf_jax.training.preparation import Preparation, prepare_run
from mace_scf_jax.training.records.history import TrainingHistory
from mace_scf_jax.training.records.reporting import (
    ConsoleHandler,
    DelayedFileHandler,
    LogLines,
    ProgressBar,
    log_counts,
    logging_to,
)
from mace_scf_jax.training.records.results_file import ResultLines
from mace_scf_jax.training.records.run_files import RunFiles
from mace_scf_jax.training.records.scf_summary import scf_convergence_summary
from mace_scf_jax.training.records.tracking import check_installed, trackers
from mace_scf_jax.training.settings import (
    optimiser_settings,
    scheduler_options,
    watch_options,
)
from mace_scf_jax.training.start.dimers import compare_pairs
from mace_scf_jax.training.start.start_model import StartModel

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class TrainingResult:
    """What a run leaves behind; nothing after a dry run."""

    models: Mapping[str, Path]
    """Model file of each stage."""
    metrics: Mapping[str, Mapping[str, Mapping[str, float]]]
    """Errors by stage, set (train, valid, test sets) and name of the metric."""
    progress: Progress
    history: TrainingHistory
    """One row per evaluated epoch."""
    first_metrics: Mapping[str, Mapping[str, float]] = dataclasses.field(default_factory=dict)
    """Errors of a model that starts from another one before the first step, by set and name."""


def train(
    config: TrainOptions | Mapping[str, Any] | str | Path | None = None,
    *,
    programs: Programs | None = None,
    **given: Any,
) -> TrainingResult:
    """Train a model as the options say, and resume where an earlier run with them was stopped.

    No file is written before options, data and model have been checked, and none if the option
    ``dry_run`` is set.

    Args:
        config: options of the run; a mapping of values or the path of a YAML file will do.
        programs: compiled steps to share with earlier and later runs of this process; runs that
            differ in nothing but seeds, labels and files compile nothing twice then.
        given: options by name, which win over those of ``config``: ``train("config.yaml", seed=2)``
            is the command ``train config.yaml --seed 2``.

    Returns:
        Model files and errors.

    Raises:
        ConfigurationError: options are wrong, devices, processes or folders cannot be used, or the
            run is already going on.
        DataError: files or their contents cannot be used.
        LossError: a stage needs a label or model output that does not exist.
        CheckpointError: saved states belong to another run.
        DivergedTrainingError: a loss or gradient is not finite.
        UnsupportedJaxError: the installed JAX computes wrong numbers.
    """
    options = options_from(config, given)
    check_installed(options)
    if options.distributed:
        join_processes()
    files = RunFiles.of(options)
    lock = files.checkpoints / f"{options.tag}.lock"
    if lock.exists() and is_first_process():
        with _only_run(lock):  # to be told before anything else is done
            pass
    with signs_of_life(tell=logger.info) as signs:
        return _train(options, files, lock, signs, programs)


def _train(
    options: TrainOptions, files: RunFiles, lock: Path, signs: Signs, programs: Programs | None
) -> TrainingResult:
    """Train with options that are known to be right."""
    log, debug_log = map(DelayedFileHandler, files.logs(jax.process_index()))
    handlers = {
        ConsoleHandler(signs.console): options.log_level if is_first_process() else logging.ERROR,
    }
    has_log = is_first_process() or options.log_all_ranks
    if has_log:
        handlers |= {log: options.log_level, debug_log: logging.DEBUG}
    with contextlib.ExitStack() as held:
        held.enter_context(logging_to(handlers))
        options = _as_begun(options, files)
        over = None if options.dry_run else finished_run(options, files)
        if over is not None:
            return _nothing_to_do(options, over)
        devices, device = find_devices(
            options.device, options.devices, batch_size=options.batch_size
        )
        held.enter_context(jax.default_device(device))
        runtime.refuse_wrong_numbers()
        _log_start(options, devices, device)
        prepared = prepare_run(options, devices)
        if options.dry_run:
            return _dry_run(options)
        if is_first_process():
            files.make_folders()
            held.enter_context(_only_run(lock))
            save_split(prepared.valid_indices, seed=options.split_seed, work_dir=options.work_dir)
        if has_log:
            files.make_folders()
            log.begin()
            debug_log.begin()
        wait_for_all_processes("start of training")
        return _run(options, prepared, files, signs, devices, programs)


def _dry_run(options: TrainOptions) -> TrainingResult:
    """Say that everything is in order, and stop there."""
    logger.info(
        "Dry run: options, data, labels, losses and model are in order (%s); nothing was trained "
        "or written",
        describe_epochs(options.train_schedule),
    )
    beginning = resuming.start(options.train_schedule, 0)
    return TrainingResult(models={}, metrics={}, progress=beginning, history=TrainingHistory(()))


def _nothing_to_do(options: TrainOptions, over: FinishedRun) -> TrainingResult:
    """Tell the errors of a run that is over."""
    for stage, metrics in over.results.final.items():
        epoch = over.results.final_epochs[stage]
        _log_final_errors(options, stage, epoch, metrics)
    logger.info(
        "Nothing to do: this run is finished, its models are %s; --no-restart_latest trains anew",
        ", ".join(map(str, over.models.values())),
    )
    history = TrainingHistory.of(over.results)
    return TrainingResult(over.models, over.results.final, over.progress, history)


def _log_final_errors(
    options: TrainOptions,
    stage: str,
    epoch: int,
    metrics: Mapping[str, Mapping[str, float]],
    before: Mapping[str, Mapping[str, float]] | None = None,
) -> None:
    before = {} if before is None else before
    shown = metrics | {f"{name} before": errors for name, errors in before.items()}
    table = final_table(options.error_table, shown)
    logger.info("Final error table for stage %s (epoch %d)\n%s", stage, epoch, table)


def _first_errors(
    options: TrainOptions, prepared: Preparation, trainer: Trainer
) -> dict[str, Mapping[str, float]]:
    """Errors before the first step of a model that starts from another one, but on what it trains
    on; with those at the end they tell what is forgotten."""
    if options.start_from is None:
        return {}
    stage, errors = options.train_schedule[0], {}
    for name, loader in prepared.evaluation.items():
        if name != "train":
            batches = prefetched(loader.epoch(0))
            errors[name] = trainer.validator.evaluate(prepared.parameters, batches, stage).metrics
    table = final_table(options.error_table, errors)
    logger.info("Errors before the first step\n%s", table)
    return errors


def _as_begun(options: TrainOptions, files: RunFiles) -> TrainOptions:
    """The options with the boundary condition under which a run that is to go on was begun.

    Defaults of new runs change from version to version, that of a run does not.
    """
    begins = not (options.restart_latest and files.checkpoints.is_dir())
    if begins or "electrostatic_pbc_method" in options.model_fields_set:
        return options
    saved = CheckpointStore(files.checkpoints, options.tag).newest()
    begun = saved and saved.fingerprint.get("model", {}).get("electrostatics")
    if not begun or begun["boundary"] == options.electrostatic_pbc_method:
        return options
    logger.info("Boundary condition %s, with which the run was begun", begun["boundary"])
    return options.model_copy(update={"electrostatic_pbc_method": begun["boundary"]})


def _run(
    options: TrainOptions,
    prepared: Preparation,
    files: RunFiles,
    signs: Signs,
    devices: Devices,
    programs: Programs | None,
) -> TrainingResult:
    """Train all stages, evaluate and save their best parameters."""
    stages = options.train_schedule
    optimiser = optimiser_settings(options)
    logger.info("Optimizer: %s", optimiser.describe())
    if not options.restart_latest:
        logger.info("Starting from initial weights; saved states of this run are not used")
    with (
        _observers(options, files) as observers,
        signs.bar("training", in_lines=False) as shown,
    ):
        trainer = Trainer(
            prepared.modes,
            prepared.parameters,
            prepared.training_data(with_tests=options.log_on_test_sets),
            optimiser=optimiser,
            scheduler=scheduler_options(options),
            validation=ValidationOptions.of(options),
            store=CheckpointStore(files.checkpoints, options.tag, writes=is_first_process()),
            observers=(*observers, ProgressBar(shown, stages, prepared.steps_per_epoch)),
            compute_stress=options.compute_stress,
            watched=watch_options(options),
            devices=devices,
            programs=programs,
        )
        before = _first_errors(options, prepared, trainer)
        progress = trainer.run(
            stages,
            fingerprint=prepared.fingerprint,
            defaults=prepared.defaults,
            resume=options.restart_latest,
        )
        logger.info("Training complete")
        wait_for_all_processes("end of training")
        models, metrics = _evaluate_and_save(
            options, prepared, files, trainer, progress, observers, before
        )
    if options.summarises_convergence and is_first_process():
        _log_convergence(options, prepared, trainer, progress)
    wait_for_all_processes("results")
    history = TrainingHistory.read(files.results)
    if is_first_process():
        history.write_csv(files.history)
        history.write_json(files.history.with_suffix(".json"))
        logger.info("Saved the history of the run to %s and .json", files.history)
    _log_compilations(trainer)
    logger.info("Done")
    return TrainingResult(models, metrics, progress, history, before)


@contextlib.contextmanager
def _observers(options: TrainOptions, files: RunFiles) -> Iterator[tuple[Observer, ...]]:
    """Whoever writes down what happens: nobody but the first process."""
    if not is_first_process():
        yield ()
        return
    lines = LogLines(
        options.error_table,
        options.largest_gradient,
        has_learning_rates=options.has_learning_rates,
    )
    services = trackers(options, tag=options.tag, work_dir=options.work_dir)
    with ResultLines(files.results) as results, services as tracking:
        yield lines, results, *tracking


def _evaluate_and_save(
    options: TrainOptions,
    prepared: Preparation,
    files: RunFiles,
    trainer: Trainer,
    progress: Progress,
    observers: Sequence[Observer],
    before: Mapping[str, Mapping[str, float]],
) -> tuple[dict[str, Path], dict[str, dict[str, Mapping[str, float]]]]:
    """Final error table and model file of every stage: files and errors by stage.

    Args:
        before: errors before the first step, by set.
    """
    logger.info("Computing metrics for training, validation, and test sets")
    models: dict[str, Path] = {}
    metrics: dict[str, dict[str, Mapping[str, float]]] = {}
    for stage in options.train_schedule:
        parameters, record = trainer.best_parameters(progress, stage.name)
        if _settles_sign(options, prepared.settings):
            parameters = with_settled_sign(
                prepared.settings,
                parameters,
                prepared.evaluation["train"],
                stage=stage,
                stages=options.train_schedule,
                labels=prepared.data_record["train"]["labels"],
                validator=trainer.validator,
            )
        errors = {}
        for name, loader in prepared.evaluation.items():
            result = trainer.validator.evaluate(parameters, prefetched(loader.epoch(0)), stage)
            errors[name] = result.metrics
            log_counts(f"Stage {stage.name}, set {name}", result.scf)
        metrics[stage.name] = errors
        for observer in observers:
            observer.finally_evaluated(FinalErrors(stage.name, record["epoch"], errors))
        _log_final_errors(options, stage.name, record["epoch"], errors, before)
        models[stage.name] = files.model(stage.name)
        if options.start_from is not None and is_first_process():
            compare_pairs(
                prepared.settings,
                merged(prepared.parameters),
                merged(parameters),
                prepared.trained_elements,
            )
        if is_first_process():
            _save_model(options, prepared, models[stage.name], stage, parameters, record)
    return models, metrics


def _settles_sign(options: TrainOptions, settings: ModelSettings) -> bool:
    """Whether the model has charges whose sign neither formal charges nor a start model give."""
    family = settings.of_family
    if not family.is_charged or options.charge_sign == "as_trained":
        return False
    if family.formal_charges:
        charges = settings.own.formal_charges
        if charges is None or any(charges):
            return False
    start = StartModel.of(options)
    return start is None or not start.is_of(settings.family)


def _save_model(
    options: TrainOptions,
    prepared: Preparation,
    path: Path,
    stage: Stage,
    parameters: Parameters,
    record: Mapping[str, Any],
) -> None:
    save_model(
        path,
        merged(parameters),
        dataclasses.replace(
            prepared.settings, dispersion=dispersion_of(options, prepared.settings.elements)
        ),
        {
            "name": options.name,
            "stage": stage.name,
            "epoch": record["epoch"],
            "validation_loss": record["loss"],
            "heads": options.all_heads,
            "data": dict(prepared.data_record),
            "training_options": json.loads(options.model_dump_json()),
            "version": __version__,
        },
    )
    logger.info("Saved model of stage %s to %s", stage.name, path)


def _log_convergence(
    options: TrainOptions, prepared: Preparation, trainer: Trainer, progress: Progress
) -> None:
    """How well linear mixing converges with the best parameters of every stage."""
    for stage in options.train_schedule:
        parameters, _ = trainer.best_parameters(progress, stage.name)
        summary = scf_convergence_summary(
            build(prepared.settings),
            merged(parameters),
            {
                name: functools.partial(loader.undivided().epoch, 0)
                for name, loader in prepared.evaluation.items()
            },
            stage=stage.name,
            training=stage.fixed_point,
            batch_size=options.valid_batch_size,
        )
        logger.info("%s", summary)


def _log_start(options: TrainOptions, devices: Devices, device: jax.Device) -> None:
    kind = "" if device.device_kind == device.platform else f" ({device.device_kind})"
    logger.info(
        "mace-scf-jax version: %s; JAX %s, Python %s, device %s%s",
        *(__version__, jax.__version__, sys.version.split()[0], device.platform, kind),
    )
    if devices.count > 1:
        logger.info(
            "Every batch is divided among %d devices (processes: %d)",
            devices.count,
            jax.process_count(),
        )
    given = options.model_dump_json(exclude_unset=True)
    logger.info("Options given: %s", given, extra=FILES_ONLY)
    logger.info("Configuration: %s", options.model_dump_json(), extra=FILES_ONLY)
    for sentence in options.remarks:
        logger.info(sentence)
    for sentence in ineffective(options):
        logger.warning(sentence)
    logger.info("Key specification: %s", options.keys.describe(), extra=FILES_ONLY)
    if options.optimizer == "schedulefree":
        logger.info("ScheduleFree optimizer selected; LR scheduler options are ignored.")
    if not options.has_learning_rates:
        logger.info("L-BFGS optimizer selected; a line search takes the place of learning rates.")


def _log_compilations(trainer: Trainer) -> None:
    if not trainer.compilations:
        logger.info("Compiled nothing: the compiled steps of an earlier run served")
        return
    counts = Counter(compilation.step for compilation in trainer.compilations)
    seconds = sum(compilation.seconds for compilation in trainer.compilations)
    logger.info(
        "Compiled %d functions in %.1f s (%s), each at most once per bucket",
        len(trainer.compilations),
        seconds,
        ", ".join(f"{step}: {count}" for step, count in sorted(counts.items())),
    )


@contextlib.contextmanager
def _only_run(lock: Path) -> Iterator[None]:
    """Refuse a second run with the same name and seed in the same folder at the same time."""
    with lock.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigurationError(
                f"another process is training this run: it holds '{lock}'; wait for it, or choose "
                "another name or seed"
            ) from None
        yield
