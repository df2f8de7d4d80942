"""What a run is trained on, as the training loop takes it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Protocol, runtime_checkable

import numpy as np

from mace_scf_jax.data.on_device import ChosenBatches
from mace_scf_jax.graph import Graph
from mace_scf_jax.training.loop.validation import Sets


@runtime_checkable
class EpochBatches(Protocol):
    """The batches of an epoch, from batch ``start`` on: a function of the epoch, and of the losses
    of the structures where those decide how often each is drawn."""

    def __call__(
        self, epoch: int, *, start: int = 0, losses: np.ndarray | None = None
    ) -> Iterable[Graph | ChosenBatches]:
        """Give the batches in their order, one by one or several in one item."""


@dataclasses.dataclass(frozen=True)
class TrainingData:
    """The batches of a run."""

    training: EpochBatches
    sets: Sets
    """The validation set ``valid``, and others to evaluate whenever it is."""
    sampled: Callable[[], Iterable[Graph]] | None = None
    """The training set in order, where its losses decide how often each structure is drawn."""
    sampled_structures: int | None = None
    """Number of its structures."""
    energies: EpochBatches | None = None
    """The same batches without what only derivatives of the energy need, for stages whose losses
    read none; None where there are no others."""
