"""Self-consistent models of the PyTorch reference, with the structures of their files."""

from __future__ import annotations

import functools
from pathlib import Path

import ase
import numpy as np

from mace_scf_jax.pytorch.verification.fixed_point import reference_settings
from mace_scf_jax.pytorch.verification.reference_file import ReferenceFile, read_reference_file
from mace_scf_jax.pytorch.weights import import_parameters
from mace_scf_jax.simulate import Model

REFERENCE = Path(__file__).parent / "data" / "reference"
TRAINED = "trained/fixed_point_water_ions"
"""Trained on water clusters with ions; open boundaries, at most 12 atoms."""
STRONG = "models/fixed_point_default"
"""Random weights, strongly coupled; a cluster, a crystal and a slab."""
UNSTABLE = "models/fixed_point_unstable"
"""Not affine, and without convergence in linear mixing."""


@functools.cache
def reference(name: str) -> ReferenceFile:
    return read_reference_file(REFERENCE / f"{name}.npz")


@functools.cache
def reference_model(name: str) -> Model:
    """The model of a reference file; the same object every time, to compile it once."""
    file = reference(name)
    settings = reference_settings(file.meta)
    return Model(settings, import_parameters(file.state, settings))


def reference_atoms(name: str) -> list[ase.Atoms]:
    """The structures of a reference file, with their total charges, fields and Fermi levels."""
    file = reference(name)
    inputs, owner = file.inputs, file.inputs["batch"]
    numbers = np.asarray(file.meta["atomic_numbers"])[np.argmax(inputs["node_attrs"], axis=1)]
    return [
        ase.Atoms(
            numbers=numbers[owner == index],
            positions=inputs["positions"][owner == index],
            cell=inputs["cell"][index],
            pbc=inputs["pbc"][index],
            info={
                "total_charge": float(inputs["total_charge"][index]),
                "external_field": inputs["external_field"][index],
                "fermi_level": float(inputs["fermi_level"][index]),
            },
        )
        for index in range(int(owner.max()) + 1)
    ]
