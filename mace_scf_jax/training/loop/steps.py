"""The compiled steps of training and evaluation.

Each step is a function of one device and its part of a batch (:class:`Devices`). It is compiled
ahead of time, once per shape of its batch (a bucket of the padded sizes), and every compilation is
counted and timed. Learning rates and loss weights are arguments, so that stages share a step if
they use the model in the same mode and their losses have the same terms. Evaluation is split into
the prediction, compiled once for each mode, and the small loss function. Runs that train alike
share their steps through one :class:`Programs`.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from mace_scf_jax.data.on_device import ChosenBatches, chosen
from mace_scf_jax.graph import Graph
from mace_scf_jax.predict.metrics import METRIC_INPUTS
from mace_scf_jax.training.loop.devices import PARTS, SAME, Devices, Placement
from mace_scf_jax.training.loop.options import WatchOptions
from mace_scf_jax.training.loop.scf_counts import scf_counts, scf_inputs, scf_steps
from mace_scf_jax.training.loop.state import TrainingState
from mace_scf_jax.training.loop.watching import NOTHING_WATCHED, watch
from mace_scf_jax.training.losses import (
    WEIGHT_MODIFIER,
    Mean,
    loss_inputs,
    loss_means,
    outputs_read,
    weighted_loss,
)
from mace_scf_jax.training.optimise.freezing import Frozen
from mace_scf_jax.training.optimise.levenberg_marquardt import Curvature, curvature
from mace_scf_jax.training.optimise.optimiser import (
    OptimiserSettings,
    build_optimiser,
    moving_average,
)
from mace_scf_jax.training.optimise.parameter_groups import Parameters

Item = TypeVar("Item")
Scalars = dict[str, Float[Array, ""]]
LossOptions = Mapping[str, Any]
"""Options of the loss terms that have any, by the name of the term."""

NO_OPTIONS: LossOptions = {}
NOTHING_FROZEN = Frozen()


@runtime_checkable
class Mode(Protocol):
    """How a stage uses the model. Stages with equal modes share compiled steps: it is hashable."""

    @property
    def name(self) -> str:
        """Name for the record of compilations; empty for models with one mode only."""

    def predict(
        self, params: Parameters, graph: Graph, *, forces: bool, stress: bool
    ) -> dict[str, Array]:
        """Compute the model outputs by name."""


@dataclasses.dataclass(frozen=True)
class Compilation:
    """One compilation of one step for one bucket."""

    step: str
    bucket: str
    seconds: float


class BatchLoss(NamedTuple):
    """The loss of one batch, on the device."""

    value: Float[Array, ""]
    terms: Scalars
    """Each already multiplied by its weight."""
    roots: dict[str, tuple[Float[Array, ""], Float[Array, ""]]]
    """Total and count of the terms that are roots of a mean."""
    scf: dict[str, Array]
    """How the self-consistent solutions ended."""
    scf_steps: dict[str, Array]
    """Their steps."""


class Programs(dict[Hashable, Callable[..., Any]]):
    """Compiled steps by what they compute. Runs that train alike, one after the other, share them.

    It keeps all that was ever compiled through it.
    """


class Steps:
    """The steps of one training run.

    Args:
        optimiser: how parameters are updated.
        compute_stress: also predict stresses in evaluations.
        on_compilation: called after each compilation.
        devices: that share the work; batches are given as `Devices.put` takes them.
        watched: what to look at more closely.
        programs: where compiled steps are kept and looked for; by default the run has its own.
    """

    def __init__(
        self,
        optimiser: OptimiserSettings,
        *,
        compute_stress: bool,
        on_compilation: Callable[[Compilation], None],
        devices: Devices | None = None,
        watched: WatchOptions = NOTHING_WATCHED,
        programs: Programs | None = None,
    ):
        self.devices = Devices() if devices is None else devices
        self._optimiser = optimiser
        self._compute_stress = compute_stress
        self._on_compilation = on_compilation
        self._watched = watched
        self._programs = Programs() if programs is None else programs

    def train(
        self,
        mode: Mode,
        state: TrainingState,
        batches: Graph | ChosenBatches,
        learning_rates: Scalars,
        weights: Scalars,
        options: LossOptions = NO_OPTIONS,
        frozen: Frozen = NOTHING_FROZEN,
    ) -> tuple[TrainingState, dict[str, Any]]:
        """Make an optimiser step on a batch, or on each of several, one after the other.

        Args:
            mode: how the model is used.
            state: arrays of the run; their memory is taken over by the result.
            batches: one, in parts if several devices share the work; or several.
            learning_rates: rate of each parameter group.
            weights: weight of each loss term.
            options: of the loss terms.
            frozen: what stays as it is, and is no part of the gradient.

        Returns:
            The new state, and for each step a record of the loss, its weighted terms, the norm of
            the gradient before clipping, what became of the self-consistency, and what was looked
            at more closely, on the device.
        """

        def training_step(state, graph, learning_rates, weights):
            read = outputs_read(weights)

            def loss_function(parameters):
                prediction = mode.predict(
                    parameters, graph, forces="forces" in read, stress="stress" in read
                )
                loss, terms = self._weighted_loss(weights, prediction, graph, options)
                return loss, (terms, named_in(scf_inputs(), prediction))

            (loss, (terms, solved)), gradient = jax.value_and_grad(loss_function, has_aux=True)(
                state.parameters
            )
            loss, terms, counts, gradient = self.devices.sum(
                (loss, terms, scf_counts(solved, graph), gradient)
            )
            gradient = frozen.without(gradient)
            updates, optimiser = build_optimiser(self._optimiser, state.parameters).update(
                gradient,
                state.optimiser,
                state.parameters,
                learning_rates=learning_rates,
                value=loss,
                grad=gradient,
                value_fn=lambda parameters: loss_function(parameters)[0],
            )

            parameters = optax.apply_updates(state.parameters, updates)
            average = state.average
            if average is not None:
                decay = self._optimiser.ema_decay
                average = moving_average(average, parameters, state.steps, decay)
            before = (state.parameters, state.optimiser, state.average)
            parameters, optimiser, average = frozen.kept(
                before, (parameters, optimiser, average), state.parameters
            )
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

        def training_steps(state, batches, learning_rates, weights):
            if isinstance(batches, Graph):
                state, record = training_step(state, batches, learning_rates, weights)
                return state, jax.tree.map(lambda leaf: leaf[None], record)

            def on_chosen(state, rows):
                graph = chosen(batches.whole, rows, batches.sizes)
                return training_step(state, graph, learning_rates, weights)

            return jax.lax.scan(on_chosen, state, batches.rows)

        several = isinstance(batches, ChosenBatches)
        name = f"{len(batches)} training steps" if several else "training step"
        return self._run(
            _named(name, mode),
            training_steps,
            (state, batches if several else self.devices.put(batches), learning_rates, weights),
            key=(mode, frozenset(options.items()), frozen),
            places=(SAME, PARTS, SAME, SAME),
            results=SAME,
            donate=(0,),
        )

    def means(
        self,
        mode: Mode,
        parameters: Parameters,
        graph: Graph,
        names: Sequence[str],
        options: LossOptions = NO_OPTIONS,
    ) -> dict[str, Mean]:
        """Compute the named loss terms of a batch, not yet divided."""

        def means_of_terms(parameters, graph):
            found = loss_means(
                names, _read_by(names, mode, parameters, graph), graph, options=options
            )
            return self.devices.sum(found)

        return self._run(
            _named("loss terms", mode),
            means_of_terms,
            (parameters, self.devices.put(graph)),
            key=(mode, tuple(names), frozenset(options.items())),
            places=(SAME, PARTS),
            results=SAME,
        )

    def curvature(
        self,
        mode: Mode,
        parameters: Parameters,
        graph: Graph,
        factors: Scalars,
        options: LossOptions = NO_OPTIONS,
    ) -> Curvature:
        """Compute first and second derivatives of a sum of loss terms of a batch.

        Args:
            mode: how the model is used.
            parameters: where.
            graph: the batch.
            factors: of the totals of the terms, by name.
            options: of the loss terms.
        """

        def curvature_of_terms(parameters, graph, factors):
            def loss(prediction):
                found = loss_means(factors, prediction, graph, options=options)
                return sum(factors[name] * mean.total for name, mean in found.items())

            def predict(parameters):
                return _read_by(factors, mode, parameters, graph)

            return self.devices.sum(curvature(predict, loss, parameters))

        return self._run(
            _named("curvature", mode),
            curvature_of_terms,
            (parameters, self.devices.put(graph), factors),
            key=(mode, frozenset(options.items())),
            places=(SAME, PARTS, SAME),
            results=SAME,
        )

    def predict(self, mode: Mode, parameters: Parameters, graph: Graph) -> dict[str, Array]:
        """Predict what losses, metrics and reports read, in parts like the batch."""

        def outputs(parameters, graph):
            found = mode.predict(parameters, graph, forces=True, stress=self._compute_stress)
            return named_in(METRIC_INPUTS | loss_inputs() | scf_inputs(), found)

        return self._run(
            _named("prediction", mode),
            outputs,
            (parameters, self.devices.put(graph)),
            key=mode,
            places=(SAME, PARTS),
            results=PARTS,
        )

    def loss(
        self,
        prediction: dict[str, Array],
        graph: Graph,
        weights: Scalars,
        options: LossOptions = NO_OPTIONS,
    ) -> BatchLoss:
        """Compute the loss of a prediction."""

        def loss_of_prediction(prediction, graph, weights):
            loss, terms = self._weighted_loss(weights, prediction, graph, options)
            means = loss_means(weights, prediction, graph, options=options)
            roots = {name: it[:2] for name, it in means.items() if it.rooted}
            sums = self.devices.sum((loss, terms, roots, scf_counts(prediction, graph)))
            return BatchLoss(*sums, scf_steps(prediction, graph, self.devices))

        return self._run(
            "loss",
            loss_of_prediction,
            (named_in(loss_inputs() | scf_inputs(), prediction), self.devices.put(graph), weights),
            key=frozenset(options.items()),
            places=(PARTS, PARTS, SAME),
            results=SAME,
        )

    def structure_losses(
        self,
        prediction: dict[str, Array],
        graph: Graph,
        weights: Scalars,
        options: LossOptions = NO_OPTIONS,
    ) -> Float[Array, "graphs"]:
        """Compute the share of each structure in the loss of a batch, times their number.

        It is the derivative of the loss in a factor on the weight of the structure, at the same
        denominators.
        """

        def losses_of_structures(prediction, graph, weights):
            def loss(factors):
                weighted = graph.replace(config_weight=graph.config_weight * factors)
                return self._weighted_loss(weights, prediction, weighted, options)[0]

            shares = jax.grad(loss)(jnp.ones_like(graph.config_weight))
            return shares * self.devices.sum(jnp.sum(graph.graph_mask.astype(shares.dtype)))

        return self._run(
            "loss by structure",
            losses_of_structures,
            (named_in(loss_inputs(), prediction), self.devices.put(graph), weights),
            key=frozenset(options.items()),
            places=(PARTS, PARTS, SAME),
            results=PARTS,
        )

    def _weighted_loss(self, weights, prediction, graph, options):
        """The share of the part of a device in the loss and in its terms."""
        return weighted_loss(
            weights, prediction, graph, options=options, sum_parts=self.devices.sum
        )

    def _run(
        self,
        name: str,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        *,
        key: Hashable,
        places: Sequence[Placement],
        results: Placement,
        donate: tuple[int, ...] = (),
    ) -> Any:
        """Run a function, compiling it first if its arguments have new shapes.

        Args:
            name: of the step.
            function: what to compile, given by the name, the key and the settings of the run.
            arguments: the second one is the batch.
            key: what the function depends on besides.
            places: where each argument is.
            results: where the results are.
            donate: positions of arguments whose memory the results may take over.
        """
        leaves, structure = jax.tree.flatten(arguments)
        shapes = structure, tuple((leaf.shape, leaf.dtype) for leaf in leaves)
        settings = self._optimiser, self._compute_stress, self._watched, self.devices
        program = (settings, name, key, shapes)
        if program not in self._programs:
            started = time.perf_counter()
            jitted = self.devices.jit(function, arguments=places, results=results, donate=donate)
            self._programs[program] = jitted.lower(*arguments).compile()
            seconds = time.perf_counter() - started
            self._on_compilation(Compilation(name, bucket_name(arguments[1]), seconds))
        return self._programs[program](*arguments)


def _read_by(
    terms: Iterable[str], mode: Mode, parameters: Parameters, graph: Graph
) -> dict[str, Array]:
    """Predict what some loss terms read."""
    read = outputs_read(terms)
    found = mode.predict(parameters, graph, forces="forces" in read, stress="stress" in read)
    return named_in(read | {WEIGHT_MODIFIER}, found)


def named_in(names: Collection[str], values: Mapping[str, Array]) -> dict[str, Array]:
    """Select those of the values that have one of the names."""
    return {name: value for name, value in values.items() if name in names}


def bucket_name(batch: Graph | ChosenBatches) -> str:
    """Tell the padded sizes of a batch, or of each of several, in words."""
    if isinstance(batch, ChosenBatches):
        sizes = batch.sizes
        edges, kvectors, graphs, atoms = sizes.edges, sizes.kvectors, sizes.graphs, sizes.atoms
    else:
        edges, kvectors = batch.senders.shape[-1], batch.k_indices.shape[-2]
        graphs, atoms = batch.graph_mask.shape[-1], batch.atom_mask.shape[-1]
    return f"{graphs} graphs, {atoms} atoms, {edges} edges, {kvectors} k"


def scalars(values: Mapping[str, float], dtype: Any) -> Scalars:
    """Make numbers arguments of a compiled step."""
    return {name: _scalar(float(value), dtype) for name, value in values.items()}


@functools.lru_cache(maxsize=256)
def _scalar(value: float, dtype: Any) -> Array:
    """A number on the device; to put it there takes as long as a short step."""
    return jnp.asarray(value, dtype=dtype)


def one_behind(items: Iterable[Item]) -> Iterator[Item]:
    """Give each item once the next one has been made.

    Results of compiled steps are computed asynchronously: reading one while the next is already
    under way keeps both the host and the device busy.
    """
    waiting: list[Item] = []
    for item in items:
        waiting.append(item)
        if len(waiting) > 1:
            yield waiting.pop(0)
    yield from waiting


def _named(step: str, mode: Mode) -> str:
    """Name of a step in a mode."""
    return f"{step} ({mode.name})" if mode.name else step
