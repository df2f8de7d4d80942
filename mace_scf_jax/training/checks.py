"""What is refused or warned of before a run starts."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np

from mace_scf_jax.data.datasets import DataSets
from mace_scf_jax.options import ConfigurationError
from mace_scf_jax.training.config.options import TrainOptions
from mace_scf_jax.training.loop.modes import ModelMode
from mace_scf_jax.training.loop.schedule import Stage
from mace_scf_jax.training.losses import LossError, check_terms, check_validation
from mace_scf_jax.training.optimise.levenberg_marquardt import MOST_PARAMETERS
from mace_scf_jax.training.optimise.low_rank import trained_sizes
from mace_scf_jax.training.optimise.parameter_groups import Parameters

logger = logging.getLogger(__name__)

SMALLEST_SURPLUS = 1e-3
"""Of formal charges over the total charge, in e; less is rounding of the data."""


def check_batch(options: TrainOptions, structures: int) -> None:
    """Refuse steps of lbfgs on a part of the training set."""
    if options.optimizer == "lbfgs" and options.batch_size < structures:
        raise ConfigurationError(
            "optimizer 'lbfgs': needs all training structures in every step; expected a batch_size "
            f"of at least {structures}, found {options.batch_size}"
        )


def check_number_of_parameters(options: TrainOptions, number: int) -> None:
    """Refuse a matrix of second derivatives that is too large."""
    if options.sums_over_batches and number > MOST_PARAMETERS:
        raise ConfigurationError(
            f"optimizer {options.optimizer!r}: expected a model of at most {MOST_PARAMETERS} "
            f"parameters, found {number}; adam and lbfgs are for larger ones"
        )


def check_groups(options: TrainOptions, parameters: Parameters) -> None:
    """Refuse stages that freeze what is not trained, or all that is; warn of rates without effect.

    Args:
        parameters: as they are trained.
    """
    known = trained_sizes(parameters)
    which = "has no parameters" if options.lora is None else "trains no parameters"
    for index, stage in enumerate(options.train_schedule):
        stage_in_words = f"train_schedule, stage {index} ({stage.name})"
        where = f"{stage_in_words}: 'freeze'"
        absent = [group for group in stage.freeze if group not in known]
        if absent:
            raise ConfigurationError(
                f"{where}: found {', '.join(absent)}, of which the model {which}; there are "
                f"{', '.join(known)}"
            )
        if set(known) <= set(stage.freeze):
            raise ConfigurationError(f"{where}: found all groups, nothing is left to train")
        for group in stage.group_lrs:
            if group not in known or group in stage.freeze:
                why = "is frozen" if group in stage.freeze else f"{which} of this group"
                logger.warning("%s: '%s_lr' has no effect: it %s", stage_in_words, group, why)


def check_losses(
    options: TrainOptions, modes: Callable[[Stage], ModelMode], data: DataSets
) -> None:
    """Refuse stages whose loss, or whose way to train, needs what the model or the data lack."""
    training = data.train.catalogue.label_weights()
    for index, stage in enumerate(options.train_schedule):
        mode = modes(stage)
        where = f"train_schedule, stage {index} ({stage.name})"
        check_terms(stage.loss, mode.outputs(stress=options.compute_stress), training, where=where)
        check_validation(stage.loss, data.valid.catalogue.label_weights(), where=where)
        if mode.needs_multipoles:
            _check_reference(data.train.catalogue.present["atomic_multipoles"], where)


def _check_reference(has_multipoles: np.ndarray, where: str) -> None:
    """Refuse steps from reference multipoles that no structure has; tell how many lack them."""
    if not has_multipoles.any():
        raise LossError(
            f"{where}: the mode direct takes one step from the reference multipoles, and no "
            "training configuration has atomic_multipoles; the mode implicit needs none"
        )
    if not has_multipoles.all():
        logger.warning(
            "%s: the mode direct takes a step from zero in %d of %d training configurations, which "
            "have no atomic_multipoles",
            *(where, int((~has_multipoles).sum()), len(has_multipoles)),
        )


def warn_of_surplus(surplus: np.ndarray) -> None:
    """Formal charges decide the total charge, which no training can change."""
    wrong = np.abs(surplus) > SMALLEST_SURPLUS
    if wrong.any():
        logger.warning(
            "Formal charges do not add up to total_charge in %d of %d training configurations "
            "(they differ by up to %.3g e); total charges will be those of the formal charges",
            wrong.sum(),
            len(surplus),
            np.abs(surplus).max(),
        )
