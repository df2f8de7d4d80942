"""The model that options and a training set describe, and its first parameters."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from mace_scf_jax.backbones import BACKBONES
from mace_scf_jax.graph import Graph
from mace_scf_jax.layers.drawn import drawn_parameters
from mace_scf_jax.models import (
    ModelSettings,
    TrainingSet,
)
from mace_scf_jax.training.config.options import TrainOptions
from mace_scf_jax.training.loop.modes import in_double_precision
from mace_scf_jax.training.optimise.parameter_groups import Parameters


def model_settings(
    options: TrainOptions, training: TrainingSet, *, avg_num_neighbors: float
) -> ModelSettings:
    """Return the settings of the model that options and training set describe.

    Args:
        training: what is measured on.
        avg_num_neighbors: divisor of sums over neighbours.

    Raises:
        ConfigurationError: options and training set do not go together.
        ValueError: a size or choice does not exist.
    """
    family = options.family
    backbone = BACKBONES[options.backbone].settings.from_options(
        options,
        training,
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
    """Draw random parameters, in double precision so that both precisions start alike.

    Args:
        graph: any batch; only its shapes matter.
        options: of the run: seed, precision, and scale of the charge heads.
    """
    key = jax.random.key(options.seed)
    parameters = drawn_parameters(module, key, in_double_precision(graph))
    if options.family.initialise is not None:
        parameters = options.family.initialise(parameters, options)
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, options.default_dtype), parameters)


def number_of_parameters(parameters: Parameters) -> int:
    """Count the trainable numbers."""
    return sum(jnp.size(leaf) for leaf in jax.tree.leaves(parameters))
