"""XSF files: what ænet writes, other dialects, trajectories, and what is broken."""

from __future__ import annotations

import pickle
from pathlib import Path

import ase
import ase.io
import numpy as np
import pytest
from ase.calculators.singlepoint import SinglePointCalculator
from ase.units import Hartree

from mace_scf_jax.data.datasets import DataSettings, load_datasets
from mace_scf_jax.data.errors import DataError
from mace_scf_jax.data.keys import KeySpecification
from mace_scf_jax.data.preprocessing import PreprocessSettings, preprocess
from mace_scf_jax.data.reading import files_of, is_there, parts_of, read_atoms, read_located

from .builders import heads

KEYS = KeySpecification.from_heads(heads({"energy": "energy"}, {"forces": "forces"}))
CRYSTAL = """\
# total energy = -19960.6617326 eV

CRYSTAL
PRIMVEC
  5.934 0.0 0.0
  0.0 9.297 0.0
  0.5 0.0 4.649
PRIMCOORD
  2 1
Ti   4.42  7.03  2.24   0.0759 -0.4043  0.6942
O   -1.25  0.50  9.00  -0.0759  0.4043 -0.6942
"""
MOLECULE = "ATOMS\n8 0 0 0\n1 0 0 0.96\n1 0.93 0 -0.24\n"


def written(folder: Path, text: str, name: str = "a.xsf") -> Path:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def oxide(index: int) -> ase.Atoms:
    """A labelled periodic structure, with an atom outside of its cell."""
    rng = np.random.default_rng(index)
    positions = rng.uniform(-1.0, 6.0, (3, 3))
    return ase.Atoms(
        "TiO2",
        positions,
        cell=np.diag([5.0, 6.0, 7.0]) + 0.1 * rng.normal(size=(3, 3)),
        pbc=True,
        info={"energy": -2465.0 + rng.normal()},
    )


def as_xsf(atoms: ase.Atoms, forces: np.ndarray) -> str:
    """What ænet would write, digit by digit."""
    rows = [
        f"{symbol} {' '.join(map(repr, position.tolist()))} {' '.join(map(repr, force.tolist()))}"
        for symbol, position, force in zip(atoms.symbols, atoms.positions, forces, strict=True)
    ]
    cell = "\n".join(" ".join(map(repr, vector)) for vector in atoms.cell.tolist())
    return (
        f"# total energy = {atoms.info['energy']!r} eV\n\nCRYSTAL\nPRIMVEC\n{cell}\nPRIMCOORD\n"
        f"{len(atoms)} 1\n" + "\n".join(rows) + "\n"
    )


def test_a_crystal_as_aenet_writes_it(tmp_path):
    (atoms,) = read_atoms(written(tmp_path, CRYSTAL))
    assert atoms.get_chemical_symbols() == ["Ti", "O"]
    assert atoms.pbc.all()
    np.testing.assert_array_equal(atoms.cell[2], [0.5, 0.0, 4.649])
    np.testing.assert_array_equal(atoms.positions[1], [-1.25, 0.5, 9.0])
    assert atoms.calc.results["energy"] == -19960.6617326
    np.testing.assert_array_equal(atoms.calc.results["forces"][0], [0.0759, -0.4043, 0.6942])


def test_a_molecule_by_atomic_numbers(tmp_path):
    for text in (MOLECULE, f"MOLECULE\n{MOLECULE}", MOLECULE.replace("8 0", "o 0")):
        (atoms,) = read_atoms(written(tmp_path, text))
        assert atoms.get_chemical_formula() == "H2O"
        assert not atoms.pbc.any()
        assert atoms.calc is None
    (atoms,) = read_atoms(written(tmp_path, f"# Cohesive Energy: -1.5D+01 eV\n{MOLECULE}"))
    assert atoms.info == {"cohesive_energy": -15.0}


def test_dialects(tmp_path):
    grid = "BEGIN_BLOCK_DATAGRID_3D\n some name\n 1 2 3\nEND_BLOCK_DATAGRID_3D\n"
    text = CRYSTAL.replace("PRIMCOORD", "CONVVEC\n1 0 0\n0 1 0\n0 0 1\nprimcoord 1 # here")
    (atoms,) = read_atoms(written(tmp_path, text.replace("CRYSTAL", "DIM-GROUP\n 2 1") + grid))
    assert atoms.pbc.tolist() == [True, True, False]
    assert len(atoms) == 2
    (slab,) = read_atoms(written(tmp_path, CRYSTAL.replace("CRYSTAL", "SLAB")))
    (wire,) = read_atoms(written(tmp_path, CRYSTAL.replace("CRYSTAL", "POLYMER")))
    assert (slab.pbc.sum(), wire.pbc.tolist()) == (2, [True, False, False])


def test_trajectories(tmp_path):
    frame = CRYSTAL.partition("PRIMCOORD")[2]
    text = "# total energy = -2.0 eV\nANIMSTEPS 2\n" + CRYSTAL + f"PRIMCOORD 2\n{frame}"
    path = written(tmp_path, text)
    first, second = read_atoms(path)
    np.testing.assert_array_equal(first.cell, second.cell)
    assert first.calc.results["energy"] == -2.0
    assert second.calc.results["energy"] == -19960.6617326
    (part,) = parts_of(path, largest=1)
    assert part.count == 2
    read = part.read()
    assert [str(it) for it in read.locations] == [f"{path}, configuration {i}" for i in (0, 1)]
    molecules = "ANIMSTEPS 2\nATOMS 1\nH 0 0 0\nATOMS 2\nH 0 0 1\nH 0 0 2\n"
    assert [len(atoms) for atoms in read_atoms(written(tmp_path, molecules))] == [1, 2]


def test_what_ase_writes_is_read(tmp_path):
    """Its forces are in Hartree/Å, which is not what ænet means."""
    images = [oxide(0), oxide(1)]
    for atoms in images:
        atoms.calc = SinglePointCalculator(atoms, forces=np.full((3, 3), Hartree), energy=0.0)
    ase.io.write(tmp_path / "a.xsf", images)
    for found, atoms in zip(read_atoms(tmp_path / "a.xsf"), images, strict=True):
        assert found.numbers.tolist() == atoms.numbers.tolist()
        np.testing.assert_allclose(found.positions, atoms.positions, atol=1e-13)
        np.testing.assert_allclose(found.cell, atoms.cell, atol=1e-13)
        np.testing.assert_allclose(found.calc.results["forces"], 1.0, atol=1e-13)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"a\.xsf: not readable as XSF \(found 0 structures, expected one\)"),
        (
            CRYSTAL.rpartition(" -0.0759")[0],
            r"line 11: found 'O -1.25 0.50 9.00', expected 6 numbers as in the rows",
        ),
        (CRYSTAL.rpartition("O ")[0], "the file ends where atom 2 of 2 was expected"),
        (CRYSTAL.partition("  0.5")[0], "ends where lattice vector 3 of 3 was expected"),
        (CRYSTAL.replace("2 1", "3 1"), "ends where atom 3 of 3"),
        (CRYSTAL.replace("2 1", "1 1"), r"line 11: found 'O -1.25.*expected one of ANIMSTEPS"),
        (CRYSTAL.replace("2 1", "two"), "line 9: found 'two', expected the number of atoms"),
        (CRYSTAL.replace("Ti ", "Ti1 "), r"line 10: .*number of an element .*did you mean Ti"),
        (CRYSTAL.replace("Ti ", "0 "), "line 10: .*expected the symbol or number of an element"),
        (CRYSTAL.replace("7.03", "7.o3"), "line 10: .*expected 3 or 6 numbers"),
        (CRYSTAL.replace("9.297 0.0", "9.297"), "line 6: .*expected 3 numbers"),
        (CRYSTAL.replace("CRYSTAL\n", ""), "line 7: found 'PRIMCOORD', expected CRYSTAL, SLAB"),
        (CRYSTAL.replace(" eV", " Ry"), "line 1: found '-19960.6617326 Ry', expected an energy in"),
        (
            CRYSTAL.replace("= -1", "= x1"),
            "line 1: found 'x19960.6617326 eV', expected an energy in",
        ),
        ("# total energy = 1 eV\n" + CRYSTAL, "found 2 comments with a total energy, expected one"),
        ("ANIMSTEPS 2\n" + MOLECULE, r"found 1 structures, expected 2 \(ANIMSTEPS\)"),
        (MOLECULE + MOLECULE, "found 2 structures, expected one"),
        ("ATOMS\n", "found a structure without atoms"),
        ("{}", "line 1: found '{}', expected one of ANIMSTEPS"),
    ],
)
def test_broken_files_are_refused(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        read_atoms(written(tmp_path, text))


@pytest.fixture
def oxides(tmp_path) -> list[ase.Atoms]:
    """Structures in train.xyz, and one by one in the folder xsf."""
    structures = [oxide(index) for index in range(8)]
    for index, atoms in enumerate(structures):
        forces = np.random.default_rng(index).normal(size=(3, 3))
        written(tmp_path / "xsf", as_xsf(atoms, forces), f"structure{index:04d}.xsf")
        atoms.calc = SinglePointCalculator(atoms, energy=atoms.info.pop("energy"), forces=forces)
    ase.io.write(tmp_path / "train.xyz", structures, format="extxyz")
    return structures


def sets(path):
    return load_datasets(
        DataSettings(train_file=path, keys=KEYS, multipoles_max_l=0, E0s="average")
    )


def test_folders_and_patterns_hold_what_one_file_holds(tmp_path, oxides):
    assert len(files_of(tmp_path / "xsf")) == len(oxides)
    (tmp_path / "xsf" / "notes.txt").write_text("not a structure")
    for path in (tmp_path / "xsf", tmp_path / "xsf/*.xsf", tmp_path / "xsf/structure000?.xsf"):
        assert is_there(path)
        read = read_located(path)
        assert str(read.locations[3]) == f"{tmp_path}/xsf/structure0003.xsf, configuration 0"
        found = sets(path)
        for atoms, expected in zip(read.atoms, oxides, strict=True):
            np.testing.assert_array_equal(atoms.positions, expected.positions)
            np.testing.assert_array_equal(atoms.get_forces(), expected.get_forces())
            assert atoms.get_potential_energy() == expected.get_potential_energy()
        assert len(found.train) == 7
        assert found.train.catalogue.present["forces"].all()
    both = read_atoms(tmp_path / "*.x[y]z")
    assert len(both) == len(oxides)


@pytest.mark.parametrize("megabytes", [0.0015, 1.0])
def test_preprocessed_xsf_is_what_training_reads(tmp_path, oxides, megabytes):
    data = DataSettings(train_file=tmp_path / "xsf", keys=KEYS, multipoles_max_l=0)
    settings = PreprocessSettings(
        data=data, cutoff=3.0, kspace_cutoff=None, shard_megabytes=megabytes
    )
    folder = preprocess(settings, tmp_path / "data")
    assert len(list(folder.rglob("*.h5"))) == {0.0015: 4, 1.0: 1}[megabytes]
    stored, plain = sets(folder), sets(tmp_path / "xsf")
    for name in ("train", "valid"):
        one, other = (getattr(it, name).catalogue for it in (stored, plain))
        assert one.content_digest() == other.content_digest()
        assert [str(one.location(row)) for row in range(len(one))] == [
            str(other.location(row)) for row in range(len(other))
        ]
    parts = parts_of(tmp_path / "xsf", largest=1)
    assert pickle.loads(pickle.dumps(parts)) == parts
    assert len(parts) == len(oxides)


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(DataError, match=r"\*\.xsf: found no file that matches"):
        read_atoms(tmp_path / "*.xsf")
    assert not is_there(tmp_path / "*.xsf")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty: found no \.xsf file in this folder"):
        read_atoms(tmp_path / "empty")
    written(tmp_path, "x", "a.txt")
    with pytest.raises(DataError, match=r"a\.txt: found suffix"):
        read_atoms(tmp_path / "*.txt")


def test_training_on_xsf_without_energies_is_refused(tmp_path):
    for index in range(4):
        text = CRYSTAL.partition("\n")[2]
        written(tmp_path / "xsf", text, f"{index}.xsf")
    with pytest.raises(DataError, match=r"no configuration with the key 'energy'.*occur: forces"):
        sets(tmp_path / "xsf/*.xsf")
    written(tmp_path / "xsf", CRYSTAL.replace("total", "cohesive"), "4.xsf")
    with pytest.raises(DataError, match=r"did you mean 'cohesive_energy'\?"):
        sets(tmp_path / "xsf/*.xsf")
