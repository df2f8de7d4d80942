"""Training on the forces of a part of the structures only.

The forces of the others get weight zero in the batches. Which structures are chosen is a function
of the seed and the epoch alone, so that a run resumes exactly; shapes of batches do not change, so
that nothing is compiled again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from mace_scf_jax.graph import Graph

_STREAM = 1
"""Keeps these random numbers apart from those of the order of batches."""


@dataclasses.dataclass(frozen=True)
class ForceSupervision:
    """On which forces a run is trained.

    Attributes:
        labelled: which training structures have forces of non-zero weight.
        seed: of the choice.
        fraction: share of these structures whose forces are used.
        resample_epochs: number of epochs after which others are chosen; None for never.
        min_structures: smallest number of structures with forces in an epoch.
        unbiased: multiply the weight of the forces that are used by the inverse of the share that
            they are, so that the expected loss is that of all forces.
    """

    labelled: Bool[np.ndarray, "structures"]
    seed: int
    fraction: float
    resample_epochs: int | None = None
    min_structures: int = 1
    unbiased: bool = True

    def __post_init__(self) -> None:
        if not 0.0 < self.fraction <= 1.0:
            raise ValueError(
                f"force_fraction: found {self.fraction}, expected above 0 and at most 1"
            )
        for name in ("resample_epochs", "min_structures"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"force_{name}: found {value}, expected at least 1")

    @property
    def count(self) -> int:
        """Number of structures whose forces are used in an epoch."""
        available = int(self.labelled.sum())
        return min(available, max(self.min_structures, round(self.fraction * available)))

    @property
    def factor(self) -> float:
        """What the weights of these forces are multiplied by."""
        return int(self.labelled.sum()) / self.count if self.unbiased and self.count else 1.0

    def factors(self, epoch: int) -> Float[np.ndarray, "structures"]:
        """Factor on the weight of the forces of each training structure: zero, or `factor`.

        Args:
            epoch: the epoch.
        """
        draw = 0 if self.resample_epochs is None else epoch // self.resample_epochs
        generator = np.random.default_rng((self.seed, _STREAM, draw))
        chosen = generator.choice(np.flatnonzero(self.labelled), size=self.count, replace=False)
        factors = np.zeros(len(self.labelled))
        factors[chosen] = self.factor
        return factors

    def applied(
        self,
        batches: Iterable[Graph],
        indices: Sequence[Int[np.ndarray, "_"]],
        *,
        epoch: int,
    ) -> Iterator[Graph]:
        """The batches with other weights of the forces.

        Args:
            batches: of an epoch, or what is left of it.
            indices: positions of the structures of each batch, in its order.
            epoch: the epoch.
        """
        factors = self.factors(epoch)
        for graph, members in zip(batches, indices, strict=True):
            weight = np.array(graph.weights["forces"])
            weight[np.asarray(graph.graph_mask)] *= factors[members].astype(weight.dtype)
            yield graph.replace(weights={**graph.weights, "forces": weight})

    def describe(self) -> str:
        """The line for the log."""
        how = "the same in all epochs"
        if self.resample_epochs is not None:
            how = f"others every {self.resample_epochs} epochs"
        return (
            f"Forces of {self.count} of {int(self.labelled.sum())} training structures are used, "
            f"{how}; factor on their weight: {self.factor:g}"
        )
