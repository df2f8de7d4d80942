"""A start model of four elements, and structures of two of them that it has labelled."""

from __future__ import annotations

import ase.io
import jax
import numpy as np
from ase.build import molecule

from mace_scf_jax.backbones import MACESettings
from mace_scf_jax.layers.drawn import drawn_parameters
from mace_scf_jax.models import ModelSettings, ScaleShiftSettings, build
from mace_scf_jax.predict.model import Model
from mace_scf_jax.training.config.options import TrainOptions
from mace_scf_jax.training.loop.modes import in_double_precision
from mace_scf_jax.training.preparation import prepare_run

ENERGIES = {1: -13.0, 6: -1030.0, 8: -2041.0, 11: -4400.0}
SCALE, SHIFT = 0.8, 0.3
NETWORK = {
    "hidden_irreps": "4x0e + 4x1o",
    "r_max": 4.0,
    "num_interactions": 2,
    "max_ell": 1,
    "correlation": 2,
    "num_radial_basis": 3,
    "radial_MLP": (4,),
    "MLP_irreps": "4x0e",
}
OFFSETS = {"H": 0.5, "O": -2.0}
"""Differences of the energies of isolated atoms between two levels of theory, eV."""
STAGE = {"name": "only", "start": 0, "end": 0, "lr": 0.001, "loss": {"energy_per_atom": 1.0}}
KINDS = (
    "RealAgnosticResidualInteractionBlock",
    "RealAgnosticDensityResidualInteractionBlock",
    "RealAgnosticResidualNonLinearInteractionBlock",
)


def structures(count=6):
    """Distorted molecules of hydrogen and oxygen."""
    found = []
    for seed in range(count):
        atoms = molecule(("H2O", "H2O2", "O3")[seed % 3])
        atoms.rattle(0.1, seed=seed)
        found.append(atoms)
    return found


def drawn(settings, seed=0):
    unprepared = Model(settings, {"weights": np.zeros(1)})
    (batch,) = unprepared.batches(unprepared.prepare_atoms(structures(1)))
    return drawn_parameters(build(settings), jax.random.key(seed), in_double_precision(batch.graph))


def start_settings(kind=KINDS[0]):
    backbone = MACESettings(
        tuple(ENERGIES),
        interaction_first=kind,
        interaction=kind,
        avg_num_neighbors=3.0,
        pair_repulsion=True,
        scalar_last_layer=True,
        **NETWORK,
    )
    own = ScaleShiftSettings(SCALE, SHIFT)
    return ModelSettings("ScaleShiftMACE", backbone, tuple(ENERGIES.values()), own=own)


def write_start(folder):
    """Write a start model, and structures labelled by it but for offsets of the elements."""
    settings = start_settings()
    model = Model(settings, drawn(settings), {})
    model.save(folder / "start.model.safetensors")
    atoms = structures()
    for entry, predicted in zip(atoms, model.predict(atoms), strict=True):
        offset = sum(OFFSETS[symbol] for symbol in entry.get_chemical_symbols())
        entry.info["REF_energy"] = float(predicted["energy"]) + offset
        entry.arrays["REF_forces"] = np.asarray(predicted["forces"])
    ase.io.write(folder / "train.xyz", atoms, format="extxyz")


def options(folder, **changes):
    values = {
        "name": "fine",
        "start_from": str(folder / "start.model.safetensors"),
        "train_file": str(folder / "train.xyz"),
        "valid_fraction": 0.34,
        "energy_key": "REF_energy",
        "forces_key": "REF_forces",
        "batch_size": 2,
        "valid_batch_size": 2,
        "work_dir": str(folder),
        "train_schedule": {0: STAGE},
    }
    return {name: it for name, it in (values | changes).items() if it is not None}


def prepared(folder, **changes):
    return prepare_run(TrainOptions(**options(folder, **changes)))
