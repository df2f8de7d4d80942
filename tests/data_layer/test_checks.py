from __future__ import annotations

import ase
import numpy as np
import pytest

from mace_scf_jax.data.catalogue import Catalogue
from mace_scf_jax.data.checks import (
    check_density,
    check_keys_occur,
    check_pbc,
    check_something_to_fit,
    stored_keys,
)
from mace_scf_jax.data.configuration import from_atoms
from mace_scf_jax.data.errors import DataError, Location
from mace_scf_jax.data.keys import KeySpecification

from .builders import ARRAYS_KEYS, INFO_KEYS, KEYS, heads, labelled_atoms


def flags(pattern: str) -> list[bool]:
    return [letter == "T" for letter in pattern]


def catalogue(structures: list[ase.Atoms]) -> Catalogue:
    return Catalogue.of(
        [
            from_atoms(atoms, keys=KEYS, location=Location("some.xyz", index))
            for index, atoms in enumerate(structures)
        ]
    )


def crystal(pattern: str, edge: float = 4.0, **info) -> ase.Atoms:
    return ase.Atoms("H", cell=[edge] * 3, pbc=flags(pattern), info=info)


ALLOWED = {
    "exact": {"TTT", "TTF", "TFT", "FTT", "FFF"},
    "realspace": {"FFF"},
    "molecule_in_box": {"FFF"},
    "pbc": {"TTT"},
    "slab": {"TTF"},
    "mixed_periodic": {"TTT", "TTF", "FFF"},
    "auto": {"TTT", "TTF", "TFT", "FTT", "TFF", "FTF", "FFT", "FFF"},
}


@pytest.mark.parametrize("method", ALLOWED)
@pytest.mark.parametrize("pattern", sorted(ALLOWED["auto"]))
def test_periodic_directions_by_method(method: str, pattern: str) -> None:
    structures = catalogue([crystal(pattern)])
    if pattern in ALLOWED[method]:
        check_pbc(structures, method=method, split="train")
        return
    with pytest.raises(
        DataError, match=rf"valid: some\.xyz, configuration 0: found pbc {pattern}, inc"
    ):
        check_pbc(structures, method=method, split="valid")


@pytest.mark.parametrize("method", ["slab", "mixed_periodic", "auto"])
def test_slabs_have_to_lie_in_the_plane(method: str) -> None:
    tilted = crystal("TTF")
    tilted.cell[1, 2] = 0.5
    with pytest.raises(
        DataError, match=r"configuration 1: found a slab .* 0 and 0\.5 Å .*override_pbc_checks"
    ):
        check_pbc(catalogue([crystal("TTF"), tilted]), method=method, split="train")
    check_pbc(catalogue([tilted]), method="exact", split="train")


def test_isolated_atoms_of_the_training_file_may_have_any_pbc() -> None:
    structures = catalogue([crystal("TTT"), crystal("FFF", config_type="IsolatedAtom")])
    check_pbc(structures, method="pbc", split="train")
    with pytest.raises(DataError, match="configuration 1: found pbc FFF"):
        check_pbc(structures, method="pbc", split="test")


def test_unknown_method_is_refused() -> None:
    with pytest.raises(DataError, match="found 'ewald', expected one of exact, displ"):
        check_pbc(catalogue([]), method="ewald", split="train")


def test_low_density_of_fully_periodic_structures() -> None:
    def check(atoms: ase.Atoms, limit: float = 100.0) -> None:
        check_density(catalogue([atoms]), split="train", max_volume_per_atom=limit)

    check(crystal("TTT", edge=4.6))
    check(crystal("TTF", edge=20.0))
    check(crystal("FFF", edge=50.0))
    check(crystal("TTT", edge=20.0), limit=8001.0)
    left_handed = ase.Atoms("H", cell=np.diag([20.0, 20.0, -20.0]), pbc=True)
    for atoms in (crystal("TTT", edge=20.0, config_type="gas"), left_handed):
        kind = atoms.info.get("config_type", "Default")
        with pytest.raises(
            DataError,
            match=rf"train, index 0 .*config_type={kind}, volume=8000\.0, num_atoms=1, "
            r"volume_per_atom=8000\.0, limit=100 .*allow_low_density_pbc",
        ):
            check(atoms)
    with pytest.raises(DataError, match="low_density_pbc_max_volume_per_atom: found 0"):
        check(crystal("TTT"), limit=0.0)


def test_a_key_that_no_configuration_has_is_refused() -> None:
    structures = [labelled_atoms()]
    check_keys_occur(stored_keys(structures), KEYS, "a.xyz")
    typo = KeySpecification.from_heads(heads({**INFO_KEYS, "energy": "REF_enrgy"}))
    with pytest.raises(
        DataError,
        match=r"a\.xyz: found no configuration with the key 'REF_enrgy', to which 'energy'.*"
        r"did you mean 'REF_energy'\?.*Keys that occur: REF_dipole.*energy: none",
    ):
        check_keys_occur(stored_keys(structures), typo, "a.xyz")
    misplaced = KeySpecification.from_heads(heads(arrays={**ARRAYS_KEYS, "charges": "positions"}))
    with pytest.raises(DataError, match="'charges' is mapped in arrays_keys"):
        check_keys_occur(stored_keys(structures), misplaced, "a.xyz")


def test_one_configuration_with_the_key_is_enough() -> None:
    bare = labelled_atoms()
    bare.info, bare.arrays = {}, {n: bare.arrays[n] for n in ("numbers", "positions")}
    check_keys_occur(stored_keys([bare, labelled_atoms(), bare]), KEYS, "a.xyz")


def test_keys_that_may_be_absent() -> None:
    atoms = labelled_atoms()
    del atoms.info["total_charge"]
    info = {"total_charge": "total_charge", "polarizability": "none", "head": "my_head"}
    check_keys_occur(stored_keys([atoms]), KeySpecification.from_heads(heads(info, {})), "a.xyz")
    other = KeySpecification.from_heads(heads({"total_charge": "Q"}, {}))
    with pytest.raises(DataError, match="'Q', to which 'total_charge' is mapped"):
        check_keys_occur(stored_keys([atoms]), other, "a.xyz")


def test_free_atoms_in_periodic_cells_are_not_of_low_density() -> None:
    free = crystal("TTT", edge=20.0, config_type="IsolatedAtom")
    check_density(catalogue([free]), split="valid", max_volume_per_atom=100.0)


def test_file_without_any_label_is_refused() -> None:
    bare = ase.Atoms("H", info={"total_charge": 1.0})
    check_something_to_fit(catalogue([bare, labelled_atoms()]), "a.xyz")
    with pytest.raises(DataError, match=r"a\.xyz: found no reference values"):
        check_something_to_fit(catalogue([bare]), "a.xyz")
