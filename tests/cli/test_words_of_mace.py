"""Commands, arguments and names that users of MACE try first lead on."""

from __future__ import annotations

import importlib

import pytest

import mace_scf_jax
from mace_scf_jax_cli.main import COMMANDS, main
from mace_scf_jax_cli.words_of_mace import ARGUMENTS
from mace_scf_jax_cli.words_of_mace import COMMANDS as COMMANDS_OF_MACE


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["mace_run_train", "--name", "x"], "a command of MACE: mace-scf-jax train config.yaml"),
        (["eval-configs"], "a command of MACE: mace-scf-jax evaluate MODEL FILE.xyz"),
        (["create_lammps_model", "x.model"], "there is no model for LAMMPS here"),
        (["evaluate", "--configs=a.xyz", "--model=a.model"], "unknown argument --configs: model"),
        (["evaluate", "--model", "a.model", "b.xyz"], "unknown argument --model: model and"),
        (["export", "a", "b.pt", "--format", "lammps"], "unknown argument --format=lammps: there"),
        (["plot", "--data", "results"], "mace-scf-jax plot FOLDER_OF_THE_RUN"),
    ],
)
def test_commands_and_arguments(words, message, capsys):
    assert main(words) == 2
    assert message in capsys.readouterr().err


def test_what_is_named_instead_exists():
    told = [*COMMANDS_OF_MACE.values(), *ARGUMENTS.values()]
    named = {
        text.partition("mace-scf-jax ")[2].split()[0].strip("`") for text in told if "jax " in text
    }
    assert named <= set(COMMANDS)
    assert {command for command, _ in ARGUMENTS} <= set(COMMANDS)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("MACECalculator", "is called MACESCFCalculator"),
        ("mace_mp", "public models are imported by name"),
    ],
)
def test_names(name, message):
    with pytest.raises(ImportError, match=message):
        getattr(mace_scf_jax, name)
    assert name not in dir(mace_scf_jax)


def test_modules():
    with pytest.raises(ModuleNotFoundError, match=r"are in mace_scf_jax\.simulate"):
        importlib.import_module("mace_scf_jax.calculators")


def test_the_calculator_is_found_where_it_is_looked_for():
    simulate = importlib.import_module("mace_scf_jax.simulate")
    assert mace_scf_jax.MACESCFCalculator is simulate.MACESCFCalculator
