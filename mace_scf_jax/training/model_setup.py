"""From training options and data to a model: settings, module, initial parameters, modes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array

from mace_scf_jax.backbones import BACKBONES
from mace_scf_jax.graph import Graph
from mace_scf_jax.models import ModelSettings, TrainingSet, evaluate
from mace_scf_jax.training.config.options import TrainOptions
from mace_scf_jax.training.config.schedule import Stage
from mace_scf_jax.training.loop.fixed_point_modes import FixedPointPredict
from mace_scf_jax.training.loop.steps import Mode
from mace_scf_jax.training.losses.registry import LOSSES
from mace_scf_jax.training.optimise.parameter_groups import Parameters

RUN_ONCE = {"xla_backend_optimization_level": 0}
"""Compiler options of a function that takes longer to compile than to run: half the time."""


def model_settings(
    options: TrainOptions, training: TrainingSet, *, avg_num_neighbors: float
) -> ModelSettings:
    """Return the settings of the model that options and training set describe.

    Args:
        options: of the run.
        training: what is measured on.
        avg_num_neighbors: divisor of sums over neighbours.

    Raises:
        ConfigurationError: options and training set do not go together.
        ValueError: a size or choice does not exist.
    """
    family = options.family
    backbone = BACKBONES[options.backbone].settings.from_options(
        options,
        elements=training.elements,
        avg_num_neighbors=avg_num_neighbors,
        scalar_last_layer=not family.is_charged,
    )
    return ModelSettings(
        family=options.model,
        backbone=backbone,
        atomic_energies=training.atomic_energies,
        electrostatics=training.electrostatics,
        own=family.settings.from_options(options, training),
    )


def initial_parameters(module: nn.Module, graph: Graph, *, options: TrainOptions) -> Parameters:
    """Random parameters, drawn in double precision so that both precisions start alike.

    Args:
        module: the model.
        graph: any batch; only its shapes matter.
        options: of the run: seed, precision, and scale of the charge heads.
    """
    key, graph = jax.random.key(options.seed), _in_double_precision(graph)
    compiled = jax.jit(module.init).lower(key, graph).compile(RUN_ONCE)
    parameters = compiled(key, graph)["params"]
    if options.family.initialise is not None:
        parameters = options.family.initialise(parameters, options)
    return jax.tree.map(lambda leaf: leaf.astype(options.default_dtype), parameters)


def _in_double_precision(graph: Graph) -> Graph:
    """The batch with all real numbers in double precision, in which modules make parameters."""
    return jax.tree.map(
        lambda leaf: leaf.astype("float64") if leaf.dtype.kind == "f" else leaf, graph
    )


@dataclasses.dataclass(frozen=True)
class ModelPredict:
    """A model with one way to be evaluated; a `Predict`."""

    module: nn.Module

    def __call__(
        self, params: Parameters, graph: Graph, *, forces: bool, stress: bool
    ) -> dict[str, Array]:
        """Model outputs by name."""
        return evaluate(self.module, params, graph, forces=forces, stress=stress)


def modes_of(module: nn.Module) -> Callable[[Stage], Mode]:
    """How each stage uses the model.

    Args:
        module: the model.

    Returns:
        The mode of a stage: one and the same for all stages, except for fixed-point models.
    """
    plain = Mode(ModelPredict(module))

    def mode(stage: Stage) -> Mode:
        if stage.fixed_point is None:
            return plain
        predict = FixedPointPredict(module, stage.fixed_point)
        read = {output for term in stage.loss for output in LOSSES[term].predictions}
        predict = FixedPointPredict(
            module, stage.fixed_point, predict.further_outputs().intersection(read)
        )
        return Mode(predict, stage.fixed_point.mode.value)

    return mode


def output_names(module: nn.Module, mode: Mode, graph: Graph, *, stress: bool) -> tuple[str, ...]:
    """Names of what a model predicts, without computing or compiling anything.

    Args:
        module: the model.
        mode: how it is used.
        graph: any batch.
        stress: whether stresses are predicted.
    """

    def outputs(key, graph):
        parameters = module.init(key, graph)["params"]
        return mode.predict(parameters, graph, forces=True, stress=stress)

    return tuple(jax.eval_shape(outputs, jax.random.key(0), _in_double_precision(graph)))


def number_of_parameters(parameters: Parameters) -> int:
    """Number of trainable numbers."""
    return sum(jnp.size(leaf) for leaf in jax.tree.leaves(parameters))
