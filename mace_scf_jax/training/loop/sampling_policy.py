"""How often each training structure is drawn in an epoch.

An epoch has as many draws as there are structures. With probabilities p the number of draws of
structure i is N p_i on average, and never differs from it by one or more (systematic resampling:
Douc, Cappé, Moulines, Comparison of resampling schemes for particle filtering, 2005), so that equal
probabilities give each structure once.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int

UNIFORM_SHARE = 0.2
"""Part of the probability that is shared equally, so that no structure is ever forgotten."""


_STREAM = 2
"""Keeps these random numbers apart from those of the order of batches and of the forces."""


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
        """The structures of an epoch in their order.

        Args:
            epoch: the epoch.
            losses: share of each structure in the loss, for the policy "error_weighted".
        """
        if self.policy == "error_weighted":
            probabilities = error_weighted(losses)
        else:
            probabilities = energy_weighted(self.energies, self.labelled)
        return draws(probabilities, np.random.default_rng((self.seed, _STREAM, epoch)))


def energy_weighted(
    energies: Float[np.ndarray, "structures"], labelled: Bool[np.ndarray, "structures"]
) -> Float[np.ndarray, "structures"]:
    """Probabilities that prefer low energies: Boltzmann factors, partly made equal.

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
    """Probabilities that prefer large errors, partly made equal.

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
    """The structures of an epoch in random order, some several times, some not at all.

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
