"""Options of experiment tracking."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from mace_scf_jax.options import OptionGroup
from mace_scf_jax.options.values import FilePath, Literally, NoneInText


class TrackingOptions(OptionGroup):
    """Experiment tracking"""

    decide_weights = False

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
    tensorboard: bool = Field(
        default=False,
        description="log to TensorBoard files in <work_dir>/tensorboard (needs tensorboardX)",
    )
