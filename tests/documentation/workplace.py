"""The files that pages of the documentation speak of: small, and quick to compute with.

The model has few numbers and a backbone that compiles in a second; what pages say about it holds
for any other.
"""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

import ase
import numpy as np
import yaml
from ase.io import read, write
from tiny_models import SMALL_TRAINING, periodic, slab, tiny_model

from mace_scf_jax_cli.main import main

CONFIGURATION = {
    "name": "water",
    "seed": 1,
    "train_file": "train.xyz",
    "valid_file": "valid.xyz",
    "E0s": {"H": -13.6, "O": -432.5},
    "model": "LocalCharges",
    "atomic_multipoles_max_l": 0,
    "backbone": "chebyshev",
    "descriptor": {"rad_order": 2, "rad_cutoff": 3.0, "ang_order": 1, "ang_cutoff": 2.5},
    "arch": [[3, "tanh"]],
    "batch_size": 2,
    "heads": {
        "DFT": {"info_keys": {"energy": "REF_energy"}, "arrays_keys": {"forces": "REF_forces"}}
    },
    "train_schedule": {0: {"name": "forces", "start": 0, "end": 0, "loss": {"forces": 1.0}}},
}
ROOT = Path(__file__).parents[2]
AENET = ROOT / "tests/data/reference/descriptor"
"""A potential of ænet."""


def fill(folder: Path) -> None:
    """Write structures, a configuration, a trained committee, and models."""
    labelled = [_labelled(seed) for seed in range(4)]
    for name in ("train.xyz", "valid.xyz", "structures.xyz"):
        write(folder / name, labelled, format="extxyz")
    write(folder / "start.xyz", periodic(), format="extxyz")
    write(folder / "slab.xyz", slab(), format="extxyz")
    write(folder / "molecule.xyz", _labelled(0), format="extxyz")
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIGURATION, sort_keys=False))
    with contextlib.chdir(folder):
        assert main(["train", "config.yaml", "--work_dir", "committee", "--committee", "2"]) == 0
        shutil.copytree("committee/member-1", "run")
        shutil.copy("run/water_forces.model.safetensors", "model.safetensors")
    _liquid(folder / "examples/liquid_water")
    for element in ("Ti", "O"):
        shutil.copy(AENET / f"tio2_fortran.{element}.nn.ascii", folder / f"{element}.nn.ascii")
    tiny_model("FixedPoint").save(folder / "fixed_point.model.safetensors")


def _liquid(folder: Path) -> None:
    """The folder of the tutorial, with few structures, a small model and two epochs."""
    shutil.copytree(ROOT / "examples/liquid_water", folder)
    write(folder / "train.xyz", read(folder / "train.xyz", ":4"), format="extxyz")
    config = yaml.safe_load((folder / "config.yaml").read_text()) | SMALL_TRAINING
    config |= {"valid_fraction": 0.5, "r_max": 3.0, "kspace_cutoff_factor": 0.5}
    for epoch, stage in config["train_schedule"].items():
        stage |= {"start": epoch, "end": epoch}
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))


def _labelled(seed: int) -> ase.Atoms:
    """A water molecule with energy and forces."""
    rng = np.random.default_rng(seed)
    positions = np.array([[0, 0, 0.1], [0, 0.8, -0.5], [0, -0.8, -0.5]])
    atoms = ase.Atoms("OH2", positions + rng.normal(scale=0.05, size=(3, 3)))
    atoms.info["REF_energy"] = -460.0 + rng.normal(scale=0.1)
    atoms.arrays["REF_forces"] = rng.normal(scale=0.3, size=(3, 3))
    return atoms
