"""Options of training that are valid, for tests that change some."""

from __future__ import annotations

import pytest

from mace_scf_jax.options.error import ConfigurationError
from mace_scf_jax.training.config.options import TrainOptions

STAGE = {"name": "a", "start": 0, "end": 1, "loss": {"forces": 1.0}}
VALID = {
    "name": "water",
    "train_file": "train.xyz",
    "error_table": "PerAtomRMSE",
    "hidden_irreps": "4x0e + 4x1o",
    "heads": {"DFT": {"info_keys": {"total_charge": "total_charge"}, "arrays_keys": {}}},
    "train_schedule": {0: STAGE},
}


def options(**changes) -> TrainOptions:
    """Valid options with changes; an option given as ... is left out."""
    return TrainOptions(**{k: v for k, v in (VALID | changes).items() if v is not ...})


def problems(**changes) -> tuple[str, ...]:
    """What is wrong with changed options."""
    with pytest.raises(ConfigurationError) as caught:
        options(**changes)
    return caught.value.problems
