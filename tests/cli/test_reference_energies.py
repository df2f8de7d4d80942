"""``mace-scf-jax reference-energies``: a table, and a file that E0s takes."""

import json
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.io import write

from mace_scf_jax.data.atomic_energies import atomic_energies
from mace_scf_jax.data.catalogue import Catalogue
from mace_scf_jax_cli.main import main

TRUE = {"O": -432.5, "Ti": -1604.6}


@pytest.fixture(autouse=True)
def structures(tmp_path, monkeypatch):
    """Two files of titanium oxides and oxygen, in the working folder."""
    monkeypatch.chdir(tmp_path)

    def made(formula, extra=0.0):
        atoms = Atoms(formula, positions=2.0 * np.arange(3 * len(Atoms(formula))).reshape(-1, 3))
        atoms.info["REF_energy"] = sum(TRUE[symbol] for symbol in atoms.symbols) + extra
        return atoms

    write("oxides.xyz", [made("TiO2", 0.5), made("Ti2O4", -0.2), made("Ti2O3")])
    write("oxygen.xyz", [made("O2")])


def test_regression_of_several_files(capsys):
    words = ["oxides.xyz", "oxygen.xyz", "--fixed", "{O: -432.5}", "--output", "found.json"]
    assert main(["reference-energies", *words]) == 0
    found = json.loads(Path("found.json").read_text())
    counts = np.array([1, 2, 2])
    expected = np.dot(counts, counts * TRUE["Ti"] + [0.5, -0.2, 0.0]) / np.dot(counts, counts)
    assert found == {"O": -432.5, "Ti": pytest.approx(expected, rel=1e-12)}
    shown = capsys.readouterr().out
    assert "4 equations from 4 structures, rank 1" in shown
    assert "fixed" in shown
    energies = atomic_energies("found.json", elements=(8, 22), train=Catalogue.of([]))
    assert energies.tolist() == [found["O"], found["Ti"]]


def test_compounds(capsys):
    words = ["oxides.xyz", "oxygen.xyz", "--compounds", "TiO2", "O2"]
    assert main(["reference-energies", *words]) == 0
    found = json.loads(Path("E0s.json").read_text())
    assert found == {"O": pytest.approx(-432.5), "Ti": pytest.approx(TRUE["Ti"] - 0.1)}
    assert "the lowest of 2 (oxides.xyz, configuration 1)" in capsys.readouterr().out
    assert main(["reference-energies", *words]) == 2
    assert "E0s.json: exists already; replace it with --overwrite" in capsys.readouterr().err
    assert main(["reference-energies", *words, "--overwrite"]) == 0


def test_a_pattern_of_xsf_files(tmp_path):
    for name, atoms, energy in (("a", "8 0 0 0\n8 0 0 1", -865.0), ("b", "22 0 0 0", -1604.6)):
        (tmp_path / f"{name}.xsf").write_text(f"# total energy = {energy} eV\nATOMS\n{atoms}\n")
    assert main(["reference-energies", "*.xsf", "--energy_key", "energy"]) == 0
    assert json.loads(Path("E0s.json").read_text()) == pytest.approx(TRUE)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--compounds", "TiO2", "H2O"], "found no structure of the composition H2O"),
        (["--compounds", "TiO2", "--subset_size", "2"], "unknown key 'subset_size'"),
        (["--subset_size", "2", "--subset_fraction", "0.5"], "found both"),
        (["--energy_key", "energy_of_it"], "no configuration with the key 'energy_of_it'"),
        (["--output", "E0s.txt"], "E0s.txt: expected a name that ends in .json"),
        (["--fixed", "-432.5"], "expected {element: energy}"),
    ],
)
def test_bad_input_leaves_no_file(words, message, capsys, tmp_path):
    before = sorted(tmp_path.iterdir())
    assert main(["reference-energies", "oxides.xyz", *words]) == 2
    assert message in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == before
