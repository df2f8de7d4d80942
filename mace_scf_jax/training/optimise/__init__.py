"""How parameters are updated: optimisers with parameter groups, learning rates."""

from typing import TYPE_CHECKING

from mace_scf_jax.late import imported_late

if TYPE_CHECKING:
    from mace_scf_jax.training.optimise.learning_rates import (
        LearningRateState,
        named_rates,
        next_epoch,
        start_of_stage,
    )
    from mace_scf_jax.training.optimise.optimiser import (
        OptimiserSettings,
        at_start_of_stage,
        build_optimiser,
        evaluation_parameters,
        moving_average,
    )
    from mace_scf_jax.training.optimise.options import OptimiserOptions, SchedulerOptions
    from mace_scf_jax.training.optimise.parameter_groups import (
        ParameterGroupError,
        Parameters,
        group_sizes,
        parameter_groups,
    )

__all__ = [
    "LearningRateState",
    "OptimiserOptions",
    "OptimiserSettings",
    "ParameterGroupError",
    "Parameters",
    "SchedulerOptions",
    "at_start_of_stage",
    "build_optimiser",
    "evaluation_parameters",
    "group_sizes",
    "moving_average",
    "named_rates",
    "next_epoch",
    "parameter_groups",
    "start_of_stage",
]

__getattr__, __dir__ = imported_late(__name__, __file__)
