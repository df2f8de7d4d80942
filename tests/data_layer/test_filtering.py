from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from mace_scf_jax.data import selection
from mace_scf_jax.data.catalogue import Catalogue
from mace_scf_jax.data.errors import DataError
from mace_scf_jax.data.sets import ConfigurationsInMemory

from .builders import configuration, labelled_atoms, load

E0S = {1: -13.0, 8: -2039.0}
"""A water molecule of these atoms has -2065 eV."""


def molecule(seed: int, *, energy: float = 0.0, force: float = 1.0, num_molecules: int = 1):
    """Water with an interaction energy per atom in eV and one force of a norm in eV/Å."""
    atoms = labelled_atoms(seed, num_molecules=num_molecules)
    atoms.info["REF_energy"] = -2065.0 * num_molecules + energy * len(atoms)
    atoms.arrays["REF_forces"] = np.zeros((len(atoms), 3))
    atoms.arrays["REF_forces"][seed % len(atoms)] = np.array([0.6, 0.0, -0.8]) * force
    return atoms


def without(atoms, *names: str):
    for name in names:
        atoms.info.pop(name, None)
        atoms.arrays.pop(name, None)
    return atoms


def test_structures_above_the_limits_are_left_out_and_counted(tmp_path, caplog) -> None:
    train = [
        molecule(0),
        molecule(1, energy=0.6),
        molecule(2, force=3.1),
        molecule(3, energy=0.6, force=3.1, num_molecules=2),
        molecule(4, energy=0.4, force=2.9, num_molecules=3),
        without(molecule(5), "REF_energy", "REF_forces"),
        molecule(6, energy=-5.0),
    ]
    valid, test = [molecule(0), molecule(1, force=9.0)], [molecule(1, energy=9.0, force=9.0)]
    with caplog.at_level(logging.INFO, logger="mace_scf_jax"):
        data = load(
            tmp_path, train, valid=valid, test=test, E0s=E0S, max_energy=0.5, max_forces=3.0
        )
    assert [entry.location.index for entry in data.train] == [0, 4, 5, 6]
    assert [entry.location.index for entry in data.valid] == [0]
    assert len(data.tests["test"]) == 1
    lines = [text for text in caplog.messages if "left out" in text]
    assert lines == [
        "Training set: left out 3 of 7 configurations: "
        "2 with an interaction energy above max_energy = 0.5 eV/atom, "
        "2 with a force above max_forces = 3 eV/Å",
        "Validation set: left out 1 of 2 configurations: "
        "0 with an interaction energy above max_energy = 0.5 eV/atom, "
        "1 with a force above max_forces = 3 eV/Å",
    ]


def test_the_split_is_made_of_what_is_left_and_names_places_in_the_file(tmp_path: Path) -> None:
    train = [molecule(index, force=1.0 + 9.0 * (index % 2)) for index in range(8)]
    data = load(tmp_path, train, max_forces=5.0, valid_fraction=0.25)
    assert [entry.location.index for entry in data.valid] == list(data.valid_indices)
    places = sorted(entry.location.index for part in (data.train, data.valid) for entry in part)
    assert places == [0, 2, 4, 6]


def test_average_atomic_energies_are_fitted_again_to_what_is_left(tmp_path: Path) -> None:
    train = [molecule(index, num_molecules=1 + index % 2) for index in range(20)]
    outlier = molecule(20, energy=10.0)
    kept = load(tmp_path, train, E0s="average", valid=[molecule(0)])
    filtered = load(tmp_path, [*train, outlier], E0s="average", valid=[molecule(0)], max_energy=5.0)
    assert len(filtered.train) == 20
    np.testing.assert_array_equal(filtered.atomic_energies, kept.atomic_energies)


def test_forces_are_read_only_where_the_sum_of_their_squares_does_not_decide() -> None:
    alike = labelled_atoms(0)
    alike.arrays["REF_forces"] = np.full((3, 3), 2.0)  # three norms of sqrt(12), together 6
    low, high, between = (
        configuration(atoms) for atoms in (molecule(0), molecule(1, force=20.0), alike)
    )
    # The first two are not what the catalogue says: reading them would give the opposite.
    members = ConfigurationsInMemory([high, low, between], Catalogue.of([low, high, between]))
    np.testing.assert_array_equal(selection.within_forces(members, 4.0), [True, False, True])
    np.testing.assert_array_equal(selection.within_forces(members, 3.6), [True, False, True])
    np.testing.assert_array_equal(selection.within_forces(members, 3.4), [True, False, False])


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"max_forces": 0.5}, r"left out 3 of 3 .* 3 with a force above .*; nothing is left"),
        ({"max_forces": 0.0}, "max_forces: found 0.0, expected a positive number"),
        ({"max_energy": np.nan}, "max_energy: found nan, expected a finite number"),
    ],
)
def test_limits_that_cannot_be_meant(tmp_path: Path, limits: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load(tmp_path, [molecule(index) for index in range(3)], **limits)
