"""The option ``--sums`` of commands, and of training."""

from __future__ import annotations

import csv
import functools

import pytest
from ase.io import read
from labelled_water import make_input, train_in
from tiny_models import periodic, tiny_model

from mace_scf_jax.electrostatics.mesh_choice import MESH_PAYS_ABOVE, _say
from mace_scf_jax.predict.model import load_model
from mace_scf_jax_cli.main import main


@functools.cache
def energy_on_a_mesh() -> float:
    """Of the crystal that commands are given; another one than that of direct sums."""
    direct = tiny_model().predict(periodic(), forces=False)["energy"]
    expected = tiny_model().with_sums("mesh").predict(periodic(), forces=False)["energy"]
    assert abs(direct - expected) > 1e-6
    return float(expected)


START = ["model", "start.xyz", "--sums", "mesh"]


def test_predictions_sum_as_they_are_told(folder, capsys):
    assert main(["evaluate", *START, "--no-forces", "--output", "evaluated.xyz"]) == 0
    found = read("evaluated.xyz").info["MACE_energy"]
    assert found == pytest.approx(energy_on_a_mesh(), abs=1e-9)


@pytest.mark.slow
def test_simulations_sum_as_they_are_told(folder, capsys):
    expected = energy_on_a_mesh()
    main(["relax", *START, "--steps", "1", "--trajectory", "steps.xyz"])
    assert read("steps.xyz", "0").get_potential_energy() == pytest.approx(expected, abs=1e-9)
    once = "--ensemble nve --temperature 10 --steps 1 --output md.xyz"
    assert main(["md", *START, *once.split()]) == 0
    with open("md.csv", newline="") as file:
        first = next(csv.DictReader(file))
    assert float(first["potential_energy_eV"]) == pytest.approx(expected, abs=1e-6)


def test_what_auto_decides_is_printed(folder, capsys):
    _say.cache_clear()
    assert main(["evaluate", "model", "start.xyz", "--sums", "auto"]) == 0
    assert f"at most {MESH_PAYS_ABOVE} atoms: directly, over wavevectors" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["evaluate", "model", "start.xyz", "--sums", "ewald"])


def test_a_model_without_charges_has_no_sums(folder, capsys):
    tiny_model("MACE").save(folder / "model")
    assert main(["evaluate", "model", "start.xyz", "--sums", "mesh"]) == 2
    assert "expected a model with electrostatics" in capsys.readouterr().err


ON_A_MESH = ["--kspace_cutoff_factor", "1.5", "--sums", "mesh", "--mesh_accuracy", "1e-4"]
ON_A_MESH += ["--train_schedule", "{0: {name: b, start: 0, end: 0, loss: {energy_per_atom: 1.0}}}"]
IN_A_BOX = ["--electrostatic_pbc_method", "mixed_periodic"]


def test_a_mesh_for_training_is_chosen_or_refused(tmp_path, capsys):
    make_input(tmp_path)
    assert train_in(tmp_path, *ON_A_MESH, "--electrostatic_pbc_method", "realspace") == 2
    assert "open boundary is summed over pairs" in capsys.readouterr().err
    assert train_in(tmp_path, *ON_A_MESH, *IN_A_BOX, "--dry_run") == 0
    assert "Coulomb sums on a mesh of " in capsys.readouterr().err


@pytest.mark.slow
def test_training_on_a_mesh(tmp_path):
    make_input(tmp_path)
    assert train_in(tmp_path, *ON_A_MESH, *IN_A_BOX) == 0
    trained = load_model(tmp_path / "water_b.model.safetensors").settings.electrostatics
    assert (trained.sums, trained.mesh_accuracy) == ("mesh", 1e-4)
