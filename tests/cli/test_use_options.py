"""Options of the use of a model, and inputs of a structure, which commands share."""

from __future__ import annotations

import csv
import dataclasses
import importlib
import warnings

import pytest
from ase.io import read, write
from tiny_models import molecule, tiny_model

from mace_scf_jax.predict.use import OPTIONS
from mace_scf_jax_cli.main import main

HEADS = {"any": {"info_keys": {"total_charge": "charge"}, "arrays_keys": {}}}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a model whose training had a key of its own, and an ion."""
    dataclasses.replace(tiny_model("MACEQEq"), record={"heads": HEADS}).save(tmp_path / "model")
    ion = molecule()
    ion.info = {"charge": 1.0}
    write(tmp_path / "start.xyz", ion, format="extxyz")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def predicted(charge: float, **options) -> float:
    atoms = molecule()
    atoms.info = {"total_charge": charge}
    return tiny_model("MACEQEq").predict(atoms, **options)["energy"]


@pytest.mark.parametrize("command", ["evaluate", "potential", "scf", "md", "relax", "export"])
def test_commands_that_use_models_have_all_options(command):
    parser = importlib.import_module(f"mace_scf_jax_cli.{command}")._parser()
    names = {action.dest for action in parser._actions}
    assert {name for name, option in OPTIONS.items() if option is not None} <= names


def test_simulations_read_the_keys_of_the_training(folder, capsys):
    words = ["md", "model", "start.xyz", "--ensemble", "nve", "--temperature", "1"]
    assert main([*words, "--steps", "1", "--pbc_handling", "realspace"]) == 0
    with open("trajectory.csv", newline="") as file:
        first = next(csv.DictReader(file))
    expected = predicted(1.0, pbc_handling="realspace")
    # `start.xyz` has eight digits of a position.
    assert float(first["potential_energy_eV"]) == pytest.approx(expected, abs=1e-4)
    assert read("trajectory.xyz").info["charge"] == 1.0
    again = [*words, "--steps", "2", "--restart"]
    assert main(again) == 2
    assert "pbc_handling: found mixed_periodic, expected realspace" in capsys.readouterr().err
    assert main([*again, "--pbc_handling", "realspace", "--total_charge", "0"]) == 2
    assert "total_charge: found 0.0, expected 1.0" in capsys.readouterr().err


def test_a_warning_of_a_command_is_one_line(folder, monkeypatch):
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    assert main(["info", "model"]) == 0
    assert warnings.formatwarning("found one", UserWarning, "model.py", 3) == "warning: found one\n"


def test_inputs_and_precision_from_the_command_line(folder):
    start = ["model", "start.xyz", "--pbc_handling", "realspace"]
    words = ["--total_charge", "-1", "--steps", "1", "--trajectory", "steps.xyz"]
    main(["relax", *start, *words])
    expected = predicted(-1.0, pbc_handling="realspace")
    # `start.xyz` has eight digits of a position.
    assert read("steps.xyz", "0").get_potential_energy() == pytest.approx(expected, abs=1e-4)
    options = ["--dtype", "float32", "--keys", "{total_charge: none}", "--device", "cpu"]
    assert main(["evaluate", *start, *options, "--output", "out.xyz"]) == 0
    found = read("out.xyz").info["MACE_energy"]
    expected = predicted(0.0, pbc_handling="realspace")
    assert found != expected
    assert found == pytest.approx(expected, abs=1e-2)  # single precision


def test_options_of_another_format_of_export_are_refused(folder, capsys):
    for words, message in (
        (["--dtype", "float32"], "--dtype needs --format stablehlo"),
        (["--stress"], "--stress needs --format stablehlo"),
        (["--format", "stablehlo", "--template", "x.pt"], "--template needs --format state-dict"),
    ):
        with pytest.raises(SystemExit):
            main(["export", "model", "out.npz", *words])
        assert message in capsys.readouterr().err


def test_options_that_make_no_sense(folder, capsys):
    for words, message in (
        (["--head", "pbe"], "head: found 'pbe', expected 'any'"),
        (["--device", "quantum"], "device: found 'quantum', expected one of cpu:0"),
        (["--keys", "{total_chrage: q}"], "did you mean 'total_charge'"),
    ):
        assert main(["evaluate", "model", "start.xyz", *words]) == 2
        assert message in capsys.readouterr().err
