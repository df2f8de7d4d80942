"""Preprocessing with the options of training, so that both prepare structures alike."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from mace_scf_jax.data.preprocessing import PreprocessSettings
from mace_scf_jax.models.electrostatics import electrostatics_settings
from mace_scf_jax.options.values import FilePath
from mace_scf_jax.training.config.options import TrainOptions
from mace_scf_jax.training.config.schedule import Stage
from mace_scf_jax.training.preparation import data_settings

PERIODIC = np.ones((1, 3), dtype=bool)
"""Of one structure that needs all that any may need."""


class PreprocessOptions(TrainOptions):
    """The options of training, of which only those on data and model matter.

    So the file of a run can be used as it is, or ``heads`` and ``train_file`` alone be given: what
    training requires and preprocessing does not has a default here that nothing depends on.
    """

    train_file: FilePath = Field(description="training structures (.xyz)")
    name: str = "preprocess"
    error_table: str = "PerAtomRMSE"
    train_schedule: tuple[Stage, ...] = ()
    hidden_irreps: str | None = "1x0e"


def preprocess_settings(
    options: PreprocessOptions, *, workers: int, shard_megabytes: float
) -> PreprocessSettings:
    """What to compute for runs with the given options.

    Reciprocal vectors are stored if the model family has charges; with the boundary condition
    ``auto`` they are those of periodic structures, which a run on molecules alone does not read.

    Args:
        options: of the runs.
        workers: number of processes.
        shard_megabytes: size of the text that one file is made from.

    Raises:
        DataError: for numbers that are not positive.
    """
    electrostatics = electrostatics_settings(options.family, options, pbc=PERIODIC)
    return PreprocessSettings(
        data=data_settings(options),
        cutoff=options.r_max,
        kspace_cutoff=None if electrostatics is None else electrostatics.indices_cutoff,
        workers=workers,
        shard_megabytes=shard_megabytes,
    )
