"""The options of a training run together, and the files that give them."""

from typing import TYPE_CHECKING

from mace_scf_jax.late import imported_late

if TYPE_CHECKING:
    from mace_scf_jax.training.config.options import TrainOptions, options_from, train_options
    from mace_scf_jax.training.config.reading import read_config_file

__all__ = ["TrainOptions", "options_from", "read_config_file", "train_options"]

__getattr__, __dir__ = imported_late(__name__, __file__)
