"""``mace-scf-jax import`` and ``export`` with potentials of ænet."""

from __future__ import annotations

import re
from pathlib import Path

import ase.io
import jax
import numpy as np
import pytest
from tiny_models import molecule, tiny_model

import mace_scf_jax
from mace_scf_jax.aenet import import_potential
from mace_scf_jax.predict.committee import CommitteeFile, DataDigests, MemberEntry
from mace_scf_jax_cli.main import main

FOLDER = Path(__file__).parents[1] / "data/reference/descriptor"
OXYGEN, HYDROGEN = (str(FOLDER / f"exported.{symbol}.nn.ascii") for symbol in "OH")
FAMILY = "ChebyshevANN"


def test_import_with_a_check_and_export(tmp_path, capsys):
    model, structures = tmp_path / "water.model", tmp_path / "water.xyz"
    ase.io.write(structures, molecule())
    words = ["import", OXYGEN, HYDROGEN, str(model), "--check", str(structures)]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert f"Imported {FAMILY} from {OXYGEN}, {HYDROGEN} to {model}" in printed
    assert re.search(r"H3O2 +\| +\d\.\de[-+]\d+ \| +ok", printed)
    assert main(["export", str(model), str(tmp_path / "out"), "--format", "aenet"]) == 0
    assert "to 2 files" in capsys.readouterr().out
    names = [tmp_path / "out" / f"water.{symbol}.nn.ascii" for symbol in "HO"]
    assert sorted((tmp_path / "out").iterdir()) == names
    again = import_potential(names)
    loaded = mace_scf_jax.load_model(model)
    jax.tree.map(np.testing.assert_array_equal, again.parameters, loaded.parameters)
    assert main(["info", str(model)]) == 0
    assert "exported.O.nn.ascii, exported.H.nn.ascii" in capsys.readouterr().out


def test_a_deviation_is_told_by_the_exit_status(tmp_path, capsys, monkeypatch):
    ase.io.write(tmp_path / "water.xyz", molecule())
    monkeypatch.setattr("mace_scf_jax.aenet.exchange.plain_energy", lambda *_: 0.0)
    words = ["import", OXYGEN, HYDROGEN, str(tmp_path / "m"), "--check"]
    assert main([*words, str(tmp_path / "water.xyz")]) == 1
    assert "EXCEEDED" in capsys.readouterr().out


def test_the_folder_of_a_committee(tmp_path, capsys):
    entries = []
    for number in (1, 2):
        path = f"member-{number}/x.model.safetensors"
        (tmp_path / f"member-{number}").mkdir()
        tiny_model(FAMILY, seed=number).save(tmp_path / path)
        entries.append(MemberEntry(number=number, seed=number, models={"a": path}))
    CommitteeFile(
        version="0",
        name="x",
        size=2,
        split_seed=1,
        data=DataDigests(training="0", validation="1"),
        members=tuple(entries),
    ).write(tmp_path)
    words = ["export", str(tmp_path), str(tmp_path / "out"), "--format", "aenet", "--prefix", "tio"]
    assert main(words) == 0
    assert f"Wrote 2 members {FAMILY} to 4 files" in capsys.readouterr().out
    for number in (1, 2):
        folder = tmp_path / "out" / f"member_00{number - 1}"
        again = import_potential([folder / f"tio.{symbol}.nn.ascii" for symbol in "HO"])
        expected = tiny_model(FAMILY, seed=number).parameters
        jax.tree.map(np.testing.assert_array_equal, again.parameters, expected)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["import", OXYGEN, "out.model"], "found none for H"),
        (["import", OXYGEN, HYDROGEN], "expected the name of a model file behind those of the pot"),
        (
            ["import", OXYGEN, "other.npz", "out.model"],
            "other.npz: expected one source, or several",
        ),
        (["import", "a.npz", "b.npz", "out.model"], "a.npz: expected one source, or several files"),
        (
            ["import", OXYGEN, HYDROGEN, "out.model", "--options", "{a: 1}"],
            "--options: files of ænet tell everything",
        ),
        (
            ["export", "charged.model", "out", "--format", "aenet"],
            f"expected a model of the family {FAMILY}, found LocalCharges, which have no charges",
        ),
        (["export", ".", "out", "--format", "aenet"], "expected a folder with committee.json"),
    ],
)
def test_mistakes(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    tiny_model().save("charged.model")
    assert main(words) == 2
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["charged.model"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--prefix", "x"], "--prefix needs --format aenet"),
        (["--format", "aenet", "--sums", "mesh"], "--sums needs --format stablehlo"),
        (["--format", "aenet", "--solver", "dense"], "need --format stablehlo"),
    ],
)
def test_options_of_other_formats(words, message, capsys):
    with pytest.raises(SystemExit):
        main(["export", "m.model", "out", *words])
    assert message in capsys.readouterr().err
