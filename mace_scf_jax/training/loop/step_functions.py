"""What the compiled steps of training and evaluation compute.

The functions are written for one device and its part of a batch (:class:`Devices`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from mace_scf_jax.graph import Graph
from mace_scf_jax.predict.metrics import METRIC_INPUTS
from mace_scf_jax.training.loop.devices import Devices
from mace_scf_jax.training.loop.scf_counts import SCF_INPUTS, scf_counts
from mace_scf_jax.training.loop.scf_steps import scf_steps
from mace_scf_jax.training.loop.state import TrainingState
from mace_scf_jax.training.loop.watching import WatchSettings, watch
from mace_scf_jax.training.losses.registry import (
    LOSS_INPUTS,
    needs_forces,
    needs_stress,
    weighted_loss,
)
from mace_scf_jax.training.optimise.optimiser import (
    OptimiserSettings,
    build_optimiser,
    moving_average,
)
from mace_scf_jax.training.optimise.parameter_groups import Parameters

Scalars = dict[str, Float[Array, ""]]
LossOptions = Mapping[str, Any]
"""Options of the loss terms that have any, by the name of the term."""

NO_OPTIONS: LossOptions = {}


@runtime_checkable
class Predict(Protocol):
    """A model as training sees it."""

    def __call__(
        self, params: Parameters, graph: Graph, *, forces: bool, stress: bool
    ) -> dict[str, Array]:
        """Model outputs by name."""


@dataclasses.dataclass(frozen=True)
class Mode:
    """How a stage uses the model. Stages with equal modes share compiled steps."""

    predict: Predict
    """The model; hashable, equal where modes are."""
    name: str = ""
    """For the record of compilations; empty for models with one mode only."""


@dataclasses.dataclass(frozen=True)
class StepFunctions:
    """The functions of a training run, equal where runs train alike."""

    optimiser: OptimiserSettings
    compute_stress: bool
    """Also predict stresses in evaluations."""
    watched: WatchSettings
    """What to look at more closely."""
    devices: Devices
    """That share the work."""

    def training_step(
        self,
        state: TrainingState,
        graph: Graph,
        learning_rates: Scalars,
        weights: Scalars,
        *,
        mode: Mode,
        options: LossOptions,
    ) -> tuple[TrainingState, dict[str, Any]]:
        """The state after one optimiser step, and a record of it."""

        def loss_function(parameters: Parameters):
            prediction = mode.predict(
                parameters, graph, forces=needs_forces(weights), stress=needs_stress(weights)
            )
            loss, terms = self._weighted_loss(weights, prediction, graph, options)
            return loss, (terms, named_in(SCF_INPUTS, prediction))

        (loss, (terms, solved)), gradient = jax.value_and_grad(loss_function, has_aux=True)(
            state.parameters
        )
        loss, terms, counts, gradient = self.devices.sum(
            (loss, terms, scf_counts(solved, graph), gradient)
        )
        updates, optimiser = build_optimiser(self.optimiser, state.parameters).update(
            gradient, state.optimiser, state.parameters, learning_rates=learning_rates
        )
        parameters = optax.apply_updates(state.parameters, updates)
        average = state.average
        if average is not None:
            average = moving_average(average, parameters, state.steps, self.optimiser.ema_decay)
        record = {
            "loss": loss,
            "terms": terms,
            "gradient_norm": optax.tree.norm(gradient),
            "scf": counts,
            "scf_steps": scf_steps(solved, graph, self.devices),
            "watched": watch(self.watched, gradient, state.parameters, state.steps),
        }
        state = dataclasses.replace(
            state,
            parameters=parameters,
            optimiser=optimiser,
            average=average,
            steps=state.steps + 1,
        )
        return state, record

    def all_outputs(self, mode: Mode, parameters: Parameters, graph: Graph) -> dict[str, Array]:
        """Everything that the model can predict in a mode."""
        return mode.predict(parameters, graph, forces=True, stress=self.compute_stress)

    def outputs(self, mode: Mode, parameters: Parameters, graph: Graph) -> dict[str, Array]:
        """What losses, metrics and reports read."""
        outputs = self.all_outputs(mode, parameters, graph)
        return named_in(METRIC_INPUTS | LOSS_INPUTS | SCF_INPUTS, outputs)

    def loss_of_prediction(
        self,
        prediction: dict[str, Array],
        graph: Graph,
        weights: Scalars,
        *,
        options: LossOptions,
    ) -> tuple[Float[Array, ""], Scalars, dict[str, Array], dict[str, Array]]:
        """The loss, its terms, and what became of the self-consistency."""
        loss, terms = self._weighted_loss(weights, prediction, graph, options)
        sums = self.devices.sum((loss, terms, scf_counts(prediction, graph)))
        return *sums, scf_steps(prediction, graph, self.devices)

    def losses_of_structures(
        self,
        prediction: dict[str, Array],
        graph: Graph,
        weights: Scalars,
        *,
        options: LossOptions,
    ) -> Float[Array, "graphs"]:
        """The loss without the weights of all other structures, less that without any weight."""

        def loss(selected):
            of_selected = graph.replace(config_weight=graph.config_weight * selected)
            return self._weighted_loss(weights, prediction, of_selected, options)[0]

        single = jnp.eye(graph.num_graphs, dtype=graph.config_weight.dtype)
        without = loss(jnp.zeros_like(graph.config_weight))
        count = self.devices.sum(jnp.sum(graph.graph_mask.astype(without.dtype)))
        return count * (jax.vmap(loss)(single) - without)

    def _weighted_loss(self, weights, prediction, graph, options):
        """The share of the part of a device in the loss and in its terms."""
        return weighted_loss(
            weights, prediction, graph, options=options, sum_counts=self.devices.sum
        )


def named_in(names: Collection[str], values: Mapping[str, Array]) -> dict[str, Array]:
    """Those of the values that have one of the names."""
    return {name: value for name, value in values.items() if name in names}
