"""Training with dispersion: what is learned is the rest, and the model file has both."""

from __future__ import annotations

import ase.io
import numpy as np
import pytest
from labelled_water import make_input, train_in

from mace_scf_jax import load_model
from mace_scf_jax.training.records.results_file import read_results

PBE = ("--dispersion", "d3bj", "--dispersion_functional", "PBE", "--dispersion_cutoff", "8")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("with_dispersion")
    make_input(folder)
    assert train_in(folder, *PBE, "--max_num_epochs", "2") == 0
    return folder


def test_errors_of_a_run_are_those_of_its_model(trained):
    """The run compares with labels without dispersion, the model with it with all of them."""
    model = load_model(trained / "water_b.model.safetensors")
    assert model.settings.dispersion.functional == "pbe"
    labelled = ase.io.read(trained / "test.xyz", ":")
    (results,) = trained.glob("results/*_train.txt")
    told = read_results(results).final["b"]["water"]["rmse_e_per_atom"]

    def error(model):
        predicted = [each["energy"] for each in model.predict(labelled)]
        wanted = [atoms.info["REF_energy"] for atoms in labelled]
        return np.sqrt(np.mean((np.array(predicted) - wanted) ** 2)) / 3

    assert error(model) == pytest.approx(told, rel=1e-9)
    assert error(model.using(dispersion="none")) != pytest.approx(told, rel=1e-4)


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("--dispersion", "d3bj"), "expected the name of a 'dispersion_functional' with it"),
        (("--dispersion_functional", "pbe"), "'dispersion_functional': found 'pbe' without"),
        ((*PBE[:3], "pbbe"), "such as pbe, rpbe"),
    ],
)
def test_what_makes_no_sense_is_refused(trained, capsys, words, error):
    assert train_in(trained, *words, "--dry_run") == 2
    assert error in capsys.readouterr().err
