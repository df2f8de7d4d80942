"""The compiled steps of training and evaluation.

Each step is compiled ahead of time, once per shape of its batch (a bucket of the padded sizes), and
every compilation is counted and timed. Learning rates and loss weights are arguments, so that
stages share a step if they use the model in the same mode and their losses have the same terms.
Evaluation is split into the prediction, compiled once for each mode, and the small loss function.

Steps are written for one device and its part of a batch, and compiled for all devices that share
the work (:class:`Devices`).
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeVar, runtime_checkable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from mace_scf_jax.graph import Graph
from mace_scf_jax.training.devices import PARTS, SAME, Devices, Placement
from mace_scf_jax.training.losses import LOSS_INPUTS, needs_forces, needs_stress, weighted_loss
from mace_scf_jax.training.metrics import METRIC_INPUTS
from mace_scf_jax.training.optimiser import OptimiserSettings, build_optimiser, moving_average
from mace_scf_jax.training.parameter_groups import Parameters
from mace_scf_jax.training.scf_counts import SCF_INPUTS, scf_counts
from mace_scf_jax.training.scf_steps import scf_steps
from mace_scf_jax.training.state import TrainingState
from mace_scf_jax.training.watching import NOTHING_WATCHED, WatchSettings, watch

Item = TypeVar("Item")
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
class Compilation:
    """One compilation of one step for one bucket."""

    step: str
    bucket: str
    seconds: float


class CompiledStep:
    """A function compiled once per shape of the batch among its arguments.

    Args:
        name: for the record of compilations.
        function: what to compile; the batch is its second argument, all others keep their shapes.
        devices: that share the work.
        arguments: where each argument is.
        results: where each result is.
        donate: positions of arguments whose memory the results may take over.
        on_compilation: called after each compilation.
    """

    def __init__(
        self,
        name: str,
        function: Callable[..., Any],
        *,
        devices: Devices,
        arguments: Sequence[Placement],
        results: Placement | Sequence[Placement],
        donate: tuple[int, ...] = (),
        on_compilation: Callable[[Compilation], None],
    ):
        self._name = name
        self._function = devices.jit(function, arguments=arguments, results=results, donate=donate)
        self._on_compilation = on_compilation
        self._compiled: dict[Any, Callable[..., Any]] = {}

    def __call__(self, *arguments: Any) -> Any:
        """Run the step, compiling it first if the batch has a new shape."""
        graph = arguments[1]
        leaves, structure = jax.tree.flatten(graph)
        shape = (structure, tuple((leaf.shape, leaf.dtype) for leaf in leaves))
        if shape not in self._compiled:
            started = time.perf_counter()
            self._compiled[shape] = self._function.lower(*arguments).compile()
            seconds = time.perf_counter() - started
            self._on_compilation(Compilation(self._name, bucket_name(graph), seconds))
        return self._compiled[shape](*arguments)


class Steps:
    """The compiled steps of one training run.

    Args:
        settings: of the optimiser.
        compute_stress: also predict stresses in evaluations.
        on_compilation: called after each compilation.
        devices: that share the work; batches are given as `Devices.put` takes them.
        watched: what to look at more closely.
    """

    def __init__(
        self,
        settings: OptimiserSettings,
        *,
        compute_stress: bool,
        on_compilation: Callable[[Compilation], None],
        devices: Devices | None = None,
        watched: WatchSettings = NOTHING_WATCHED,
    ):
        self.devices = Devices() if devices is None else devices
        self._watched = watched
        self._settings = settings
        self._compute_stress = compute_stress
        self._on_compilation = on_compilation
        self._training: dict[Hashable, CompiledStep] = {}
        self._prediction: dict[Mode, CompiledStep] = {}
        self._loss: dict[Hashable, CompiledStep] = {}
        self._structure_losses: dict[Hashable, CompiledStep] = {}

    def outputs(self, mode: Mode, parameters: Parameters, graph: Graph) -> tuple[str, ...]:
        """Names of everything that the model can predict in a mode."""
        return tuple(jax.eval_shape(functools.partial(self._all_outputs, mode), parameters, graph))

    def train(
        self,
        mode: Mode,
        state: TrainingState,
        graph: Graph,
        learning_rates: Scalars,
        weights: Scalars,
        options: LossOptions = NO_OPTIONS,
    ) -> tuple[TrainingState, dict[str, Any]]:
        """One optimiser step on one batch.

        Args:
            mode: how the model is used.
            state: arrays of the run; their memory is taken over by the result.
            graph: the batch.
            learning_rates: rate of each parameter group.
            weights: weight of each loss term.
            options: of the loss terms.

        Returns:
            The new state, and a record of the loss, its weighted terms, the norm of the gradient
            before clipping, what became of the self-consistency, and what was looked at more
            closely, on the device.
        """
        key = mode, _compiled_for(weights, options)
        if key not in self._training:
            self._training[key] = self._compiled_step(
                _named("training step", mode),
                functools.partial(self._training_step, mode=mode, options=options),
                arguments=(SAME, PARTS, SAME, SAME),
                results=SAME,
                donate=(0,),
            )
        return self._training[key](state, self.devices.put(graph), learning_rates, weights)

    def predict(self, mode: Mode, parameters: Parameters, graph: Graph) -> dict[str, Array]:
        """The model outputs that losses, metrics and reports read, in parts like the batch."""
        if mode not in self._prediction:
            self._prediction[mode] = self._compiled_step(
                _named("prediction", mode),
                functools.partial(self._outputs, mode),
                arguments=(SAME, PARTS),
                results=PARTS,
            )
        return self._prediction[mode](parameters, self.devices.put(graph))

    def loss(
        self,
        prediction: dict[str, Array],
        graph: Graph,
        weights: Scalars,
        options: LossOptions = NO_OPTIONS,
    ) -> tuple[Float[Array, ""], Scalars, dict[str, Array], dict[str, Array]]:
        """The loss of a prediction and its weighted terms; how the self-consistent solutions ended,
        and their steps."""
        read = _named_in(LOSS_INPUTS | SCF_INPUTS, prediction)
        key = _compiled_for(weights, options), frozenset(read)
        if key not in self._loss:
            self._loss[key] = self._compiled_step(
                "loss",
                functools.partial(self._loss_of_prediction, options=options),
                arguments=(PARTS, PARTS, SAME),
                results=SAME,
            )
        return self._loss[key](read, self.devices.put(graph), weights)

    def structure_losses(
        self,
        prediction: dict[str, Array],
        graph: Graph,
        weights: Scalars,
        options: LossOptions = NO_OPTIONS,
    ) -> Float[Array, "graphs"]:
        """Share of each structure in the loss of a batch, times the number of structures."""
        read = _named_in(LOSS_INPUTS, prediction)
        key = _compiled_for(weights, options), frozenset(read)
        if key not in self._structure_losses:
            self._structure_losses[key] = self._compiled_step(
                "loss by structure",
                functools.partial(self._losses_of_structures, options=options),
                arguments=(PARTS, PARTS, SAME),
                results=PARTS,
            )
        return self._structure_losses[key](read, self.devices.put(graph), weights)

    def _compiled_step(self, name: str, function: Callable[..., Any], **settings: Any):
        return CompiledStep(
            name,
            function,
            devices=self.devices,
            on_compilation=self._on_compilation,
            **settings,
        )

    def _training_step(self, state, graph, learning_rates, weights, *, mode, options):
        def loss_function(parameters: Parameters):
            prediction = mode.predict(
                parameters, graph, forces=needs_forces(weights), stress=needs_stress(weights)
            )
            loss, terms = self._weighted_loss(weights, prediction, graph, options)
            return loss, (terms, _named_in(SCF_INPUTS, prediction))

        (loss, (terms, solved)), gradient = jax.value_and_grad(loss_function, has_aux=True)(
            state.parameters
        )
        loss, terms, counts, gradient = self.devices.sum(
            (loss, terms, scf_counts(solved, graph), gradient)
        )
        updates, optimiser = build_optimiser(self._settings, state.parameters).update(
            gradient, state.optimiser, state.parameters, learning_rates=learning_rates
        )
        parameters = optax.apply_updates(state.parameters, updates)
        average = state.average
        if average is not None:
            average = moving_average(average, parameters, state.steps, self._settings.ema_decay)
        record = {
            "loss": loss,
            "terms": terms,
            "gradient_norm": optax.tree.norm(gradient),
            "scf": counts,
            "scf_steps": scf_steps(solved, graph, self.devices),
            "watched": watch(self._watched, gradient, state.parameters, state.steps),
        }
        state = dataclasses.replace(
            state,
            parameters=parameters,
            optimiser=optimiser,
            average=average,
            steps=state.steps + 1,
        )
        return state, record

    def _all_outputs(self, mode: Mode, parameters: Parameters, graph: Graph) -> dict[str, Array]:
        return mode.predict(parameters, graph, forces=True, stress=self._compute_stress)

    def _outputs(self, mode: Mode, parameters: Parameters, graph: Graph) -> dict[str, Array]:
        outputs = self._all_outputs(mode, parameters, graph)
        return _named_in(METRIC_INPUTS | LOSS_INPUTS | SCF_INPUTS, outputs)

    def _weighted_loss(self, weights, prediction, graph, options):
        """The share of the part of a device in the loss and in its terms."""
        return weighted_loss(
            weights, prediction, graph, options=options, sum_counts=self.devices.sum
        )

    def _loss_of_prediction(self, prediction, graph, weights, *, options):
        loss, terms = self._weighted_loss(weights, prediction, graph, options)
        sums = self.devices.sum((loss, terms, scf_counts(prediction, graph)))
        return *sums, scf_steps(prediction, graph, self.devices)

    def _losses_of_structures(self, prediction, graph, weights, *, options):
        """The loss without the weights of all other structures, less that without any weight."""

        def loss(selected):
            of_selected = graph.replace(config_weight=graph.config_weight * selected)
            return self._weighted_loss(weights, prediction, of_selected, options)[0]

        single = jnp.eye(graph.num_graphs, dtype=graph.config_weight.dtype)
        without = loss(jnp.zeros_like(graph.config_weight))
        count = self.devices.sum(jnp.sum(graph.graph_mask.astype(without.dtype)))
        return count * (jax.vmap(loss)(single) - without)


def bucket_name(graph: Graph) -> str:
    """The padded sizes of a batch in words."""
    edges, kvectors = graph.senders.shape[0], graph.k_indices.shape[1]
    return f"{graph.num_graphs} graphs, {graph.num_atoms} atoms, {edges} edges, {kvectors} k"


def scalars(values: Mapping[str, float], dtype: Any) -> Scalars:
    """Numbers as arguments of a compiled step."""
    return {name: jnp.asarray(value, dtype=dtype) for name, value in values.items()}


def one_behind(items: Iterable[Item]) -> Iterator[Item]:
    """Each item once the next one has been made.

    Results of compiled steps are computed asynchronously: reading one while the next is already
    under way keeps both the host and the device busy.
    """
    waiting: list[Item] = []
    for item in items:
        waiting.append(item)
        if len(waiting) > 1:
            yield waiting.pop(0)
    yield from waiting


def _named_in(names: Collection[str], values: Mapping[str, Array]) -> dict[str, Array]:
    return {name: value for name, value in values.items() if name in names}


def _named(step: str, mode: Mode) -> str:
    """Name of a step in a mode."""
    return f"{step} ({mode.name})" if mode.name else step


def _compiled_for(weights: Scalars, options: LossOptions) -> Hashable:
    """What distinguishes the steps of one loss from those of another."""
    return frozenset(weights), frozenset(options.items())
