"""Options of the training loop: sampling, validation, a closer look."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from mace_scf_jax.options import OptionGroup
from mace_scf_jax.options.values import NoneInText, Number, PositiveWholeNumber

HISTOGRAMS = {
    "off": (),
    "gradients": ("gradients",),
    "parameters": ("parameters",),
    "all": ("gradients", "parameters"),
}
"""What histograms are made of, by the value of the option."""


class SamplingOptions(OptionGroup):
    """Sampling"""

    sampling_policy: Literal["uniform", "energy_weighted", "error_weighted"] = Field(
        default="uniform",
        description="how often structures are drawn in an epoch: each once; those of low energy "
        "more often; those of large error at the last evaluation more often",
    )
    force_fraction: Annotated[Number, Field(gt=0.0, le=1.0)] = Field(
        default=1.0, description="share of the training structures whose forces are trained on"
    )
    force_resample_epochs: Annotated[PositiveWholeNumber | None, NoneInText] = Field(
        default=None, description="epochs after which other structures are chosen (default: never)"
    )
    force_min_structures: PositiveWholeNumber = Field(
        default=1, description="smallest number of structures with forces in an epoch"
    )
    force_scale_unbiased: bool = Field(
        default=True,
        description="multiply the weight of the forces that are used so that the expected loss is "
        "that of all forces",
    )

    def problems(self) -> list[str]:
        """Name the options that would change nothing."""
        if self.force_fraction < 1.0:
            return []
        return [
            f"option {name!r}: needs a 'force_fraction' below 1"
            for name in ("force_resample_epochs", "force_min_structures", "force_scale_unbiased")
            if getattr(self, name) != type(self).model_fields[name].default
        ]


class ValidationOptions(OptionGroup):
    """Validation and checkpoints"""

    decide_weights = False

    eval_interval: PositiveWholeNumber = Field(
        default=1,
        description="validate at epochs divisible by this number, and after the last of a stage",
    )
    patience: PositiveWholeNumber = Field(
        default=2048, description="evaluations without improvement that end a stage"
    )
    log_on_test_sets: bool = Field(
        default=False, description="evaluate the test sets too whenever validation is"
    )
    keep_checkpoints: bool = Field(
        default=False, description="keep the checkpoint of every improvement, not only the last"
    )
    save_all_checkpoints: bool = Field(
        default=False, description="keep a checkpoint of every evaluation, improved or not"
    )


def _off_in_yaml(value: Any) -> Any:
    """YAML reads the word off as false."""
    return "off" if value is False else value


class WatchOptions(OptionGroup):
    """A closer look"""

    decide_weights = False

    wandb_watch: Annotated[
        Literal["off", "gradients", "parameters", "all"], BeforeValidator(_off_in_yaml)
    ] = Field(
        default="off",
        description="histograms in Weights & Biases, one for each parameter group (with wandb)",
    )
    wandb_watch_log_freq: PositiveWholeNumber = Field(
        default=50, description="steps from one histogram or summary of gradients to the next"
    )
    debug_log_grad_summary: bool = Field(
        default=False,
        description="add norms of gradient and parameters, altogether and by parameter group, to "
        "the records of the steps",
    )
