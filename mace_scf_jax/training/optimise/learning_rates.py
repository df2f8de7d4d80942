"""Learning-rate schedulers, stepped on the host once per epoch.

They act from the second epoch of a stage on, and are reset together with the learning rates when a
stage begins: the losses of two stages cannot be compared. Their state is plain numbers, so that it
can be part of a checkpoint.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from mace_scf_jax.training.optimise.options import SchedulerOptions
from mace_scf_jax.training.optimise.parameter_groups import parameter_groups

PLATEAU_THRESHOLD = 1e-4
"""A loss counts as lower if it is below (1 - threshold) times the best one."""
SMALLEST_CHANGE = 1e-8
"""Reductions of a rate by less than this are not made."""


@runtime_checkable
class StageRates(Protocol):
    """What the learning rates need to know of a stage."""

    lr: float
    group_lrs: Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class LearningRateState:
    """Current learning rates and what the scheduler remembers."""

    rates: Mapping[str, float]
    """Rate of each parameter group."""
    best_loss: float = math.inf
    epochs_without_improvement: int = 0


def start_of_stage(stage: StageRates) -> LearningRateState:
    """Rates at the start of a stage: ``lr`` for every group, unless the stage names another.

    Raises:
        ValueError: the stage names a group that does not exist.
    """
    known = parameter_groups()
    unknown = sorted(set(stage.group_lrs) - set(known))
    if unknown:
        raise ValueError(
            f"learning rate of group {unknown[0]!r}: expected one of {', '.join(known)}"
        )
    return LearningRateState(
        {group: float(stage.group_lrs.get(group, stage.lr)) for group in known}
    )


def named_rates(stage: StageRates, state: LearningRateState) -> dict[str, float]:
    """The current rates by the names of the schedule: ``lr``, and ``<group>_lr`` if it has its own.

    Args:
        state: its learning rates.
    """
    common = [rate for group, rate in state.rates.items() if group not in stage.group_lrs]
    own = {f"{group}_lr": state.rates[group] for group in stage.group_lrs}
    return ({"lr": common[0]} if common else {}) | own


def next_epoch(
    options: SchedulerOptions | None, state: LearningRateState, validation_loss: float
) -> LearningRateState:
    """Compute the learning rates after one more epoch of a stage.

    Args:
        options: the scheduler; None for constant rates.
        state: rates of the epoch that is over.
        validation_loss: last validation loss; infinite before the first of the stage.
    """
    if options is None:
        return state
    if options.scheduler == "ExponentialLR":
        return dataclasses.replace(state, rates=_scaled(state.rates, options.lr_scheduler_gamma))
    if validation_loss < (1.0 - PLATEAU_THRESHOLD) * state.best_loss:
        return dataclasses.replace(state, best_loss=validation_loss, epochs_without_improvement=0)
    waited = state.epochs_without_improvement + 1
    if waited <= options.scheduler_patience:
        return dataclasses.replace(state, epochs_without_improvement=waited)
    wanted = {
        group: max(rate, options.scheduler_min_lr)
        for group, rate in _scaled(state.rates, options.lr_factor).items()
    }
    reduced = {
        group: new if state.rates[group] - new > SMALLEST_CHANGE else state.rates[group]
        for group, new in wanted.items()
    }
    return dataclasses.replace(state, rates=reduced, epochs_without_improvement=0)


def _scaled(rates: Mapping[str, float], factor: float) -> dict[str, float]:
    return {group: factor * rate for group, rate in rates.items()}
