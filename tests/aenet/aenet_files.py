"""Reference files of ænet: structures, paths, and models that are compiled once."""

from __future__ import annotations

import functools
from pathlib import Path

import ase
import numpy as np

from mace_scf_jax.aenet import ElementPotential, import_potential
from mace_scf_jax.predict.model import Model
from mace_scf_jax.predict.prediction import Prediction
from mace_scf_jax.pytorch.verification.reference_file import ReferenceFile, read_reference_file

FOLDER = Path(__file__).parents[1] / "data" / "reference" / "descriptor"
FORTRAN = "tio2_fortran"
EXPORTED = "exported"


@functools.cache
def reference(name: str) -> ReferenceFile:
    return read_reference_file(FOLDER / f"{name}.npz")


def paths_of(name: str) -> list[Path]:
    return [FOLDER / file for file in reference(name).meta["files"].values()]


@functools.cache
def model_of(name: str) -> Model:
    return import_potential(paths_of(name))


@functools.cache
def predictions_of(name: str) -> list[Prediction]:
    return model_of(name).predict(structures_of(name))


def structures_of(name: str) -> list[ase.Atoms]:
    """The structures of a reference file."""
    file = reference(name)
    inputs, owner = file.inputs, file.inputs["batch"]
    numbers = np.asarray(file.meta["atomic_numbers"])[np.argmax(inputs["node_attrs"], axis=1)]
    return [
        ase.Atoms(
            numbers=numbers[owner == index],
            positions=inputs["positions"][owner == index],
            cell=inputs["cell"][index],
            pbc=inputs["pbc"][index],
        )
        for index in range(int(owner.max()) + 1)
    ]


def assert_same_potential(found: ElementPotential, expected: ElementPotential) -> None:
    """All but the path, bit by bit."""
    for name in ("description", "element", "descriptor", "architecture", "E_scaling", "E_shift"):
        assert getattr(found, name) == getattr(expected, name), name
    assert found.atomic_energies == expected.atomic_energies
    assert found.training == expected.training
    for ours, theirs in zip(found.layers, expected.layers, strict=True):
        for values, others in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(values, others, strict=True)
    for name, values in vars(expected.features).items():
        np.testing.assert_array_equal(getattr(found.features, name), values, err_msg=name)
