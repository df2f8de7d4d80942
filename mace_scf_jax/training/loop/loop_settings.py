"""What the training loop is given: batches, and when to validate, stop and save."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol, runtime_checkable

import numpy as np

from mace_scf_jax.graph import Graph
from mace_scf_jax.training.loop.watching import NOTHING_WATCHED, WatchSettings


class DivergedTrainingError(ValueError):
    """A loss or gradient is not a finite number."""


@dataclasses.dataclass(frozen=True)
class LoopSettings:
    """When to validate, stop, save and look closer.

    Attributes:
        eval_interval: validate at epochs divisible by this, and after the last of a stage.
        patience: evaluations without improvement that end a stage.
        keep_checkpoints: keep the parameters of every improvement, not only of the last.
        save_all_checkpoints: keep the parameters of every evaluation, improved or not.
        checkpoint_seconds: longest time between two saved states within an epoch; a state is also
            saved after every epoch.
        watched: what to look at more closely, and how often.
    """

    eval_interval: int = 1
    patience: int = 2048
    keep_checkpoints: bool = False
    save_all_checkpoints: bool = False
    checkpoint_seconds: float = 60.0
    watched: WatchSettings = NOTHING_WATCHED

    def __post_init__(self):
        for name in ("eval_interval", "patience"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: found {getattr(self, name)}, expected at least 1")
        if not self.checkpoint_seconds >= 0.0:
            raise ValueError(
                f"checkpoint_seconds: found {self.checkpoint_seconds}, expected at least 0"
            )


@runtime_checkable
class EpochBatches(Protocol):
    """The batches of an epoch, from batch ``start`` on: a function of the epoch, and of the losses
    of the structures where those decide how often each is drawn."""

    def __call__(
        self, epoch: int, *, start: int = 0, losses: np.ndarray | None = None
    ) -> Iterable[Graph]:
        """The batches in their order."""


@dataclasses.dataclass(frozen=True)
class TrainingData:
    """The batches of a run.

    Attributes:
        training: batches of an epoch.
        validation: the batches to validate on, in the same order each time.
        label_weights: for each label, the sum of its weights over the training set.
        monitored: further sets to evaluate whenever validation is, by name.
    """

    training: EpochBatches
    validation: Callable[[], Iterable[Graph]]
    label_weights: Mapping[str, float]
    sampled: Callable[[], Iterable[Graph]] | None = None
    """The training set in order, where its losses decide how often each structure is drawn."""
    sampled_structures: int | None = None
    """Number of its structures."""
    monitored: Mapping[str, Callable[[], Iterable[Graph]]] = dataclasses.field(default_factory=dict)
