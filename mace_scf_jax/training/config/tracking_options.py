"""The training options of experiment tracking; see `option_groups` for the others."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from mace_scf_jax.options.values import (
    FilePath,
    Literally,
    NoneInText,
    PositiveWholeNumber,
)
from mace_scf_jax.training.config.option_groups import OptionGroup


def _off_in_yaml(value: Any) -> Any:
    """YAML reads the word off as false."""
    return "off" if value is False else value


class TrackingOptions(OptionGroup):
    """Experiment tracking"""

    wandb: bool = Field(
        default=False, description="log to Weights & Biases (needs the package wandb)"
    )
    wandb_project: Annotated[str | None, NoneInText] = Field(
        default=None, description="project there"
    )
    wandb_entity: Annotated[str | None, NoneInText] = Field(
        default=None, description="user or team there"
    )
    wandb_name: Annotated[str | None, NoneInText] = Field(
        default=None, description="name of the run there (default: <name>_run-<seed>)"
    )
    wandb_dir: Annotated[FilePath | None, NoneInText] = Field(
        default=None, description="folder of its local files (default: <work_dir>)"
    )
    wandb_log_hypers: Annotated[tuple[str, ...] | None, Literally, NoneInText] = Field(
        default=None, description="options shown there, as a list (default: all)"
    )
    wandb_watch: Annotated[
        Literal["off", "gradients", "parameters", "all"], BeforeValidator(_off_in_yaml)
    ] = Field(
        default="off", description="histograms there, one for each parameter group (with wandb)"
    )
    wandb_watch_log_freq: PositiveWholeNumber = Field(
        default=50,
        description="steps from one histogram or summary of gradients to the next",
    )
    debug_log_grad_summary: bool = Field(
        default=False,
        description="add norms of gradient and parameters, altogether and by parameter group, to "
        "the records of the steps",
    )
    tensorboard: bool = Field(
        default=False,
        description="log to TensorBoard files in <work_dir>/tensorboard (needs tensorboardX)",
    )
