"""Small labelled structures and files for the tests of the data layer."""

from __future__ import annotations

from pathlib import Path

import ase
import ase.io
import numpy as np

from mace_scf_jax.data.configuration import Configuration, from_atoms
from mace_scf_jax.data.datasets import DataSets, DataSettings, load_datasets
from mace_scf_jax.data.errors import Location
from mace_scf_jax.data.keys import KeySpecification
from mace_scf_jax.data.reading import read_located, to_configurations
from mace_scf_jax.data.structure import Structure, prepare

REPOSITORY = Path(__file__).parents[2]
WATER_IONS = REPOSITORY / "examples" / "water_ions" / "train.xyz"
REFERENCE = REPOSITORY / "tests" / "data" / "reference"

INFO_KEYS = {
    "energy": "REF_energy",
    "dipole": "REF_dipole",
    "total_charge": "total_charge",
    "fermi_level": "fermi_level",
    "external_field": "external_field",
}
ARRAYS_KEYS = {"forces": "REF_forces", "atomic_multipoles": "REF_atomic_multipoles"}


def heads(info: dict | None = None, arrays: dict | None = None) -> dict:
    """A `heads` block; by default that of the example data."""
    return {
        "DFT": {
            "info_keys": INFO_KEYS if info is None else info,
            "arrays_keys": ARRAYS_KEYS if arrays is None else arrays,
        }
    }


KEYS = KeySpecification.from_heads(heads())


def labelled_atoms(seed: int = 0, *, num_molecules: int = 1, **info) -> ase.Atoms:
    """Water-like molecules with every label of the example data."""
    rng = np.random.default_rng(seed)
    molecule = np.array([[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]])
    positions = np.concatenate([molecule + 2.8 * i for i in range(num_molecules)])
    positions += rng.normal(scale=0.05, size=positions.shape)
    atoms = ase.Atoms("OHH" * num_molecules, positions=positions, cell=[30.0] * 3, pbc=False)
    atoms.info.update(
        REF_energy=-2065.0 * num_molecules + rng.normal(),
        REF_dipole=rng.normal(size=3),
        config_dipole_weight=np.ones(3),
        total_charge=0.0,
        fermi_level=-5.0,
        external_field=np.zeros(3),
    )
    atoms.info.update(info)
    atoms.arrays["REF_forces"] = rng.normal(size=(len(atoms), 3))
    atoms.arrays["REF_atomic_multipoles"] = rng.normal(size=(len(atoms), 4))
    return atoms


def write(path: Path, structures: list[ase.Atoms]) -> Path:
    """An extended XYZ file of structures."""
    ase.io.write(path, structures, format="extxyz")
    return path


def configuration(atoms: ase.Atoms, keys: KeySpecification = KEYS, **options) -> Configuration:
    """A configuration as if read from the third place of `some.xyz`."""
    return from_atoms(
        atoms, keys=keys, location=Location("some.xyz", 2), read_calculator=True, **options
    )


def read_configurations(
    path: Path, keys: KeySpecification = KEYS, *, multipoles_max_l: int = 1
) -> list[Configuration]:
    """All configurations of a file."""
    return to_configurations(read_located(path), keys, multipoles_max_l=multipoles_max_l)


def structure(
    seed: int = 0, *, num_molecules: int = 1, cutoff: float = 3.0, kspace_cutoff: float = 0.6
) -> Structure:
    """A prepared structure of water-like molecules."""
    return prepare(
        configuration(labelled_atoms(seed, num_molecules=num_molecules)),
        elements=(1, 8),
        cutoff=cutoff,
        kspace_cutoff=kspace_cutoff,
    )


def periodic_structure(
    seed: int = 0, *, num_atoms: int = 4, cutoff: float = 3.5, kspace_cutoff: float = 2.0
) -> Structure:
    """A prepared structure in a small skewed periodic cell."""
    rng = np.random.default_rng(seed)
    cell = 3.5 * np.eye(3) + rng.uniform(-0.8, 0.8, size=(3, 3))
    positions = rng.uniform(0.0, 1.0, size=(num_atoms, 3)) @ cell
    atoms = ase.Atoms([8, 1] * (num_atoms // 2), positions=positions, cell=cell, pbc=True)
    return prepare(
        configuration(atoms), elements=(1, 8), cutoff=cutoff, kspace_cutoff=kspace_cutoff
    )


def labelled(energy: float, force: float, **info) -> Configuration:
    """Labelled water of that energy, with all force components alike."""
    atoms = labelled_atoms(REF_energy=energy, **info)
    atoms.arrays["REF_forces"][:] = force
    return configuration(atoms)


def load(tmp_path: Path, train: list[ase.Atoms], **options) -> DataSets:
    """Data sets of structures written to files; valid and test may be lists of structures."""
    files = {"train_file": write(tmp_path / "train.xyz", train)}
    for split in ("valid", "test"):
        if split in options:
            files[f"{split}_file"] = write(tmp_path / f"{split}.xyz", options.pop(split))
    defaults = {"keys": KEYS, "multipoles_max_l": 1, "E0s": "average", "work_dir": tmp_path}
    return load_datasets(DataSettings(**(defaults | files | options)))
