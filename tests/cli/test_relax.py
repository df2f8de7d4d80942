"""``mace-scf-jax relax``: forces vanish, files are written, bad input is refused."""

import shlex

import ase
import numpy as np
import pytest
from ase.io import read, write
from tiny_models import periodic, slab

from mace_scf_jax_cli.main import main


def relax(words: str) -> int:
    return main(["relax", "model", "start.xyz", *shlex.split(words)])


def test_forces_and_stress_vanish(folder, capsys):
    # 26 steps are needed
    status = relax("--cell --fmax 0.02 --steps 30 --trajectory steps.xyz")
    shown = capsys.readouterr().out
    steps: list[ase.Atoms] = read("steps.xyz", ":")
    relaxed = read("relaxed.xyz")
    energies = [atoms.get_potential_energy() for atoms in steps]
    assert energies[-1] < energies[0]
    assert relaxed.get_potential_energy() == pytest.approx(energies[-1])
    assert np.abs(np.asarray(relaxed.cell) - np.asarray(periodic().cell)).max() > 1e-3
    largest = np.linalg.norm(relaxed.get_forces(), axis=1).max()
    first = np.linalg.norm(steps[0].get_forces(), axis=1).max()
    assert status == 0
    assert "\nconverged after" in shown
    # The optimiser judges forces in the coordinates of the cell at the start.
    strained = np.linalg.norm(np.linalg.solve(steps[0].cell, relaxed.cell) - np.eye(3))
    assert largest < 0.02 * (1.0 + strained)
    assert largest < first


def test_steps_that_do_not_suffice(model, folder, capsys):
    assert relax("--fmax 1e-9 --steps 1 --optimizer fire") == 1
    assert "not converged after 1 steps; wrote relaxed.xyz" in capsys.readouterr().out
    relaxed = read("relaxed.xyz")
    assert np.abs(relaxed.positions - periodic().positions).max() > 1e-5
    expected = model.predict(relaxed)["forces"]
    np.testing.assert_allclose(relaxed.get_forces(), expected, atol=1e-6)


def test_bad_input_is_refused(folder, capsys):
    (folder / "there.xyz").write_text("kept")
    for words, expected in (
        ("--output there.txt", "found suffix '.txt', of which ASE knows no format"),
        ("--output there.xyz", "there.xyz: exists already; replace it with --overwrite"),
        ("--trajectory no/steps.xyz", "no/steps.xyz: no such folder"),
        ("--optimizer bgfs", "unknown optimiser 'bgfs'; did you mean 'bfgs'?"),
        ("--fmax 0", "largest force: found 0.0, expected a positive number"),
    ):
        assert relax(words) == 2, words
        assert expected in capsys.readouterr().err
    write("start.xyz", slab(), format="extxyz")
    assert relax("--cell") == 2
    assert "periodic in three directions, found pbc TTF" in capsys.readouterr().err
    assert (folder / "there.xyz").read_text() == "kept"
    assert not (folder / "relaxed.xyz").exists()
