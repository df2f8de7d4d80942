"""From a saved state back into the schedule: whether a run may be resumed, and where."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from mace_scf_jax.training.loop.checkpoints import (
    CheckpointError,
    CheckpointStore,
    check_fingerprint,
)
from mace_scf_jax.training.loop.schedule import Stage
from mace_scf_jax.training.loop.state import Progress, TrainingState
from mace_scf_jax.training.losses import LOSSES
from mace_scf_jax.training.optimise.learning_rates import start_of_stage

logger = logging.getLogger(__name__)


def start(stages: Sequence[Stage], index: int, before: Progress | None = None) -> Progress:
    """Progress at the start of a stage; the kept files of earlier stages are carried over.

    Args:
        index: of the stage.
        before: progress at the end of the stage before, None for the first.
    """
    stage = stages[index]
    progress = Progress(start_of_stage(stage), stage=index, epoch=stage.start)
    if before is None:
        return progress
    return progress.replace(kept=before.kept, superseded=before.superseded)


def identity(
    fingerprint: Mapping[str, Any], stages: Sequence[Stage], current: int
) -> dict[str, Any]:
    """What must be the same when a run is resumed.

    Stages that are over must be the same, the current one up to its end, later ones may change.

    Args:
        fingerprint: settings and data (JSON values).
        current: index of the current stage.
    """
    described = [stage.model_dump(mode="json") for stage in stages[: current + 1]]
    described[-1].pop("end")
    for stage in described:  # as in states saved before there were these members
        if stage["fixed_point"] is None:
            del stage["fixed_point"]
        if not stage["freeze"]:
            del stage["freeze"]
    return {**fingerprint, "train_schedule": described}


def resume(
    store: CheckpointStore,
    stages: Sequence[Stage],
    fingerprint: Mapping[str, Any],
    template: TrainingState,
    defaults: Mapping[str, Any],
) -> tuple[TrainingState, Progress] | None:
    """Find the newest saved state of a run, or None if there is none.

    Args:
        store: the checkpoints of the run.
        fingerprint: settings and data (JSON values).
        template: a state of the same run.
        defaults: of the options, which a state of an earlier version may not know.

    Raises:
        CheckpointError: the saved state belongs to another run or cannot be read.
    """
    saved = store.newest()
    if saved is None:
        return None
    progress = saved.progress
    present = identity(fingerprint, stages, progress.stage)
    check_fingerprint(_completed(saved.fingerprint, defaults), present, path=saved.path)
    stage = stages[progress.stage]
    if not progress.stopped_early and progress.epoch > stage.end + 1:
        raise CheckpointError(
            f"{saved.path} is at epoch {progress.epoch}, after the end of stage '{stage.name}' "
            f"(epoch {stage.end})"
        )
    state = saved.state(template)
    store.remove(progress.superseded)
    over = progress.stage_is_over(stage.end)
    where = "is done" if over else f"epoch {progress.epoch}, batch {progress.batch}"
    logger.info("Resuming from %s: stage '%s' %s", saved.path, stage.name, where)
    return state, progress.replace(superseded=())


def _completed(saved: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """A saved fingerprint as this version would have written it.

    Options that are younger than it are as they were, at their defaults; options of losses at their
    defaults are not written.
    """
    stages = [
        stage | {"loss_options": {n: o for n, o in stage["loss_options"].items() if _told(n, o)}}
        for stage in saved["train_schedule"]
    ]
    options = {"options": {**defaults, **saved["options"]}} if defaults else {}
    return {**saved, **options, "train_schedule": stages}


def _told(term: str, options: Mapping[str, Any]) -> bool:
    """Whether options of a loss term are not its defaults."""
    known = LOSSES[term].options if term in LOSSES else None
    return known is None or options != known().model_dump(mode="json")
