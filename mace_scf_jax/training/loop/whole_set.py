"""Steps on the whole training set at once, from sums over its batches."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from mace_scf_jax.graph import Graph
from mace_scf_jax.training.loop.data import EpochBatches
from mace_scf_jax.training.loop.options import WatchOptions
from mace_scf_jax.training.loop.state import TrainingState
from mace_scf_jax.training.loop.steps import NO_OPTIONS, LossOptions, Mode, Scalars, Steps, scalars
from mace_scf_jax.training.loop.watching import watch
from mace_scf_jax.training.losses import Mean
from mace_scf_jax.training.optimise.levenberg_marquardt import Curvature, trials
from mace_scf_jax.training.optimise.optimiser import OptimiserSettings, moving_average
from mace_scf_jax.training.optimise.parameter_groups import Parameters


class WholeLoss(NamedTuple):
    """The loss over a whole set."""

    terms: dict[str, float]
    """Each multiplied by its weight."""
    factors: dict[str, float]
    """Derivative of the loss by the total of each term."""

    @property
    def value(self) -> float:
        """Sum of the terms."""
        return sum(self.terms.values())

    @classmethod
    def of(cls, means: Mapping[str, Mean], weights: Mapping[str, float]) -> WholeLoss:
        """From the sums of each term over the set."""
        terms, factors = {}, {}
        for name, mean in means.items():
            count = float(mean.count) or 1.0
            average = float(mean.total) / count
            if mean.rooted:
                root = np.sqrt(average)
                terms[name] = weights[name] * root
                factors[name] = weights[name] / (2.0 * count * root) if root > 0.0 else 0.0
            else:
                terms[name] = weights[name] * average
                factors[name] = weights[name] / count
        return cls(terms, factors)


class WholeSetSteps:
    """Levenberg–Marquardt steps of one training run.

    Args:
        steps: the compiled functions of batches.
        optimiser: how parameters are updated.
        watched: what to look at more closely.
    """

    def __init__(self, steps: Steps, optimiser: OptimiserSettings, watched: WatchOptions):
        self._steps = steps
        self._optimiser = optimiser
        self._watched = watched
        self._held: tuple[EpochBatches | None, list[Graph]] = None, []
        self._known: tuple[Any, Parameters, WholeLoss] | None = None

    def train(
        self,
        mode: Mode,
        state: TrainingState,
        batches: EpochBatches,
        weights: Mapping[str, float],
        options: LossOptions = NO_OPTIONS,
    ) -> tuple[TrainingState, dict[str, Any]]:
        """Make one step.

        Args:
            mode: how the model is used.
            state: arrays of the run.
            batches: of the training set. They are kept in memory.
            weights: weight of each loss term.
            options: of the loss terms.

        Returns:
            The new state and the record of the step, as of `Steps.train`.
        """
        graphs = self._all(batches)

        def loss_at(parameters: Parameters) -> WholeLoss:
            return self._loss(mode, parameters, graphs, weights, options)

        what = (mode, tuple(weights.items()), tuple(options.items()))
        if (
            self._known is not None
            and self._known[0] == what
            and self._known[1] is state.parameters
        ):
            before = self._known[2]
        else:
            before = loss_at(state.parameters)
        factors = scalars(before.factors, jax.tree.leaves(state.parameters)[0].dtype)
        known = self._curvature(mode, state.parameters, graphs, factors, options)
        flat, tree_of = ravel_pytree(state.parameters)
        parameters, damping = state.parameters, state.optimiser
        for trial in trials(known, damping):
            tried = tree_of(flat + trial.step.astype(flat.dtype))
            after = loss_at(tried)
            gain = (before.value - after.value) / trial.decrease
            if gain > 0.0:
                parameters, damping = tried, trial.damping.after_success(gain)
                self._known = what, parameters, after
                break
        average = state.average
        if average is not None:
            decay = self._optimiser.ema_decay
            average = moving_average(average, parameters, state.steps, decay)
        gradient = tree_of(known.gradient.astype(flat.dtype))
        record = {
            "loss": before.value,
            "terms": before.terms,
            "gradient_norm": np.linalg.norm(known.gradient),
            "scf": {},
            "scf_steps": {},
            "watched": watch(self._watched, gradient, state.parameters, state.steps),
        }
        state = dataclasses.replace(
            state,
            parameters=parameters,
            optimiser=damping,
            average=average,
            steps=state.steps + 1,
        )
        return state, jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], record)

    def _all(self, batches: EpochBatches) -> list[Graph]:
        """The batches of a set, made when they are first asked for."""
        if self._held[0] is not batches:
            self._held = batches, [jax.device_put(graph) for graph in batches(0)]
        return self._held[1]

    def _loss(
        self,
        mode: Mode,
        parameters: Parameters,
        batches: Iterable[Graph],
        weights: Mapping[str, float],
        options: LossOptions,
    ) -> WholeLoss:
        """The loss over all batches."""
        sums: dict[str, Mean] = {}
        for graph in batches:
            means = self._steps.means(mode, parameters, graph, tuple(weights), options)
            for name, mean in jax.device_get(means).items():
                total, count = mean[:2] if name not in sums else np.add(sums[name][:2], mean[:2])
                sums[name] = Mean(float(total), float(count), bool(mean.rooted))
        return WholeLoss.of(sums, weights)

    def _curvature(
        self,
        mode: Mode,
        parameters: Parameters,
        batches: Iterable[Graph],
        factors: Scalars,
        options: LossOptions,
    ) -> Curvature:
        """Derivatives of the loss over all batches, summed in double precision."""
        size = sum(leaf.size for leaf in jax.tree.leaves(parameters))
        gradient, matrix = np.zeros(size), np.zeros((size, size))
        for graph in batches:
            part = self._steps.curvature(mode, parameters, graph, factors, options)
            gradient += np.asarray(part.gradient)
            matrix += np.asarray(part.matrix)
        return Curvature(gradient, matrix)
