"""``mace-scf-jax import``, ``export`` and ``info``."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

import mace_scf_jax
from mace_scf_jax.predict import Committee, load_model
from mace_scf_jax.pytorch.files import read_torch_model
from mace_scf_jax_cli.main import main

MODELS = Path(__file__).parents[1] / "data/reference/models"
SOURCE = MODELS / "local_charges_l0_realspace_cluster.npz"


@pytest.fixture(scope="module")
def imported(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("imported") / "cluster.model"
    assert main(["import", str(SOURCE), str(path)]) == 0
    return path


def test_import_and_export_with_a_template(imported, tmp_path, capsys):
    out = tmp_path / "back.npz"
    assert main(["export", str(imported), str(out), "--template", str(SOURCE)]) == 0
    assert f"LocalCharges to {out}, all others as in {SOURCE}" in capsys.readouterr().out
    expected, found = read_torch_model(SOURCE), read_torch_model(out)
    assert found.configuration == expected.configuration
    for name, values in expected.state.items():
        np.testing.assert_array_equal(found.state[name], values, strict=True)


def test_what_is_exported_can_be_imported(imported, tmp_path):
    assert main(["export", str(imported), str(tmp_path / "weights.npz")]) == 0
    assert main(["import", str(tmp_path / "weights.npz"), str(tmp_path / "again.model")]) == 0
    first, second = (mace_scf_jax.load_model(path) for path in (imported, tmp_path / "again.model"))
    assert second.settings == first.settings


def test_options_are_added(tmp_path):
    path = tmp_path / "slab.model"
    assert main(["import", str(SOURCE), str(path), "--options", "{pbc_handling: slab}"]) == 0
    assert mace_scf_jax.load_model(path).settings.electrostatics.boundary == "slab"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["import", "nowhere.npz", "out.model"], "nowhere.npz: no such file"),
        (["import", "{source}", "{source}"], "would replace the source"),
        (["import", "{source}", "out.model", "--check", "no.xyz"], "no.xyz: no such file"),
        (["export", "{source}", "out.npz"], "`mace-scf-jax import {source} OUT.model.safetensors`"),
        (["info", "medium"], "nor a public model: unknown public model"),
        (["export", "{imported}", "out.txt"], "expected a name ending in .npz or .pt"),
        (["export", "{imported}", "out.npz", "--template", "{other}"], "template: interactions.0"),
        (["info", "nowhere.model"], "nowhere.model: no such model file"),
    ],
)
def test_mistakes(words, message, imported, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"source": SOURCE, "imported": imported, "other": MODELS / "qeq_realspace.npz"}
    assert main([word.format(**names) for word in words]) == 2
    error = capsys.readouterr().err
    assert message.format(**names) in error
    assert "Traceback" not in error
    assert not list(tmp_path.iterdir())


def test_info_is_a_summary(imported, capsys):
    assert main(["info", str(imported)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) < 15
    summary = {line[:26].strip(): line[26:].strip() for line in lines}
    assert summary["elements"] == "H O Na"
    assert summary["cutoff"] == "4.5 Å, layers: 2"
    assert "pbc_handling realspace" in summary["electrostatics"]
    assert summary["imported from"] == SOURCE.name


def test_a_model_is_told_in_one_line(imported):
    model = load_model(imported)
    count = sum(np.size(leaf) for leaf in jax.tree.leaves(model.parameters))
    told = f"Model(LocalCharges, elements H O Na, {count} parameters, r_max 4.5)"
    assert repr(model) == told
    assert repr(Committee((model, model))) == f"Committee(2 members, mean, first {told})"


def test_all_of_info(imported, capsys):
    assert main(["info", str(imported), "--all"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["family", "LocalCharges"] in lines
    assert ["boundary", "realspace"] in lines
    assert ["r_max", "4.5"] in lines


def test_info_as_json(imported, capsys):
    assert main(["info", str(imported), "--json"]) == 0
    description = json.loads(capsys.readouterr().out)
    assert list(description["elements"]) == ["H", "O", "Na"]
    assert description["elements"]["O"]["atomic_energy"] == -430.5
    weights = read_torch_model(SOURCE).state
    learned = sum(
        values.size
        for name, values in weights.items()
        if name.split(".")[-1] in ("weight", "weights_max") or ".weights." in name
    )
    assert description["parameters"]["all"] == learned
    assert description["cutoff"] == 4.5
    assert description["electrostatics"]["kspace_cutoff"] > 0.0
    assert description["record"]["imported_from"] == SOURCE.name
    assert description["dtype"] == "float64"
    assert len(description["checksum"]) == 64


def test_info_of_a_damaged_file(imported, tmp_path, capsys):
    damaged = tmp_path / "damaged.model"
    content = bytearray(imported.read_bytes())
    content[-3] ^= 1
    damaged.write_bytes(content)
    assert main(["info", str(damaged)]) == 2
    assert "damaged file, its contents do not match their checksum" in capsys.readouterr().err
