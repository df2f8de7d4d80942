"""A few labelled water molecules, and options that train on them in seconds."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from ase import Atoms
from ase.io import write
from tiny_models import SMALL_TRAINING

from mace_scf_jax.training.loop import steps
from mace_scf_jax.training.loop.steps import Programs
from mace_scf_jax_cli.main import main
from mace_scf_jax_cli.train_arguments import TRAIN, parse_command


def water(index: int) -> Atoms:
    """A labelled water molecule, a little different for each index."""
    stretch = 1.0 + 0.01 * index
    atoms = Atoms(
        "OH2", positions=stretch * np.array([[0, 0, 0.1], [0, 0.8, -0.5], [0, -0.8, -0.5]])
    )
    atoms.set_cell([30.0, 30.0, 30.0])
    atoms.info.update(REF_energy=-2000.0 - index, total_charge=0.0, config_type="water")
    atoms.arrays["REF_forces"] = np.full((3, 3), 0.1 * index)
    atoms.arrays["REF_atomic_multipoles"] = np.tile([0.0, 0.0, 0.0, 0.1], (3, 1))
    return atoms


def config() -> dict:
    """Options of a small two-stage run."""
    return {
        "name": "water",
        "train_file": "train.xyz",
        "error_table": "PerAtomRMSE",
        "model": "LocalCharges",
        "E0s": "average",
        **SMALL_TRAINING,
        "r_max": 3.0,
        "kspace_cutoff_factor": 0.5,
        "optimizer": "adam",
        "heads": {
            "DFT": {
                "info_keys": {"energy": "REF_energy", "total_charge": "total_charge"},
                "arrays_keys": {
                    "forces": "REF_forces",
                    "atomic_multipoles": "REF_atomic_multipoles",
                },
            }
        },
        "train_schedule": {
            0: {"name": "a", "start": 0, "end": 1, "loss": {"forces": 1.0}},
            1: {"name": "b", "start": 2, "end": 3, "lr": 0.001, "loss": {"forces": 2.0}},
        },
    }


def make_input(folder: Path) -> None:
    """Files of a run: structures to train and to test on, options."""
    write(folder / "train.xyz", [water(index) for index in range(6)], format="extxyz")
    write(folder / "test.xyz", [water(8), water(9)], format="extxyz")
    options = config() | {"test_file": "test.xyz", "log_on_test_sets": True}
    (folder / "config.yaml").write_text(yaml.safe_dump(options, sort_keys=False))


PROGRAMS = Programs()
"""Compiled steps, which all runs of a process share."""


def train_in(folder: Path, *words: str) -> int:
    """Exit status of training with the options of a folder, in that folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(steps, "Programs", lambda: PROGRAMS)
        return main(["train", "config.yaml", *words])


def parse_options(words):
    """The options of training that a file and the command line give together."""
    return parse_command(words, TRAIN)[0]
