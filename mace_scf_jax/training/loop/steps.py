"""The compiled steps of training and evaluation.

Each step is compiled ahead of time, once per shape of its batch (a bucket of the padded sizes), and
every compilation is counted and timed. Learning rates and loss weights are arguments, so that
stages share a step if they use the model in the same mode and their losses have the same terms.
Evaluation is split into the prediction, compiled once for each mode, and the small loss function.
Runs that train alike share their steps through one :class:`Programs`.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mace_scf_jax.graph import Graph
from mace_scf_jax.training.loop.devices import PARTS, SAME, Devices, Placement
from mace_scf_jax.training.loop.scf_counts import SCF_INPUTS
from mace_scf_jax.training.loop.state import TrainingState
from mace_scf_jax.training.loop.step_functions import (
    NO_OPTIONS,
    LossOptions,
    Mode,
    Predict,
    Scalars,
    StepFunctions,
    named_in,
)
from mace_scf_jax.training.loop.watching import NOTHING_WATCHED, WatchSettings
from mace_scf_jax.training.losses.registry import LOSS_INPUTS
from mace_scf_jax.training.optimise.optimiser import OptimiserSettings
from mace_scf_jax.training.optimise.parameter_groups import Parameters

__all__ = [
    "NO_OPTIONS",
    "Compilation",
    "LossOptions",
    "Mode",
    "Predict",
    "Programs",
    "Scalars",
    "Steps",
    "bucket_name",
    "one_behind",
    "scalars",
]

Item = TypeVar("Item")


@dataclasses.dataclass(frozen=True)
class Compilation:
    """One compilation of one step for one bucket."""

    step: str
    bucket: str
    seconds: float


OnCompilation = Callable[[Compilation], None]


class CompiledStep:
    """A function compiled once per shape of its arguments.

    Args:
        name: for the record of compilations.
        function: what to compile; the batch is its second argument.
        devices: that share the work.
        arguments: where each argument is.
        results: where each result is.
        donate: positions of arguments whose memory the results may take over.
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
    ):
        self._name = name
        self._function = devices.jit(function, arguments=arguments, results=results, donate=donate)
        self._compiled: dict[Hashable, Callable[..., Any]] = {}

    def __call__(self, *arguments: Any, on_compilation: OnCompilation) -> Any:
        """Run the step, compiling it first if its arguments have new shapes."""
        leaves, structure = jax.tree.flatten(arguments)
        shapes = structure, tuple((leaf.shape, leaf.dtype) for leaf in leaves)
        if shapes not in self._compiled:
            started = time.perf_counter()
            self._compiled[shapes] = self._function.lower(*arguments).compile()
            seconds = time.perf_counter() - started
            on_compilation(Compilation(self._name, bucket_name(arguments[1]), seconds))
        return self._compiled[shapes](*arguments)


class Programs:
    """Compiled steps by what they compute. Runs that train alike, one after the other, share them.

    It keeps all that was ever compiled through it.
    """

    def __init__(self) -> None:
        self._steps: dict[Hashable, CompiledStep] = {}

    def step(self, key: Hashable, make: Callable[[], CompiledStep]) -> CompiledStep:
        """The step of a key, made when it is first asked for."""
        if key not in self._steps:
            self._steps[key] = make()
        return self._steps[key]


class Steps:
    """The steps of one training run.

    Args:
        settings: of the optimiser.
        compute_stress: also predict stresses in evaluations.
        on_compilation: called after each compilation.
        devices: that share the work; batches are given as `Devices.put` takes them.
        watched: what to look at more closely.
        programs: where compiled steps are kept and looked for; by default the run has its own.
    """

    def __init__(
        self,
        settings: OptimiserSettings,
        *,
        compute_stress: bool,
        on_compilation: OnCompilation,
        devices: Devices | None = None,
        watched: WatchSettings = NOTHING_WATCHED,
        programs: Programs | None = None,
    ):
        self.devices = Devices() if devices is None else devices
        self._functions = StepFunctions(settings, compute_stress, watched, self.devices)
        self._on_compilation = on_compilation
        self._programs = Programs() if programs is None else programs

    def outputs(self, mode: Mode, parameters: Parameters, graph: Graph) -> tuple[str, ...]:
        """Names of everything that the model can predict in a mode."""
        function = functools.partial(self._functions.all_outputs, mode)
        return tuple(jax.eval_shape(function, parameters, graph))

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
        function = functools.partial(self._functions.training_step, mode=mode, options=options)
        return self._run(
            _named("training step", mode),
            function,
            (state, self.devices.put(graph), learning_rates, weights),
            key=(mode, _hashable(options)),
            places=(SAME, PARTS, SAME, SAME),
            results=SAME,
            donate=(0,),
        )

    def predict(self, mode: Mode, parameters: Parameters, graph: Graph) -> dict[str, Array]:
        """The model outputs that losses, metrics and reports read, in parts like the batch."""
        return self._run(
            _named("prediction", mode),
            functools.partial(self._functions.outputs, mode),
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
    ) -> tuple[Float[Array, ""], Scalars, dict[str, Array], dict[str, Array]]:
        """The loss of a prediction and its weighted terms; how the self-consistent solutions ended,
        and their steps."""
        read = named_in(LOSS_INPUTS | SCF_INPUTS, prediction)
        return self._run(
            "loss",
            functools.partial(self._functions.loss_of_prediction, options=options),
            (read, self.devices.put(graph), weights),
            key=_hashable(options),
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
        """Share of each structure in the loss of a batch, times the number of structures."""
        return self._run(
            "loss by structure",
            functools.partial(self._functions.losses_of_structures, options=options),
            (named_in(LOSS_INPUTS, prediction), self.devices.put(graph), weights),
            key=_hashable(options),
            places=(PARTS, PARTS, SAME),
            results=PARTS,
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
        """Run a function as the compiled step that computes it."""

        def make() -> CompiledStep:
            return CompiledStep(
                name,
                function,
                devices=self.devices,
                arguments=places,
                results=results,
                donate=donate,
            )

        step = self._programs.step((self._functions, name, key), make)
        return step(*arguments, on_compilation=self._on_compilation)


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


def _named(step: str, mode: Mode) -> str:
    """Name of a step in a mode."""
    return f"{step} ({mode.name})" if mode.name else step


def _hashable(options: LossOptions) -> Hashable:
    return frozenset(options.items())
