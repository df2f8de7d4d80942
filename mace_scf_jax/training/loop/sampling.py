"""Which structures an epoch is trained on, and on the forces of which of them.

**Structures.** An epoch has as many draws as there are structures. With probabilities p the number
of draws of structure i is N p_i on average, and never differs from it by one or more (systematic
resampling: Douc, Cappé, Moulines, Comparison of resampling schemes for particle filtering, 2005),
so that equal probabilities give each structure once.

**Forces.** The forces of a part of the structures may be trained on only; those of the others get
weight zero in the batches, whose shapes do not change, so that nothing is compiled again.

All choices are functions of the seed and the epoch (and of saved losses), so that a run resumes
exactly.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from mace_scf_jax.graph import Graph
from mace_scf_jax.training.loop.options import SamplingOptions

UNIFORM_SHARE = 0.2
"""Part of the probability that is shared equally, so that no structure is ever forgotten."""

_FORCES, _STRUCTURES = 1, 2
"""Keep the random numbers apart from each other and from those of the order of batches."""


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How the structures of an epoch are drawn, where not each is drawn once.

    Attributes:
        policy: which structures are preferred.
        seed: of the draws.
        energies: interaction energies per atom of the training structures, eV.
        labelled: which of these are known.
    """

    policy: Literal["energy_weighted", "error_weighted"]
    seed: int
    energies: Float[np.ndarray, "structures"]
    labelled: Bool[np.ndarray, "structures"]

    def order(
        self, epoch: int, losses: Float[np.ndarray, "structures"] | None
    ) -> Int[np.ndarray, "structures"]:
        """Draw the structures of an epoch in their order.

        Args:
            losses: share of each structure in the loss, for the policy "error_weighted".
        """
        if self.policy == "error_weighted":
            probabilities = error_weighted(losses)
        else:
            probabilities = energy_weighted(self.energies, self.labelled)
        return draws(probabilities, np.random.default_rng((self.seed, _STRUCTURES, epoch)))


def energy_weighted(
    energies: Float[np.ndarray, "structures"], labelled: Bool[np.ndarray, "structures"]
) -> Float[np.ndarray, "structures"]:
    """Prefer low energies: probabilities are Boltzmann factors, partly made equal.

    p_i = u / N + (1 - u) w_i / Σ w with w_i = exp(-(e_i - min e) / σ), σ being the standard
    deviation of the energies and u the uniform share.

    Args:
        energies: interaction energies per atom, eV.
        labelled: which are known; a structure without has the mean weight of the others.
    """
    weights = np.ones(len(energies))
    width = float(np.std(energies[labelled])) if labelled.any() else 0.0
    if width > 0.0:
        known = energies[labelled]
        weights[labelled] = np.exp(-(known - known.min()) / width)
        weights[~labelled] = np.mean(weights[labelled])
    return _partly_uniform(weights)


def error_weighted(losses: Float[np.ndarray, "structures"]) -> Float[np.ndarray, "structures"]:
    """Prefer large errors: probabilities grow with them, partly made equal.

    p_i = u / N + (1 - u) w_i / Σ w with w_i = sqrt(loss_i): the loss is a sum of squared errors, so
    that its gradient grows like the error, and draws in proportion to the norms of the gradients
    have the smallest variance (Katharopoulos, Fleuret, Not all samples are created equal, 2018).

    Args:
        losses: share of each structure in the loss; all zero before there is an evaluation.
    """
    weights = np.sqrt(losses)
    return _partly_uniform(weights if weights.any() else np.ones(len(losses)))


def draws(
    probabilities: Float[np.ndarray, "structures"], generator: np.random.Generator
) -> Int[np.ndarray, "structures"]:
    """Draw the structures of an epoch in random order, some several times, some not at all.

    Args:
        probabilities: of the structures; they sum to one.
        generator: of random numbers.
    """
    count = len(probabilities)
    ends = np.cumsum(probabilities)
    places = (generator.random() + np.arange(count)) / count * ends[-1]
    drawn = np.minimum(np.searchsorted(ends, places, side="right"), count - 1)
    return generator.permutation(drawn)


def _partly_uniform(weights: Float[np.ndarray, "structures"]) -> Float[np.ndarray, "structures"]:
    return UNIFORM_SHARE / len(weights) + (1.0 - UNIFORM_SHARE) * weights / weights.sum()


@dataclasses.dataclass(frozen=True)
class ForceSupervision:
    """On which forces a run is trained."""

    labelled: Bool[np.ndarray, "structures"]
    """Which training structures have forces of non-zero weight."""
    seed: int
    """Of the choice."""
    options: SamplingOptions

    @property
    def count(self) -> int:
        """Number of structures whose forces are used in an epoch."""
        available = int(self.labelled.sum())
        wanted = round(self.options.force_fraction * available)
        return min(available, max(self.options.force_min_structures, wanted))

    @property
    def factor(self) -> float:
        """What the weights of these forces are multiplied by."""
        unbiased = self.options.force_scale_unbiased and self.count
        return int(self.labelled.sum()) / self.count if unbiased else 1.0

    def factors(self, epoch: int) -> Float[np.ndarray, "structures"]:
        """Choose the factor on the forces' weight of each structure: zero, or `factor`."""
        period = self.options.force_resample_epochs
        draw = 0 if period is None else epoch // period
        generator = np.random.default_rng((self.seed, _FORCES, draw))
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
        """Give the batches other weights of the forces.

        Args:
            batches: of an epoch, or what is left of it.
            indices: positions of the structures of each batch, in its order.
        """
        factors = self.factors(epoch)
        for graph, members in zip(batches, indices, strict=True):
            weight = np.array(graph.weights["forces"])
            weight[np.asarray(graph.graph_mask)] *= factors[members].astype(weight.dtype)
            yield graph.replace(weights={**graph.weights, "forces": weight})

    def describe(self) -> str:
        """Tell in one line for the log."""
        how = "the same in all epochs"
        if self.options.force_resample_epochs is not None:
            how = f"others every {self.options.force_resample_epochs} epochs"
        return (
            f"Forces of {self.count} of {int(self.labelled.sum())} training structures are used, "
            f"{how}; factor on their weight: {self.factor:g}"
        )
