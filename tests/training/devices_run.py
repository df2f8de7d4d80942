"""Trainings on one device and on two; as a program, for tests that need several devices.

python devices_run.py compare FOLDER SETTING: trains on one device into FOLDER/one, and on two into
FOLDER/two; what "forces" does first in `two`, up to the end of an epoch, is done on one. Then
prints what options say that ask for too much.

python devices_run.py join FOLDER: trains "forces" in FOLDER, which holds the structures, as one of
several processes.
"""

import sys
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.io import write

from mace_scf_jax.training.config.options import TrainOptions
from mace_scf_jax.training.loop.steps import Programs
from mace_scf_jax.training.run import train

MODEL = {
    "name": "water",
    "error_table": "DensityEnergyRMSE",
    "E0s": {"H": -500.0, "O": -1000.0},
    "hidden_irreps": "2x0e + 2x1o",
    "num_interactions": 1,
    "max_ell": 1,
    "correlation": 1,
    "num_radial_basis": 3,
    "radial_MLP": [4],
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
}
SETTINGS = {
    # Parts of 2 and 1 structures, which each device solves for by itself; of the last batch of the
    # validation set, a part is empty.
    "self_consistent": {
        "model": "FixedPoint",
        "MLP_irreps": "2x0e",
        "field_feature_widths": [1.5],
        "field_feature_norms": [3.0, 1.0],
        "field_readout_config": {"type": "LinearChargesEnergyReadout"},
        "skip_scf_convergence_summary": True,
        "batch_size": 3,
        "valid_fraction": 0.4,
        "valid_batch_size": 2,
        "optimizer": "schedulefree",
        "loss": {"energy_per_atom": 1.0, "atomic_multipoles": 10.0, "forces": 1.0},
        "fixed_point_training_options": {
            "mode": "implicit",
            "scf": {
                "num_scf_steps": 30,
                "mixing_parameter": 0.3,
                "scf_tolerance": 1e-10,
                "constant_charge": True,
            },
        },
    },
    # What depends on the gradient or the batch as a whole, on single structures and their order.
    "forces": {
        "model": "ScaleShiftMACE",
        "batch_size": 3,
        "valid_fraction": 0.25,
        "valid_batch_size": 3,
        "ema": True,
        "ema_decay": 0.9,
        "clip_grad": 0.1,
        "sampling_policy": "error_weighted",
        "force_fraction": 0.5,
        "force_resample_epochs": 1,
        "loss": {"energy_per_atom": 1.0, "forces": {"weight": 10.0, "form": "rmse"}},
    },
}


def structure(index: int, *, molecules: int) -> Atoms:
    """Water molecules side by side, with random labels."""
    random = np.random.default_rng(index)
    atoms = Atoms()
    for number in range(molecules):
        molecule = np.array([[0, 0, 0.1], [0, 0.8, -0.5], [0, -0.8, -0.5]])
        molecule += np.array([0.0, 0.3, 2.5]) * number
        atoms += Atoms("OH2", positions=molecule + 0.05 * random.normal(size=(3, 3)))
    atoms.set_cell([30.0, 30.0, 30.0])
    atoms.info["REF_energy"] = -2000.0 * molecules + random.normal()
    atoms.info["total_charge"] = 0.0
    atoms.arrays["REF_forces"] = random.normal(size=(len(atoms), 3))
    atoms.arrays["REF_atomic_multipoles"] = random.normal(size=(len(atoms), 4))
    return atoms


def options(folder: Path, setting: str, **changes) -> TrainOptions:
    """Options of a run in a folder, with the structures written to it.

    Those of "forces" have one molecule or two, so that parts differ in their number of atoms.
    """
    folder.mkdir(parents=True, exist_ok=True)
    molecules = [1 + index % 2 if setting == "forces" else 1 for index in range(8)]
    structures = [structure(index, molecules=count) for index, count in enumerate(molecules)]
    if not (folder / "train.xyz").exists():
        write(folder / "train.xyz", structures, format="extxyz")
    values = {"end": 2} | MODEL | SETTINGS[setting] | changes
    of_the_stage = {"end", "loss", "fixed_point_training_options"} & values.keys()
    stage = {"name": "a", "start": 0} | {name: values.pop(name) for name in of_the_stage}
    files = {"work_dir": folder, "train_file": folder / "train.xyz"}
    return TrainOptions(**values | files | {"train_schedule": {0: stage}})


def compare(folder: Path, setting: str) -> None:
    of_one_device = Programs()
    train(options(folder / "one", setting), programs=of_one_device)
    if setting == "forces":
        train(options(folder / "two", setting, end=0), programs=of_one_device)
    train(options(folder / "two", setting, devices=2))
    for changes in ({"devices": 3}, {"devices": "all", "batch_size": 1}):
        try:
            train(options(folder / "refused", "forces", **changes))
        except ValueError as error:
            print(error)


def join(folder: Path) -> None:
    train(options(folder, "forces", distributed=True, log_all_ranks=True))


if __name__ == "__main__":
    _, what, folder, *further = sys.argv
    {"compare": compare, "join": join}[what](Path(folder), *further)
