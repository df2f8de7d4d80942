"""What a training run tells while it goes on.

Logs, progress bars and result files are observers; the loop knows none of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from mace_scf_jax.training.loop.scf_counts import NO_COUNTS, SCFCounts
from mace_scf_jax.training.loop.schedule import Stage
from mace_scf_jax.training.loop.state import Progress
from mace_scf_jax.training.loop.steps import Compilation
from mace_scf_jax.training.loop.watching import Watched


@dataclasses.dataclass(frozen=True)
class StepRecord:
    """One optimiser step."""

    stage: str
    epoch: int
    batch: int
    opt_step: int
    """Number of the step within the stage, from 0."""
    loss: float
    terms: Mapping[str, float]
    """Weighted terms of the loss."""
    time: float
    """Seconds since the previous step ended, compilation included."""
    grad_norm_before_clip: float
    grad_clip_applied: bool
    scf: SCFCounts = NO_COUNTS
    """How the self-consistent solutions of the batch ended."""
    watched: Watched | None = None
    """The closer look, in the steps that had one."""


@dataclasses.dataclass(frozen=True)
class EvaluationRecord:
    """One evaluation of one set within a stage."""

    stage: str
    epoch: int
    set_name: str
    """``valid`` or the name of a monitored set."""
    loss: float
    metrics: Mapping[str, float]
    time: float
    """Seconds."""
    improved: bool
    """The validation loss is the lowest of the stage so far."""
    scf: SCFCounts = NO_COUNTS
    """How the self-consistent solutions of the set ended."""


@dataclasses.dataclass(frozen=True)
class FinalErrors:
    """The errors of the best parameters of a stage, once all stages are over."""

    stage: str
    epoch: int
    """Of the best parameters."""
    metrics: Mapping[str, Mapping[str, float]]
    """By set (train, valid, test sets) and name of the metric."""


class Observer:
    """Told what happens in a run; this one does nothing with it."""

    def stage_started(self, stage: Stage, progress: Progress) -> None:
        """A stage begins, or is resumed within."""

    def epoch_started(self, stage: Stage, progress: Progress) -> None:
        """An epoch begins, or is resumed at batch ``progress.batch``."""

    def compiled(self, compilation: Compilation) -> None:
        """A step was compiled for one more bucket."""

    def step_done(self, record: StepRecord) -> None:
        """A batch was trained on."""

    def epoch_done(self, stage: Stage, progress: Progress) -> None:
        """All batches of an epoch were trained on."""

    def evaluated(self, record: EvaluationRecord) -> None:
        """A set was evaluated."""

    def stage_finished(self, stage: Stage, progress: Progress) -> None:
        """A stage is over."""

    def finally_evaluated(self, errors: FinalErrors) -> None:
        """All sets were evaluated with the best parameters of a stage."""
