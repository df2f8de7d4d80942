from __future__ import annotations

import logging
from pathlib import Path

import ase
import numpy as np
import pytest

from mace_scf_jax.data.datasets import DataSettings, load_datasets
from mace_scf_jax.data.errors import DataError
from mace_scf_jax.data.keys import KeySpecification

from .builders import INFO_KEYS, KEYS, WATER_IONS, heads, labelled_atoms, load, write


def waters(count: int, **info) -> list[ase.Atoms]:
    return [labelled_atoms(seed, num_molecules=1 + seed % 2, **info) for seed in range(count)]


def ion(symbol: str, charge: float, **info) -> ase.Atoms:
    atoms = ase.Atoms(symbol, cell=[30.0] * 3)
    atoms.info.update(REF_energy=-1.0, total_charge=charge, **info)
    return atoms


def test_example_data_and_its_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = DataSettings(
        train_file=WATER_IONS,
        keys=KEYS,
        multipoles_max_l=1,
        valid_fraction=0.25,
        valid_set_seed=5,
        work_dir=tmp_path,
        E0s={1: -13.5703, 8: -2038.7921, 11: -4410.9716, 17: -12511.9807},
    )
    with caplog.at_level(logging.INFO, logger="mace_scf_jax"):
        data = load_datasets(settings)
    assert (len(data.train), len(data.valid), data.tests) == (345, 115, {})
    assert data.elements == (1, 8, 11, 17)
    split, table, energies = caplog.messages
    assert split == (
        "Using random 25% of training set for validation with indices saved in: "
        f"{tmp_path / 'valid_indices_5.txt'}"
    )
    title, *lines = table.splitlines()
    assert title == "Structures, and how many of them have each label"
    (_, *labels), *sets = ([cell.strip() for cell in line[1:-1].split("|")] for line in lines)
    assert labels == [
        *("structures", "energy", "forces", "dipole", "total_charge", "fermi_level"),
        *("external_field", "atomic_multipoles"),
    ]
    assert sets == [["train", *["345"] * 8], ["valid", *["115"] * 8]]
    assert energies == (
        "Energies of isolated atoms / eV: H -13.5703, O -2038.7921, Na -4410.9716, Cl -12511.9807"
    )
    assert [entry.location.index for entry in data.valid] == list(data.valid_indices)
    assert not list(tmp_path.iterdir())


def test_given_validation_and_test_files(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    test = [*waters(2, config_type="bulk"), *waters(1), *waters(1, config_type="bulk")]
    with caplog.at_level(logging.INFO, logger="mace_scf_jax"):
        data = load(tmp_path, waters(5), valid=[*waters(2), ion("Na", 1.0)], test=test)
    assert (len(data.train), len(data.valid)) == (5, 3)
    assert {name: len(group) for name, group in data.tests.items()} == {
        "bulk": 3,
        "test": 1,
    }
    assert list(data.tests) == ["bulk", "test"]
    (table,) = (text for text in caplog.messages if text.startswith("Structures, and how many"))
    rows = [[cell.strip() for cell in line[1:-1].split("|")] for line in table.splitlines()[2:]]
    assert [row[:2] for row in rows] == [
        ["train", "5"],
        ["valid", "3"],
        ["bulk", "3"],
        ["test", "1"],
    ]


def test_elements_come_from_training_and_validation(tmp_path: Path) -> None:
    options = {"E0s": {1: -13.0, 8: -2000.0, 11: -4410.0}}
    data = load(tmp_path, waters(3), valid=[ion("Na", 1.0)], test=[ion("Cl", -1.0)], **options)
    assert data.elements == (1, 8, 11)
    np.testing.assert_array_equal(data.atomic_energies, [-13.0, -2000.0, -4410.0])


def test_isolated_atoms_leave_the_training_set_and_give_energies(tmp_path: Path) -> None:
    free = [ion("H", 0.0, config_type="IsolatedAtom"), ion("O", 0.0, config_type="IsolatedAtom")]
    free[1].info["REF_energy"] = -2.0
    data = load(tmp_path, [free[0], *waters(4), free[1]], valid=[*waters(1), free[0]])
    assert len(data.train) == 4
    assert len(data.valid) == 2
    assert data.atomic_energies.tolist() == [-1.0, -2.0]
    assert data.train[0].location.index == 1
    keys = KeySpecification.from_heads(
        heads({"energy": "REF_energy", "total_charge": "total_charge"}, {})
    )
    with pytest.raises(DataError, match="only isolated atoms"):
        load(tmp_path, free, keys=keys)


def test_weights_of_config_types_reach_every_split(tmp_path: Path) -> None:
    data = load(
        tmp_path,
        waters(2, config_type="bulk", config_weight=3.0),
        valid=waters(1, config_type="bulk"),
        config_type_weights={"bulk": 0.5, "Default": 1.0},
    )
    assert [entry.config_weight for entry in data.train] == [1.5, 1.5]
    assert [entry.config_weight for entry in data.valid] == [0.5]


def test_partial_labels_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bare = labelled_atoms(3)
    del bare.info["REF_energy"], bare.arrays["REF_forces"]
    half = labelled_atoms(4, config_energy_weight=0.5, config_dipole_weight=[1.0, 0.0, 0.5])
    with caplog.at_level(logging.INFO, logger="mace_scf_jax"):
        load(tmp_path, [bare, half, *waters(2)], valid=waters(1))
    _, heading, train, valid = (line.split() for line in caplog.messages[0].splitlines())
    counts = [dict(zip(heading[2:], line[3:], strict=True)) for line in (train, valid)]
    assert counts[0]["structures"] == counts[0]["dipole"] == "4"
    assert counts[0]["energy"] == counts[0]["forces"] == "3"
    assert counts[1]["energy"] == "1"
    assert "stress" not in heading


def crystal(edge: float, pbc: object = True) -> ase.Atoms:
    atoms = labelled_atoms()
    atoms.cell, atoms.pbc = [edge] * 3, pbc
    return atoms


def test_periodic_directions_must_fit_the_method(tmp_path: Path) -> None:
    options = {"valid": [crystal(5.0, [True, False, True])]}
    with pytest.raises(DataError, match=r"valid: .*valid\.xyz, configuration 0: found pbc TFT"):
        load(tmp_path, waters(2), **options)
    data = load(
        tmp_path, waters(2), valid=[crystal(5.0, [True, False, True])], override_pbc_checks=True
    )
    assert data.valid[0].pbc.tolist() == [True, False, True]


def test_low_density_in_a_test_group_is_refused_unless_allowed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sparse = crystal(20.0)
    with pytest.raises(DataError, match=r"test:test, index 1 .*volume_per_atom=2666"):
        load(tmp_path, waters(2), valid=waters(1), test=[crystal(5.0), sparse])
    with caplog.at_level(logging.INFO, logger="mace_scf_jax"):
        load(tmp_path, [sparse, *waters(2)], valid=waters(1), allow_low_density_pbc=True)
    assert "Low-density check of fully periodic structures skipped" in caplog.messages
    load(tmp_path, [sparse], valid=waters(1), low_density_pbc_max_volume_per_atom=3000.0)


def test_sets_of_tests_are_never_called_like_those_of_training(tmp_path: Path) -> None:
    kinds = ("train", "valid", "test", "ice", "Default")
    tests = [labelled_atoms(config_type=kind) for kind in kinds]
    data = load(tmp_path, waters(2), valid=waters(1), test=tests)
    assert list(data.tests) == ["test_train", "test_valid", "test_test", "ice", "test"]


def test_wires_are_refused_only_where_there_are_charges(tmp_path: Path) -> None:
    wire = crystal(5.0, [True, False, False])
    with pytest.raises(DataError, match="found pbc TFF"):
        load(tmp_path, [wire, *waters(2)], valid=waters(1))
    load(tmp_path, [wire, *waters(2)], valid=waters(1), electrostatic_pbc_method=None)


def test_what_is_probably_not_meant_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keys = KeySpecification.from_heads(
        heads({"energy": "REF_energy", "stress": "REF_stress", "dipole": "REF_dipole"})
    )
    train = waters(3, charge=1, REF_stress=np.eye(3))
    for atoms in train:
        del atoms.info["total_charge"], atoms.info["fermi_level"]
    options = {"valid": [ion("Na", 1.0)], "config_type_weights": {"Defalt": 2.0, "Default": 1.0}}
    load(tmp_path, train, keys=keys, **options)
    assert [message.removeprefix(f"{tmp_path}/") for message in caplog.messages] == [
        "train.xyz: no configuration has a total charge (key 'total_charge'); all are taken as "
        "neutral; if that is not so, map 'charge'",
        "train.xyz: found 'external_field', which is not mapped in 'heads' and is not trained "
        "with; map it (`external_field: external_field` in info_keys), or to none",
        "train.xyz: stress of 3 configurations without periodic directions has no meaning and is "
        "not used",
        "valid.xyz: no configuration has forces (key 'REF_forces')",
        "Na occurs in validation configurations only: the model knows it, but is never trained on "
        "it, and E0s cannot be measured for it",
        "config_type_weights: no configuration has the type 'Defalt'; did you mean 'Default'?; "
        "types that occur: Default",
        "E0s 'average': the compositions of the training set do not determine the energies of its "
        "3 elements one by one (rank 1); only their sums are meaningful",
    ]


def test_mistyped_key_is_refused_and_leaves_no_file(tmp_path: Path) -> None:
    keys = KeySpecification.from_heads(heads({**INFO_KEYS, "fermi_level": "fermi"}))
    with pytest.raises(DataError, match="did you mean 'fermi_level'"):
        load(tmp_path, waters(150), keys=keys)
    assert [path.name for path in tmp_path.iterdir()] == ["train.xyz"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"multipoles_max_l": -1}, "atomic_multipoles_max_l: found -1"),
        ({"electrostatic_pbc_method": "ewald"}, "found 'ewald'"),
        ({"config_type_weights": {"bulk": -1.0}}, "config_type_weights, bulk: found -1.0"),
        ({"valid_fraction": 1.5}, "valid_fraction: found 1.5"),
        ({"E0s": None}, "E0s: found neither"),
    ],
)
def test_impossible_settings_are_refused(tmp_path: Path, options: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load(tmp_path, waters(2), **options)


@pytest.mark.parametrize("split", ["train_file", "valid_file", "test_file"])
def test_missing_files_are_refused(tmp_path: Path, split: str) -> None:
    files = {"train_file": write(tmp_path / "train.xyz", waters(2)), split: tmp_path / "none.xyz"}
    with pytest.raises(DataError, match=r"none\.xyz: no such file"):
        load_datasets(DataSettings(keys=KEYS, multipoles_max_l=1, work_dir=tmp_path, **files))
