from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from mace_scf_jax.data.errors import DataError
from mace_scf_jax.data.keys import KeySpecification
from mace_scf_jax.data.reading import file_parts, read_atoms, warn_about

from .builders import KEYS, WATER_IONS, heads, labelled_atoms, read_configurations, write


def test_example_data() -> None:
    found = read_configurations(WATER_IONS)
    assert len(found) == 460
    assert {entry.config_type for entry in found} >= {"w_w", "cl_na", "h3o_w_w"}
    for entry in found:
        assert entry.present == set(KEYS.names()) - {"stress", "head"}
        assert not entry.pbc.any()
        np.testing.assert_array_equal(entry.cell, 30.0 * np.eye(3))
        charges, dipoles = np.split(entry.values["atomic_multipoles"], [1], axis=1)
        np.testing.assert_allclose(charges.sum(), entry.values["total_charge"], atol=1e-6)
        # The multipoles reproduce the dipole, up to the integration grid of the Hirshfeld analysis,
        # which fixes the order d_y, d_z, d_x.
        dipole = (charges * entry.positions + dipoles[:, [2, 0, 1]]).sum(axis=0)
        np.testing.assert_allclose(dipole, entry.values["dipole"], atol=5e-4)
    first = found[0]
    assert str(first.location) == f"{WATER_IONS}, configuration 0"
    assert first.values["energy"] == pytest.approx(-10633.297700355737, abs=1e-9)
    assert first.values["fermi_level"] == pytest.approx(-10.387801667876293, abs=1e-12)
    np.testing.assert_allclose(
        first.values["forces"][0], [-0.22805386, -0.75891145, -0.74823076], atol=1e-12
    )


def test_names_of_ase_are_read_from_the_calculator(tmp_path: Path) -> None:
    path = tmp_path / "train.xyz"
    path.write_text(
        "2\n"
        'Lattice="4 0 0 0 4 0 0 0 4" pbc="T T T" energy=-3.5 stress="1 6 5 6 2 4 5 4 3" '
        'dipole="1 2 3" config_dipole_weight="1 1 1" total_charge=0 '
        "Properties=species:S:1:pos:R:3:forces:R:3:charges:R:1\n"
        "O 0 0 0 1 2 3 -1\nH 0 0 1 4 5 6 1\n"
    )
    keys = KeySpecification.from_heads(
        heads(
            {n: n for n in ("energy", "stress", "dipole", "total_charge")},
            {n: n for n in ("forces", "charges")},
        )
    )
    (found,) = read_configurations(path, keys, multipoles_max_l=0)
    assert found.values["energy"] == -3.5
    np.testing.assert_array_equal(found.values["stress"], [[1, 6, 5], [6, 2, 4], [5, 4, 3]])
    np.testing.assert_array_equal(found.values["dipole"], [1, 2, 3])
    np.testing.assert_array_equal(found.values["forces"], [[1, 2, 3], [4, 5, 6]])
    np.testing.assert_array_equal(found.values["charges"], [-1, 1])
    assert found.weights["energy"] == 1.0


def test_one_warning_per_file_for_adjusted_cells(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    small, wide, fine = labelled_atoms(), labelled_atoms(num_molecules=7), labelled_atoms()
    small.cell = None
    with caplog.at_level(logging.WARNING, logger="mace_scf_jax"):
        path = write(tmp_path / "a.xyz", [small] * 3 + [wide] + [fine])
        warn_about(read_configurations(path), KEYS, str(path))
    (message,) = caplog.messages
    assert "of 5 configurations" in message
    assert "enlarged in 3 (min cell dimension for pbc=False is 30A)" in message
    assert "replaced in 1 (cell was too small" in message


def test_file_without_energies_or_forces_is_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    atoms = labelled_atoms()
    del atoms.info["REF_energy"]
    path = write(tmp_path / "a.xyz", [atoms])
    with caplog.at_level(logging.WARNING, logger="mace_scf_jax"):
        warn_about(read_configurations(path), KEYS, str(path))
    assert caplog.messages == [f"{path}: no configuration has energy (key 'REF_energy')"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("data.txt", "x", r"found suffix '\.txt', expected \.xyz, \.extxyz, \.xsf or that of a"),
        ("data.cif", "x", r"data\.cif: (ASE cannot read it|found no structures)"),
        ("data.traj", "x", r"data\.traj: ASE cannot read it"),
        ("empty.xyz", "", "empty.xyz"),
        ("short.xyz", "2\nenergy=1\nH 0 0 0\n", "configuration 0: not readable"),
        ("words.xyz", "1\nProperties=species:S:1:pos:R:3\nH 0 0 a\n", "not readable"),
        (
            "second.xyz",
            "1\nProperties=species:S:1:pos:R:3\nH 0 0 0\n1\nProperties=species:S:1:pos:R:3\nH 0\n",
            "configuration 1: not readable",
        ),
        (
            "stress.xyz",
            '1\nProperties=species:S:1:pos:R:3 stress="1 2 3"\nH 0 0 0\n',
            "not readable as extended XYZ .*stress",
        ),
    ],
)
def test_unreadable_files_are_refused(tmp_path: Path, name: str, text: str, message: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_atoms(path)


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.xyz: no such file"):
        read_atoms(tmp_path / "absent.xyz")


def test_nan_label_in_a_file_names_file_index_and_key(tmp_path: Path) -> None:
    bad = labelled_atoms()
    bad.arrays["REF_forces"][1, 1] = np.nan
    path = write(tmp_path / "train.xyz", [labelled_atoms(), bad])
    with pytest.raises(
        DataError, match=r"train\.xyz, configuration 1, key 'REF_forces' \(forces\): found NaN"
    ):
        read_configurations(path)


TWO = "Properties=species:S:1:pos:R:3 energy={}\n{} 0 0 0\nH 0 0 1\n"


def read_text(folder: Path, text: str | bytes) -> list:
    path = folder / "some.xyz"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    whole = read_atoms(path)
    parts = [atoms for part in file_parts(path, largest=1) for atoms in part.read().atoms]
    assert [atoms.info for atoms in parts] == [atoms.info for atoms in whole]
    return whole


def test_structures_behind_empty_lines_are_read(tmp_path: Path) -> None:
    frames = ["2\n" + TWO.format(index, "O") for index in range(3)]
    found = read_text(tmp_path, "\n" + "\n \n".join(frames) + "\n\n")
    assert [atoms.get_potential_energy() for atoms in found] == [0, 1, 2]


def test_what_is_no_structure_is_refused_with_its_line(tmp_path: Path) -> None:
    text = "2\n" + TWO.format(1, "O")
    with pytest.raises(
        DataError, match=r"configuration 1: .*\(line 6: found b'end', expected the number"
    ):
        read_text(tmp_path, f"{text}\nend")
    with pytest.raises(DataError, match=r"configuration 1: .*the structure begins in line 6\)"):
        read_text(tmp_path, f"{text}\n2\n{TWO.format(1, 'O')[:-6]}")


def test_text_that_is_not_utf8_and_marks_of_editors_are_read(tmp_path: Path) -> None:
    text = "2\n" + TWO.format("1 by=Müller", "O")
    for data in (text.encode("latin-1"), text.encode("utf-8-sig"), text.replace("\n", "\r\n")):
        (found,) = read_text(tmp_path, data)
        assert found.info == {"by": "Müller"}


def test_isotopes_are_hydrogen_of_their_mass(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for text in ("2\n" + TWO.format(1, "D"), "2\n\nT 0 0 0\nh 0 0 1\n"):
        (found,) = read_text(tmp_path, text)
        assert found.get_chemical_formula() == "H2"
        assert found.get_masses()[0] == pytest.approx(2.0141 if "D" in text else 3.0160, abs=1e-4)
        assert found.get_masses()[1] == pytest.approx(1.008)
    assert "D and T in 1 structures are read as H of their mass" in caplog.text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TWO.format(1, "O1"), r"configuration 0: .*symbol 'O1' of atom 0.*did you mean O\?"),
        (TWO.format("1 energy=2", "O"), "the key 'energy' is given twice"),
        (TWO.format('1 pbc="p p f"', "O"), "pbc: found 'p p f', expected three of T and F"),
    ],
)
def test_what_would_be_misread_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_text(tmp_path, f"2\n{text}")


def test_periodic_directions_in_small_letters(tmp_path: Path) -> None:
    (found,) = read_text(
        tmp_path, "2\n" + TWO.format('1 pbc="f t f" Lattice="9 0 0 0 9 0 0 0 9"', "O")
    )
    assert found.pbc.tolist() == [False, True, False]
