"""All pictures of a training run, with what each shows."""

from __future__ import annotations

import dataclasses
import logging

from matplotlib.figure import Figure

from mace_scf_jax.data.errors import DataError
from mace_scf_jax.models.model_file import ModelFileError
from mace_scf_jax.predict.model import Model
from mace_scf_jax.reports.learning_curves import learning_curves
from mace_scf_jax.reports.loss_balance import loss_balance
from mace_scf_jax.reports.parity import compare_sets, errors_by_type, parity
from mace_scf_jax.reports.scf_convergence import has_solutions, scf_convergence
from mace_scf_jax.reports.training_run import RunError, TrainingRun

logger = logging.getLogger(__name__)

SET_NAMES = {"valid": "validation set", "test": "test set"}


@dataclasses.dataclass(frozen=True, eq=False)
class Picture:
    """One picture."""

    name: str
    """For files."""
    title: str
    caption: str
    figure: Figure


@dataclasses.dataclass(frozen=True, eq=False)
class Pictures:
    """The pictures of a run, and why others are missing."""

    drawn: tuple[Picture, ...]
    left_out: tuple[str, ...]


def draw(
    run: TrainingRun,
    *,
    min_epoch: int | None = None,
    max_epoch: int | None = None,
    stage: str | None = None,
    with_parity: bool = True,
) -> Pictures:
    """Draw everything that a run has.

    Args:
        min_epoch: first epoch of learning curves, loss balance and convergence.
        max_epoch: last epoch of these, included.
        stage: whose model the parity plots are of; None for the last one.
        with_parity: whether to predict the validation and test sets for parity plots.

    Raises:
        RunError: there is nothing to draw in this range of epochs.
    """
    epochs = {"min_epoch": min_epoch, "max_epoch": max_epoch}
    drawn = [
        Picture(
            "learning_curves",
            "Learning curves",
            "Loss and root mean square errors of the validation set, and of monitored test sets, "
            "against the epoch; of the training set, the mean loss over the steps of each epoch. "
            "Stages are shaded in turn; dots mark the epoch with the lowest validation loss of a "
            "stage, whose parameters are kept. The losses of two stages have other weights and "
            "cannot be compared.",
            learning_curves(run, **epochs),
        ),
        Picture(
            "loss_balance",
            "Loss balance",
            "Weighted terms of the loss of single training steps (points) with running means "
            "(lines), and below the share of each mean in their sum. A mean is over a fortieth of "
            "the steps of its stage, five at least. Terms that vanish up to round-off lie below "
            "the axis.",
            loss_balance(run, **epochs),
        ),
    ]
    left_out = []
    if has_solutions(run):
        drawn.append(
            Picture(
                "scf_convergence",
                "Self-consistency",
                "Structures whose multipoles did not become self-consistent, in percent of those "
                "that were solved for, and evaluations of a self-consistent step per structure.",
                scf_convergence(run, **epochs),
            )
        )
    else:
        left_out.append(f"SCF convergence: nothing is solved self-consistently ({run.family})")
    if with_parity:
        try:
            drawn += _parity(run, run.model(stage))
        except (RunError, DataError, ModelFileError) as error:
            left_out.append(f"parity plots: {error}")
    return Pictures(tuple(drawn), tuple(left_out))


def _parity(run: TrainingRun, model: Model) -> list[Picture]:
    """Parity plots and errors by config type of each set."""
    stage, epoch = model.record.get("stage", ""), model.record.get("epoch", "")
    whose = f"Model of stage {stage}, epoch {epoch}."
    pictures = []
    for name, compared in compare_sets(run, model).items():
        title, comparisons = SET_NAMES[name], compared.comparisons
        which = title
        if compared.used < compared.total:
            which = f"{title} ({compared.used:,} of {compared.total:,} structures)"
        pictures.append(
            Picture(
                f"parity_{name}",
                f"Parity, {title}",
                f"Predictions against labels of the {which}. {whose} Energies are per atom and "
                "without those of isolated atoms (E0s); total dipoles are of whole structures.",
                parity(comparisons),
            )
        )
        pictures.append(
            Picture(
                f"errors_by_type_{name}",
                f"Errors by config type, {title}",
                f"Root mean square errors on the {which} for each config type; dashed, over all. "
                f"{whose}",
                errors_by_type(comparisons),
            )
        )
    return pictures
