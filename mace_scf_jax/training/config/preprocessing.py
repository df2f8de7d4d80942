"""Options of `mace-scf-jax preprocess`: those of training, none of which is required."""

from __future__ import annotations

from pydantic import Field

from mace_scf_jax.options.values import FilePath
from mace_scf_jax.training.config.options import TrainOptions
from mace_scf_jax.training.loop.schedule import Stage


class PreprocessOptions(TrainOptions):
    """The options of training, of which only those on data and model matter.

    So the file of a run can be used as it is, or ``heads`` and ``train_file`` alone be given: what
    training requires and preprocessing does not has a default here that nothing depends on.
    """

    train_file: FilePath = Field(description="training structures (.xyz, .xsf)")
    name: str = "preprocess"
    train_schedule: tuple[Stage, ...] = ()
    hidden_irreps: str | None = "1x0e"
