"""Stages, steps, validation, checkpoints: a run from its first batch to its last."""

from typing import TYPE_CHECKING

from mace_scf_jax.late import imported_late

if TYPE_CHECKING:
    from mace_scf_jax.training.loop.checkpoints import CheckpointError, CheckpointStore
    from mace_scf_jax.training.loop.data import TrainingData
    from mace_scf_jax.training.loop.devices import Devices
    from mace_scf_jax.training.loop.fixed_point_training import (
        FixedPointTraining,
        SCFOptions,
        TrainingMode,
    )
    from mace_scf_jax.training.loop.loop import Trainer
    from mace_scf_jax.training.loop.modes import ModelMode, modes_of
    from mace_scf_jax.training.loop.observer import (
        EvaluationRecord,
        FinalErrors,
        Observer,
        StepRecord,
    )
    from mace_scf_jax.training.loop.options import SamplingOptions, ValidationOptions, WatchOptions
    from mace_scf_jax.training.loop.schedule import Stage, read_schedule
    from mace_scf_jax.training.loop.state import DivergedTrainingError, Progress, TrainingState
    from mace_scf_jax.training.loop.steps import Compilation, Mode, Programs, Steps
    from mace_scf_jax.training.loop.validation import Evaluation, Validator

__all__ = [
    "CheckpointError",
    "CheckpointStore",
    "Compilation",
    "Devices",
    "DivergedTrainingError",
    "Evaluation",
    "EvaluationRecord",
    "FinalErrors",
    "FixedPointTraining",
    "Mode",
    "ModelMode",
    "Observer",
    "Programs",
    "Progress",
    "SCFOptions",
    "SamplingOptions",
    "Stage",
    "StepRecord",
    "Steps",
    "Trainer",
    "TrainingData",
    "TrainingMode",
    "TrainingState",
    "ValidationOptions",
    "Validator",
    "WatchOptions",
    "modes_of",
    "read_schedule",
]

__getattr__, __dir__ = imported_late(__name__, __file__)
