"""``mace-scf-jax scf``: numbers, findings, picture; bad input refused."""

import argparse
import json

import ase.io
import matplotlib.image
import numpy as np
import pytest
from reference_models import STRONG, reference, reference_atoms, reference_model
from tiny_models import tiny_model

from mace_scf_jax.models import InitialFermiLevel, SelfConsistency
from mace_scf_jax.predict.scf_diagnosis import SolverRun, findings_of
from mace_scf_jax.scf import Auto, LinearMixing, SolverStatus
from mace_scf_jax_cli.arguments import add_scf_arguments, self_consistency_of
from mace_scf_jax_cli.main import main

OFFSET = {"initial_fermi_level": InitialFermiLevel.ZERO}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("strong")
    reference_model(STRONG).save(folder / "strong.model")
    ase.io.write(folder / "in.xyz", reference_atoms(STRONG), format="extxyz")
    return folder


def scf(files, *words):
    return main(["scf", str(files / "strong.model"), str(files / "in.xyz"), *words])


def test_solvers_side_by_side(files, capsys):
    written = files / "all.json", files / "residuals.png"
    words = ["--solver", "auto", "linear_mixing", "--max-steps", "200", "--tolerance", "1e-7"]
    assert scf(files, *words, "--json", str(written[0]), "--plot", str(written[1])) == 0
    shown = capsys.readouterr().out
    assert "| 0 H6NaO3 " in shown
    assert "| linear_mixing |    3 of 3 |" in shown

    levels = reference(STRONG).outputs["constant_charge/fermi_level"]
    structures = zip(
        json.loads(written[0].read_text()), reference_atoms(STRONG), levels, strict=True
    )
    for index, (found, atoms, level) in enumerate(structures):
        assert found["configuration"] == index
        assert found["num_atoms"] == len(atoms)
        assert found["total_charge"] == pytest.approx(atoms.info["total_charge"], abs=1e-6)
        assert 0.0 < found["spectral_radius"] < 1.0
        assert found["charge_response"] < 0.0
        assert found["findings"] == []
        auto, mixing = found["solvers"]["auto"], found["solvers"]["linear_mixing"]
        assert mixing["fermi_level"] == pytest.approx(auto["fermi_level"], abs=1e-2)
        if atoms.pbc.any():  # the reference rounds the correction of molecules
            assert auto["fermi_level"] == pytest.approx(level, abs=1e-3)
        for run in (auto, mixing):
            assert run["status"] == "converged"
            assert run["history"][0] > 1e-3
            assert run["history"][-1] == pytest.approx(run["residual"])
            assert run["residual"] < 1e-7
        assert 5 * auto["evaluations"] < mixing["evaluations"]
    picture = matplotlib.image.imread(written[1])
    assert np.ptp(picture[..., :3]) > 0.5


def test_a_structure_without_solution_sets_the_exit_status(files, capsys):
    assert scf(files, "--solver", "linear_mixing", "--max-steps", "2") == 1
    shown = capsys.readouterr().out
    assert shown.count("max steps |     2") == 3
    assert shown.count("no solver found a solution") == 3


def run(status=SolverStatus.CONVERGED):
    return SolverRun(status, 3, 5, 1e-9, 0.0, -1.0, (1.0, 1e-9))


def test_findings():
    runs = {"auto": run(), "dense": run()}
    one, other = np.zeros((3, 4)), np.full((3, 4), 0.2)
    assert list(findings_of(runs, {"auto": one, "dense": one}, 0.9, -1.0)) == []
    for arguments, expected in (
        (({"auto": one, "dense": other}, 0.9, -1.0), "auto and dense found different solutions, b"),
        (({"auto": one}, 1.2, -1.0), "spectral radius 1.20 of ∂F/∂p: an undamped cycle does not"),
        (({"auto": one}, np.nan, -1.0), "spectral radius nan"),
        (({"auto": one}, 0.1, 0.5), r"dQ/dμ +0.50 e/eV: a higher Fermi level takes electrons away"),
        (({"auto": one}, 0.1, -1e-4), "dQ/dμ -1.0e-04 e/eV: the charge hardly answers"),
        (({}, 0.1, -1.0), "no solver found a solution"),
    ):
        (finding,) = findings_of(runs, *arguments)
        assert finding.startswith(expected)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], None),
        (["--tolerance", "1e-10"], SelfConsistency(Auto(tolerance=1e-10), **OFFSET)),
        (
            ["--solver", "linear_mixing", "--mixing", "0.4", "--max_steps", "7"],
            SelfConsistency(LinearMixing(max_steps=7, mixing=0.4), **OFFSET),
        ),
        (["--constant_fermi_level"], SelfConsistency(constant_charge=False)),
    ],
)
def test_what_is_said_about_the_cycle(words, expected):
    parser = argparse.ArgumentParser()
    add_scf_arguments(parser)
    assert self_consistency_of(parser.parse_args(words)) == expected


def test_bad_input_is_one_line(files, tmp_path, capsys):
    tiny_model().save(tmp_path / "local.model")
    model, structures = str(files / "strong.model"), str(files / "in.xyz")
    for words, expected in (
        ([str(tmp_path / "local.model"), structures], "expected a self-consistent model (FixedPoi"),
        ([str(tmp_path / "nowhere"), structures], "nowhere: no such model file"),
        ([model, str(tmp_path / "no.xyz")], "no.xyz: no such file"),
        ([model, structures, "--plot", str(tmp_path / "no/a.png")], "no/a.png: no such folder"),
        ([model, structures, "--mixing", "0.2"], "mixing: expected the solver linear_mixing, fou"),
        ([model, structures, "--tolerance", "-1"], "tolerance: expected a positive number, found"),
    ):
        assert main(["scf", *words]) == 2, words
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert error.startswith("error: ")
        assert expected in error
    local = str(tmp_path / "local.model")
    assert main(["evaluate", local, structures, "--solver", "auto"]) == 2
    assert "scf: expected no settings of a self-consistent cycle" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["scf", model, structures, "--solver", "gradient"])
    assert "invalid choice: 'gradient'" in capsys.readouterr().err
