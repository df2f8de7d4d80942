"""The options of a training run together, and the files that give them."""

from mace_scf_jax.training.config.options import TOPICS, TrainOptions, options_from
from mace_scf_jax.training.config.reading import read_config_file

__all__ = ["TOPICS", "TrainOptions", "options_from", "read_config_file"]
