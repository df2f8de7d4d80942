from __future__ import annotations

import ase
import pytest

from mace_scf_jax.data.configuration import from_atoms
from mace_scf_jax.data.errors import DataError, Location
from mace_scf_jax.data.keys import KeySpecification
from mace_scf_jax.registry import nearest

from .builders import ARRAYS_KEYS, INFO_KEYS, heads


def test_completion_follows_the_entries_of_the_user() -> None:
    keys = KeySpecification.from_heads(
        heads({"total_charge": "Q", "dipole": "mu"}, {"atomic_multipoles": "p"})
    )
    assert keys.names() == [
        "total_charge",
        "dipole",
        "energy",
        "stress",
        "head",
        "atomic_multipoles",
        "forces",
    ]
    assert keys.key_of("energy") is None
    assert keys.key_of("total_charge") == "Q"
    assert keys.key_of("polarizability") is None
    assert keys.completed == {"energy", "stress", "head", "forces"}


def test_the_total_charge_is_looked_for_under_its_own_name() -> None:
    keys = KeySpecification.from_heads(heads({"energy": "E"}, {}))
    assert keys.key_of("total_charge") == "total_charge"
    assert "total_charge" in keys.completed


def test_none_and_null_disable_a_property() -> None:
    keys = KeySpecification.from_heads(
        heads({"total_charge": "Q", "energy": "none", "dipole": None}, {})
    )
    assert keys.key_of("energy") is None
    assert keys.key_of("dipole") is None
    assert "energy" not in keys.completed


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("text", "expected a mapping"),
        ({}, "found 0 heads"),
        ({**heads(), "second": {}}, "heads, second: found nothing, expected 'info_keys' and"),
        ({**heads(), "b": {**heads()["DFT"], "file": "b.xyz"}}, "heads, b: found .*'file'"),
        ({**heads(), "b": {**heads()["DFT"], "loss_weights": {"forces": -1}}}, "forces: found -1"),
        ({**heads(), "b": {**heads()["DFT"], "loss_weights": {"force": 1}}}, "mean 'forces'"),
        ({"DFT": {"info_keys": INFO_KEYS}}, "expected exactly 'info_keys' and 'arrays_keys'"),
        (
            {"DFT": {"info_keys": INFO_KEYS, "arrays_keys": {}, "E0s": "average"}},
            "'E0s'.* expected exactly",
        ),
        (heads({**INFO_KEYS, "enrgy": "E"}), "unknown property 'enrgy'; did you mean 'energy'"),
        (heads({**INFO_KEYS, "molid": "m"}), "did you mean 'molID'"),
        (heads({**INFO_KEYS, "forces": "F"}), "found 'forces', which belongs in arrays_keys"),
        (heads(arrays={**ARRAYS_KEYS, "energy": "E"}), "belongs in info_keys"),
        (heads({**INFO_KEYS, "stress": 3}), "stress: found 3, expected the name of a key"),
        (heads(["energy"]), "expected a mapping from name to key"),
        (
            heads(
                {**INFO_KEYS, "electrostatic_potentials": "v"},
                {**ARRAYS_KEYS, "electrostatic_potentials": "v"},
            ),
            "in both info_keys and arrays_keys",
        ),
    ],
)
def test_wrong_heads_are_refused(bad: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        KeySpecification.from_heads(bad)


def test_empty_members_are_empty_mappings() -> None:
    keys = KeySpecification.from_heads(
        {"DFT": {"info_keys": {"total_charge": "Q"}, "arrays_keys": None}}
    )
    assert dict(keys.arrays_keys) == {"forces": "none"}


def test_nearest_ignores_case_and_refuses_the_unrelated() -> None:
    assert nearest("ref_ENERGY", ["REF_energy", "REF_forces"]) == "REF_energy"
    assert nearest("qqq", ["REF_energy"]) is None


def test_nearest_finds_longer_names_with_the_same_words() -> None:
    known = ["energy_per_atom", "forces", "total_charge_per_atom", "total_charge"]
    assert nearest("energy", known) == "energy_per_atom"
    assert nearest("charge", known) == "total_charge"
    assert nearest("atom_energy", known) == "energy_per_atom"


def test_structures_belong_to_the_head_that_they_or_their_files_name() -> None:
    block = heads()["DFT"]
    keys = KeySpecification.from_heads(
        {
            "pbe": block | {"files": "*_pbe.xyz"},
            "r2scan": {"info_keys": {"energy": "E_r2scan"}, "arrays_keys": {}}
            | {"files": "*_r2scan.xyz", "loss_weights": {"energy": 0.25}},
        }
    )
    atoms = ase.Atoms("H", info={"E_r2scan": -1.5, "config_energy_weight": 2.0})
    read = from_atoms(atoms, keys=keys, location=Location("data/a_r2scan.xyz", 0))
    assert read.head == 1
    assert read.values["energy"] == -1.5
    assert read.weights["energy"] == 0.5
    atoms.info["head"] = "pbe"
    read = from_atoms(atoms, keys=keys, location=Location("data/a_r2scan.xyz", 0))
    assert read.head == 0
    assert "energy" not in read.present
    atoms.info["head"] = "r2scam"
    with pytest.raises(DataError, match="expected one of pbe, r2scan, found 'r2scam'; did you"):
        from_atoms(atoms, keys=keys)
    del atoms.info["head"]
    with pytest.raises(DataError, match=r"other\.xyz, .*names no head \(head=…\)"):
        from_atoms(atoms, keys=keys, location=Location("other.xyz", 0))
    assert keys.only(["energy"]).heads[1].keys.key_of("energy") == "E_r2scan"
