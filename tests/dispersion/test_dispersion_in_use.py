"""Models with dispersion: predictions, calculators, dynamics, files, and where it cannot be."""

from __future__ import annotations

import shlex

import ase
import jax.numpy as jnp
import numpy as np
import pytest
from ase.io import read, write
from compilations import compilations
from tiny_models import periodic, tiny_model

from mace_scf_jax.predict.model import Model, load_model
from mace_scf_jax.predict.stablehlo import export_stablehlo
from mace_scf_jax.simulate import MACESCFCalculator, energy_function
from mace_scf_jax_cli.main import main

PBE = {"dispersion": "d3bj", "dispersion_functional": "PBE", "dispersion_cutoff": 8.0}


@pytest.fixture(scope="module")
def foundation() -> Model:
    """A model as they are trained on PBE data, without charges, with random parameters."""
    return tiny_model("ScaleShiftMACE")


def crystal() -> ase.Atoms:
    atoms = periodic()
    for name in ("total_charge", "external_field"):
        atoms.info.pop(name, None)
    return atoms


def test_dispersion_is_added_and_told(foundation):
    with_it = foundation.using(**PBE)
    without, found = (each.predict(crystal(), stress=True) for each in (foundation, with_it))
    assert found["dispersion_energy"] < -0.1
    assert found["energy"] == pytest.approx(without["energy"] + found["dispersion_energy"])
    assert "dispersion_energy" not in without
    assert not np.allclose(found["forces"], without["forces"], atol=1e-4)
    assert not np.allclose(found["stress"], without["stress"], atol=1e-4)
    assert "dispersion d3bj of pbe, cutoff 8.00 Å" in repr(with_it)
    again = with_it.using(dispersion="none")
    assert again.settings == foundation.settings


def test_a_calculator_follows_atoms_and_cell(foundation):
    """In the words of MACE too; translations are chosen anew once the cell has shrunk."""
    atoms = crystal()
    atoms.calc = MACESCFCalculator(foundation, dispersion=True, damping="bj", dispersion_cutoff=8)
    with_it = foundation.using(**PBE)
    for shrink in (1.0, 0.9):
        atoms.set_cell(atoms.cell * shrink, scale_atoms=True)
        expected = with_it.predict(atoms, stress=True)
        assert atoms.get_potential_energy() == pytest.approx(expected["energy"], abs=1e-9)
        np.testing.assert_allclose(atoms.get_forces(), expected["forces"], atol=1e-9)
        assert atoms.calc.results["dispersion_energy"] == expected["dispersion_energy"]


def test_moving_atoms_compile_nothing(foundation):
    atoms = crystal()
    atoms.calc = MACESCFCalculator(foundation, **PBE)
    atoms.get_forces()
    with compilations() as compiled:
        for seed in range(3):
            atoms.rattle(0.05, seed=seed)
            atoms.get_forces()
    assert not compiled


def test_neighbours_serve_while_no_image_is_missing(foundation):
    _, prepare = energy_function(foundation, **PBE)
    atoms = crystal()
    neighbours, cell = prepare(atoms), jnp.asarray(atoms.cell[:])
    assert neighbours.is_valid(atoms.positions, 0.98 * cell)
    assert neighbours.has_images(0.98 * cell)
    assert not neighbours.has_images(0.94 * cell)
    assert not neighbours.is_valid(0.94 * atoms.positions, 0.94 * cell)


def test_a_model_file_remembers_its_dispersion(foundation, tmp_path, capsys):
    with_it = foundation.using(**PBE)
    with_it.save(tmp_path / "model")
    assert load_model(tmp_path / "model").settings == with_it.settings
    assert main(["info", str(tmp_path / "model")]) == 0
    assert "d3bj of pbe" in capsys.readouterr().out


def test_molecular_dynamics(foundation, tmp_path, monkeypatch, capsys):
    """The energy is conserved, and a run is not gone on from without its dispersion."""
    monkeypatch.chdir(tmp_path)
    foundation.save(tmp_path / "model")
    write("start.xyz", crystal(), format="extxyz")

    def md(words: str) -> int:
        return main(["md", "model", "start.xyz", *shlex.split(words)])

    run = "--ensemble nve --temperature 50 --timestep 0.2 --every 2 --dispersion_cutoff 8"
    assert md(f"{run} --dispersion d3bj --functional pbe --steps 6") == 0
    frames = read("trajectory.xyz", ":")
    totals = [frame.get_potential_energy() + frame.get_kinetic_energy() for frame in frames]
    assert np.ptp(totals) < 1e-3 < abs(frames[0].get_potential_energy())
    expected = foundation.using(**PBE).predict(frames[-1])
    assert frames[-1].get_potential_energy() == pytest.approx(expected["energy"], abs=1e-5)
    assert md("--ensemble nve --temperature 50 --timestep 0.2 --steps 8 --restart") == 2
    assert "restart, dispersion: found None, expected d3bj of pbe" in capsys.readouterr().err
    assert md(f"{run} --dispersion d3bj --functional pbbe --steps 2 --overwrite") == 2
    error = capsys.readouterr().err
    assert "found 'pbbe'" in error
    assert "such as pbe" in error


def test_what_makes_no_sense_is_refused(foundation):
    with pytest.raises(ValueError, match="dispersion_functional: found 'pbe' without dispersion"):
        foundation.using(dispersion_functional="pbe")
    with pytest.raises(ValueError, match="damping: found 'zero', expected 'bj'"):
        MACESCFCalculator(foundation, dispersion=True, damping="zero")
    with_it = foundation.using(**PBE)
    with pytest.raises(ValueError, match="in the model, which StableHLO cannot have"):
        export_stablehlo(with_it, with_it.prepare_atoms([crystal()])[0])
