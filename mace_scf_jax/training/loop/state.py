"""Everything a training run carries from one step to the next.

Two halves: :class:`TrainingState` are arrays on the device, changed by the compiled step;
:class:`Progress` are plain numbers on the host, changed by the loop between steps. Together they
determine the rest of the run, so that both are what a checkpoint holds.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mace_scf_jax.layers.drawn import RUN_ONCE
from mace_scf_jax.training.optimise.learning_rates import LearningRateState
from mace_scf_jax.training.optimise.optimiser import (
    OptimiserSettings,
    at_start_of_stage,
    evaluation_parameters,
    first_state,
)
from mace_scf_jax.training.optimise.parameter_groups import Parameters


class DivergedTrainingError(ValueError):
    """A loss or gradient is not a finite number."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainingState:
    """The arrays of a training run."""

    parameters: Parameters
    optimiser: Any
    """State of the optimiser (moments)."""
    average: Parameters | None
    """Exponential moving average of the parameters, if there is one."""
    steps: Int[Array, ""]
    """Number of optimiser steps done, over all stages."""
    structure_losses: Float[Array, "structures"] | None = None
    """Share of each training structure in the loss at the last evaluation, if sampling needs it;
    zero before the first."""


@dataclasses.dataclass(frozen=True)
class Progress:
    """Where a training run stands.

    Attributes:
        stage: index of the current stage.
        epoch: current epoch; one past the last when the stage is over.
        batch: number of batches of the epoch that are done.
        stage_steps: optimiser steps done in the stage.
        learning_rates: rates and memory of the scheduler.
        validation_loss: last validation loss of the stage; infinite before the first.
        best_loss: lowest validation loss of the stage.
        evaluations_without_improvement: evaluations since then.
        stopped_early: the stage ended because the patience was used up.
        kept: for each stage by name, the file of its best parameters.
        superseded: files of earlier best parameters that are no longer needed.
    """

    learning_rates: LearningRateState
    stage: int = 0
    epoch: int = 0
    batch: int = 0
    stage_steps: int = 0
    validation_loss: float = math.inf
    best_loss: float = math.inf
    evaluations_without_improvement: int = 0
    stopped_early: bool = False
    kept: Mapping[str, str] = dataclasses.field(default_factory=dict)
    superseded: tuple[str, ...] = ()

    def replace(self, **changes) -> Progress:
        """A copy with some fields replaced."""
        return dataclasses.replace(self, **changes)

    def after_steps(self, count: int) -> Progress:
        """Progress with so many more batches done."""
        return self.replace(batch=self.batch + count, stage_steps=self.stage_steps + count)

    def stage_is_over(self, last_epoch: int) -> bool:
        """Whether the current stage has nothing left to train.

        Args:
            last_epoch: of the stage.
        """
        return self.stopped_early or self.epoch > last_epoch

    def to_json(self) -> dict[str, Any]:
        """As plain values for a checkpoint."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Progress:
        """From the values of :meth:`to_json`."""
        values = dict(values)
        rates = LearningRateState(**values.pop("learning_rates"))
        superseded = tuple(values.pop("superseded"))
        return cls(learning_rates=rates, superseded=superseded, **values)


def initial_state(
    parameters: Parameters, settings: OptimiserSettings, *, sampled_structures: int | None = None
) -> TrainingState:
    """The state before the first step.

    Args:
        parameters: initial parameters; copied, because training steps overwrite their state.
        sampled_structures: number of training structures, if they are sampled by their errors.

    Raises:
        ParameterGroupError: a parameter belongs to no optimiser group.
    """

    def made(parameters: Parameters) -> TrainingState:
        return TrainingState(
            parameters=_copy(parameters),
            optimiser=_copy(first_state(settings, parameters)),
            average=_copy(parameters) if settings.ema else None,
            steps=jnp.zeros((), jnp.int32),
            structure_losses=None if sampled_structures is None else jnp.zeros(sampled_structures),
        )

    # one function, because each shape of an array would be another
    return jax.jit(made).lower(parameters).compile(RUN_ONCE)(parameters)


def for_next_stage(
    state: TrainingState, settings: OptimiserSettings, *, freezes_others: bool = False
) -> TrainingState:
    """The state when a stage begins, whose loss is another one.

    If other parameters are frozen than before, training begins anew at the parameters that were
    evaluated: what stays is then what is kept, and moments of what did not change, which count its
    steps nevertheless, would make the first ones too long.

    Args:
        state: at the end of the stage before.
        settings: of the optimiser.
        freezes_others: whether the stage freezes other groups than the one before.
    """
    if freezes_others:
        averaged = evaluation_parameters(settings, state.parameters, state.optimiser, state.average)
        begun = initial_state(averaged, settings)
        return dataclasses.replace(
            begun, steps=state.steps, structure_losses=state.structure_losses
        )
    optimiser = at_start_of_stage(settings, state.parameters, state.optimiser)
    if optimiser is state.optimiser:
        return state
    return dataclasses.replace(state, optimiser=_copy(optimiser))


def _copy(tree: Any) -> Any:
    """The same arrays in buffers of their own."""
    return jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), tree)
